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
from nft_svc.audit import Origin
from nft_svc.catalog import Catalog
from nft_svc.errors import MintEnded, MintHandedOver
from nft_svc.feed import entry
from nft_svc.mints import Change
from nft_svc.rewards import write
from nft_svc.store import feed, mints
from nft_svc.store import rewards as store
from nft_svc.store.requests import recall_together
from nft_svc.submissions import call_off
from nft_svc.tables import idempotency_keys

Outcome = rewards_pb2.RevertOutcome


class Reverts:
    """Takes rewards back; `announce` is called after each commit that called a mint off.

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
                return await self._bury(connection, [key, reverted], original)
            applied = rewards_pb2.RewardOutcome.FromString(given)
            reward = convert.reward_given(applied, reference, origin)
            asked = applied.mint_id if applied.mint_asked else ""
            return await self._take_back(connection, [key, reverted], reward, asked)

        outcome = await self._database.run(work)
        if outcome.cancelled_mint_id:
            self._announce()
        return outcome

    async def _bury(self, connection: Connection, answered: list[Key], original: Key) -> Outcome:
        outcome = Outcome(tombstone=True)
        nothing = rewards_pb2.RewardOutcome(reverted=True).SerializeToString()
        told = [(key, outcome.SerializeToString()) for key in answered]
        await remember(connection, idempotency_keys, [*told, (original, nothing)])
        return outcome

    async def _take_back(
        self,
        connection: Connection,
        answered: list[Key],
        reward: Reward | Grant,
        asked_mint_id: str,
    ) -> Outcome:
        types = await self._catalog.current(connection)
        now, standings = await store.lock_progress(connection, [reward.holder])
        accrual = Accrual(types, standings, now, new_id)
        outcome = convert.revert_outcome(accrual.revert(reward))
        await write(connection, accrual)
        change = None
        if mint_id := await _mint_to_end(connection, outcome, asked_mint_id):
            change = await self._call_off(connection, mint_id, now, reward.origin)
            if change is None:
                outcome.standing_mint_id = mint_id
            else:
                outcome.cancelled_mint_id = mint_id
        told = [(key, outcome.SerializeToString()) for key in answered]
        await remember(connection, idempotency_keys, told)
        # Last, because the feed's head stays locked from here to the commit.
        await feed.append(connection, [entry(change)] if change else [])
        return outcome

    async def _call_off(
        self, connection: Connection, mint_id: str, now: datetime, origin: Origin
    ) -> Change | None:
        _, locked = await mints.lock(connection, [mint_id])
        try:
            return await call_off(connection, self._submissions, locked[mint_id], now, origin)
        except (MintEnded, MintHandedOver):
            return None


async def _mint_to_end(connection: Connection, outcome: Outcome, asked_mint_id: str) -> str | None:
    """The mint that goes with the reward: the one it asked for, any when no level is left."""
    gone = outcome.level_lowered and not outcome.level
    if not (gone or asked_mint_id):
        return None
    mint = await mints.standing_in_the_way(connection, outcome.nft_id)
    if mint is None or not (gone or mint.mint_id == asked_mint_id):
        return None
    return mint.mint_id
