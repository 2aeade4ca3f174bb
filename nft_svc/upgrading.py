"""Brings the items of instances to their level: the only place where changes of items are queued.

Whoever changes a level asks for it in the same commit, through the outbox. While a mint of the
instance is under way, it is noted there that another change follows, and whoever reports its end
asks again: both hold the mint's lock, so one of them sees the other.
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
from nft_svc.mints import Change, Mint, MintKind
from nft_svc.store import feed, mints, rewards
from nft_svc.submissions import UPGRADES, queue_mints
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

    async def follow(self, nft_id: str, origin: Origin) -> Mint | None:
        """Queues the change that is due for an instance, or notes it at the mint under way.

        Returns that mint if it should not happen at all any more.
        """

        async def work(connection: Connection) -> Mint | None:
            return await self._follow(connection, nft_id, origin)

        doomed = await self._database.run(work)
        self._announce()
        return doomed

    async def _follow(self, connection: Connection, nft_id: str, origin: Origin) -> Mint | None:
        holder = await rewards.holder(connection, nft_id)
        assert holder is not None, "instances are never deleted"
        user_id, code = holder
        nft_type = (await self._catalog.current(connection))[code]
        now, standings = await rewards.lock_progress(connection, [holder])
        level = standings[holder].progress.level
        history = await mints.history(connection, nft_id)
        due = need(nft_type, level, items(history))
        if due is None:
            return None
        if under_way := next((mint for mint in history if mint.under_way), None):
            _, locked = await mints.lock(connection, [under_way.mint_id])
            if not locked[under_way.mint_id].under_way:
                raise RetryTransaction  # it ended just now
            await mints.outdate(connection, under_way.mint_id)
            return under_way if under_way.kind is MintKind.MINT and not level else None
        mint = mint_of(Badge(nft_id, user_id, nft_type), due, now, new_id)
        await queue_mints(connection, self._submissions, [(mint, origin)])
        # Last, because the feed's head stays locked from here to the commit.
        await feed.append(connection, [entry(Change(mint))])
        return None

    async def _work(self, claims: Sequence[Claim]) -> Sequence[Outcome]:
        return [await self._one(claim) for claim in claims]

    async def _one(self, claim: Claim) -> Outcome:
        origin = Origin(ACTOR, traceparent=claim.traceparent)
        doomed = await self.follow(claim.payload.decode(), origin)
        if doomed is not None:
            with suppress(MintHandedOver):  # it will have an item, and that will be taken back
                await self._cancelling.call_off(doomed.mint_id, origin)
        return Done()


async def _settle(_: Connection, __: Sequence[Settlement]) -> None:
    """Nothing is left to write: each look commits what it finds."""
