"""Brings the items of instances to their level: the only place where changes of items are queued.

Whoever changes a level asks for it in the same commit, through the outbox. While a mint of the
instance is under way, it is noted there that another change follows, and whoever reports its end
asks again: both hold the mint's lock, so one of them sees the other. A mint of an instance without
a level is called off, in a step of its own; whoever did that looks again, since the level may have
come back meanwhile.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress

from mesh.clock import new_id
from mesh.db import Connection, Database, RetryTransaction
from mesh.outbox import Claim, Done, Outcome, Queue, Settlement
from mesh.worker import Worker
from nft_svc.audit import Origin
from nft_svc.cancelling import Cancelling
from nft_svc.catalog import Catalog
from nft_svc.errors import MintHandedOver
from nft_svc.feed import entry
from nft_svc.mints import Change, MintKind
from nft_svc.store import feed, mints, rewards
from nft_svc.submissions import UPGRADES, ask_to_call_off, queue_mints
from nft_svc.upgrades import Badge, items, mint_of, need

ACTOR = "nft/upgrades"


class Upgrading:
    """Works what was asked for; `announce` is called after each commit that queued a change."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        submissions: Queue,
        cancelling: Cancelling,
        announce: Callable[[], None],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._submissions = submissions
        self._cancelling = cancelling
        self._announce = announce

    def worker(self) -> Worker:
        """The worker to run; wake it when levels changed."""
        return Worker(
            self._database,
            self._submissions,
            UPGRADES,
            handle=self._work,
            settle=_settle,
            batch=50,
            concurrency=1,
        )

    async def follow(self, nft_id: str, origin: Origin, called_off: str | None = None) -> None:
        """Queues the change that is due for an instance, or notes it at the mint under way.

        Asks to have that mint called off if it should not happen at all any more. The mint
        `called_off` was, as far as it could be: with a level again, another takes its place.
        """
        await self._database.run(
            lambda connection: self._follow(connection, nft_id, origin, called_off)
        )
        self._announce()

    async def _follow(
        self, connection: Connection, nft_id: str, origin: Origin, called_off: str | None
    ) -> None:
        holder = await rewards.holder(connection, nft_id)
        assert holder is not None, "instances are never deleted"
        user_id, code = holder
        nft_type = (await self._catalog.current(connection))[code]
        now, standings = await rewards.lock_progress(connection, [holder])
        level = standings[holder].progress.level
        history = await mints.history(connection, nft_id, called_off)
        due = need(nft_type, level, items(history))
        if due is None:
            return
        if under_way := next((mint for mint in history if mint.under_way), None):
            _, locked = await mints.lock(connection, [under_way.mint_id])
            if not locked[under_way.mint_id].under_way:
                raise RetryTransaction  # it ended just now
            await mints.outdate(connection, under_way.mint_id)
            doomed = under_way.kind is MintKind.MINT and not level
            if doomed and under_way.mint_id != called_off:
                queue, trace = self._submissions, origin.traceparent
                await ask_to_call_off(connection, queue, under_way, trace)
            return
        mint = mint_of(Badge(nft_id, user_id, nft_type), due, now, new_id)
        await queue_mints(connection, self._submissions, [(mint, origin)])
        # Last, because the feed's head stays locked from here to the commit.
        await feed.append(connection, [entry(Change(mint))])

    async def _work(self, claims: Sequence[Claim]) -> Sequence[Outcome]:
        return [await self._one(claim) for claim in claims]

    async def _one(self, claim: Claim) -> Outcome:
        origin = Origin(ACTOR, traceparent=claim.traceparent)
        nft_id, _, doomed = claim.payload.decode().partition("/")
        if doomed:
            with suppress(MintHandedOver):  # it will have an item, and that will be taken back
                await self._cancelling.call_off(doomed, origin)
        await self.follow(nft_id, origin, doomed or None)
        return Done()


async def _settle(_: Connection, __: Sequence[Settlement]) -> None:
    """Nothing is left to write: each look commits what it finds."""
