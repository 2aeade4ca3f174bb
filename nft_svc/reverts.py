"""Rewards taken back, each once, also before they arrive."""

from collections.abc import Callable
from datetime import datetime

from go2asia.nft.v1 import rewards_pb2

from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.idempotency import ANY_INPUT, Key, remember
from mesh.outbox import Queue
from nft_svc import convert
from nft_svc.accrual import Accrual, Grant, Reward
from nft_svc.audit import AuditEntry, Origin
from nft_svc.catalog import Catalog
from nft_svc.feed import entry
from nft_svc.mints import Change, MintKind
from nft_svc.rewards import write
from nft_svc.store import audit, feed, mints
from nft_svc.store import rewards as store
from nft_svc.store.requests import recall_together
from nft_svc.submissions import ask_for_upgrades, withdraw
from nft_svc.tables import idempotency_keys

Outcome = rewards_pb2.RevertOutcome


class Reverts:
    """Takes rewards back; `announce` is called after each commit that lowered a level.

    What a reward did is told by its remembered answer. A tombstone is such an answer, to any input,
    in the place of the one that has yet to come: whichever transaction stores its answer first
    wins, and the other one starts over and sees it.
    """

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        submissions: Queue,
        announce: Callable[[], None],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._submissions = submissions
        self._announce = announce

    async def revert(
        self, key: Key, scope: str, original_request_id: str, reference: str, origin: Origin
    ) -> Outcome:
        """Takes back what the request `original_request_id` of `scope` gave, or will not give.

        A second revert of the same reward, under whichever request id, gets the first answer.
        Raises `RequestIdReused`.
        """
        original = Key(scope, original_request_id, ANY_INPUT)
        reverted = Key(f"{scope}:reverted", original_request_id, ANY_INPUT)

        async def work(connection: Connection) -> Outcome:
            answer, earlier, given = await recall_together(connection, key, reverted, original)
            if answer is not None:
                return Outcome.FromString(answer)
            if earlier is not None:
                await remember(connection, idempotency_keys, [(key, earlier)])
                return Outcome.FromString(earlier)
            if given is None:
                buried = _tombstone(original, reference, origin)
                return await self._bury(connection, [key, reverted], original, buried)
            applied = rewards_pb2.RewardOutcome.FromString(given)
            reward = convert.reward_given(applied, reference, origin)
            return await self._take_back(connection, [key, reverted], reward)

        outcome = await self._database.run(work)
        if outcome.level_lowered:
            self._announce()
        return outcome

    async def _bury(
        self, connection: Connection, answered: list[Key], original: Key, buried: AuditEntry
    ) -> Outcome:
        await audit.write(connection, [buried])
        outcome = Outcome(tombstone=True)
        nothing = rewards_pb2.RewardOutcome(reverted=True).SerializeToString()
        told = [(key, outcome.SerializeToString()) for key in answered]
        await remember(connection, idempotency_keys, [*told, (original, nothing)])
        return outcome

    async def _take_back(
        self, connection: Connection, answered: list[Key], reward: Reward | Grant
    ) -> Outcome:
        types = await self._catalog.current(connection)
        now, standings = await store.lock_progress(connection, [reward.holder])
        accrual = Accrual(types, standings, now, new_id)
        outcome = convert.revert_outcome(accrual.revert(reward))
        await write(connection, accrual)
        change = None
        if outcome.level_lowered:
            change = await self._let_mints_follow(connection, outcome, now, reward.origin)
        if change is not None:
            outcome.cancelled_mint_id = change.mint.mint_id
        told = [(key, outcome.SerializeToString()) for key in answered]
        await remember(connection, idempotency_keys, told)
        # Last, because the feed's head stays locked from here to the commit.
        await feed.append(connection, [entry(change)] if change else [])
        return outcome

    async def _let_mints_follow(
        self, connection: Connection, outcome: Outcome, now: datetime, origin: Origin
    ) -> Change | None:
        """Calls off what nobody tried to hand over, if no level is left; the rest is to follow."""
        nft_id, change = outcome.nft_id, None
        history = await mints.history(connection, nft_id)
        unneeded = [each for each in history if each.under_way and each.kind is MintKind.MINT]
        if unneeded and not outcome.level:
            mint_id = unneeded[0].mint_id
            _, locked = await mints.lock(connection, [mint_id])
            mint = locked[mint_id]
            change = await withdraw(connection, self._submissions, mint, now, origin)
        passed_by = await mints.on_chain(connection, [nft_id])
        await ask_for_upgrades(connection, self._submissions, passed_by, origin.traceparent)
        return change


def _tombstone(original: Key, reference: str, origin: Origin) -> AuditEntry:
    """The line of what was taken back before it arrived: whose it was, nobody knows yet."""
    return AuditEntry(
        origin=origin,
        action="reward.revert",
        subject=f"request/{original.request_id}",
        user_id=None,
        before=None,
        after={"tombstone": True, "original_request_id": original.request_id},
        reference=reference,
    )
