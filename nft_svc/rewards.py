"""Rewards, in group commits: lock, decide, write, for all that arrived meanwhile."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from go2asia.nft.v1 import rewards_pb2

from mesh.batching import GroupCommit
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.errors import RequestIdReused
from mesh.idempotency import Key, recall, remember
from mesh.outbox import Queue
from nft_svc import convert
from nft_svc.accrual import Accrual, Grant, Holder, Reward, Standing, admit
from nft_svc.catalog import Catalog
from nft_svc.definitions import NftType
from nft_svc.errors import CounterOverflow, NftError
from nft_svc.feed import entry
from nft_svc.mints import Change
from nft_svc.store import audit, feed, mints
from nft_svc.store import rewards as store
from nft_svc.submissions import ask_for_upgrades, queue_mints
from nft_svc.tables import idempotency_keys

Result = rewards_pb2.RewardOutcome | Exception


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """A reward or a grant under its idempotency key; both share one space of request ids."""

    key: Key
    reward: Reward | Grant


class Rewards:
    """Applies rewards; an async context manager.

    `announce` is called after each commit that queued mints.
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
        self._group = GroupCommit[RewardRequest, rewards_pb2.RewardOutcome](
            self._commit, name="rewards", writers=2
        )

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._group.__aexit__(kind, error, trace)

    async def apply(self, request: RewardRequest) -> rewards_pb2.RewardOutcome:
        """Applies one reward, or returns what it did the first time.

        Raises `UnknownNftType`, `NftTypeArchived`, `UnknownCounter`, `MintingNotOffered`,
        `CounterOverflow`, or `RequestIdReused`; then nothing was written for it.
        """
        return await self._group.submit(request)

    async def apply_many(self, requests: Sequence[RewardRequest]) -> list[Result]:
        """Applies independent rewards; for each what `apply` would return or raise."""
        return await self._group.submit_many(requests)

    async def _commit(self, requests: Sequence[RewardRequest]) -> Sequence[Result]:
        answers, mints_queued = await self._database.run(
            lambda connection: self._write(connection, requests)
        )
        if mints_queued:
            self._announce()
        return [answers[request.key] for request in requests]

    async def _write(
        self, connection: Connection, requests: Sequence[RewardRequest]
    ) -> tuple[dict[Key, Result], bool]:
        answers = await _remembered(connection, requests)
        types = await self._catalog.current(connection)
        admitted = _admitted(types, requests, answers)
        if not admitted:
            return answers, False
        holders = {request.reward.holder for request in admitted}
        now, standings = await store.lock_progress(connection, holders)
        asked = {each.reward.holder for each in admitted if _asks_for_mint(each.reward)}
        await _mark_minted(connection, types, standings, asked)
        accrual = Accrual(types, standings, now, new_id)
        effects = _apply(accrual, admitted, answers)
        queued = False
        if effects:
            queued = await self._store(connection, accrual)
            await remember(connection, idempotency_keys, effects)
            # Last, because the feed's head stays locked from here to the commit.
            await feed.append(connection, [entry(Change(mint)) for mint, _ in accrual.mints])
        return answers, queued

    async def _store(self, connection: Connection, accrual: Accrual) -> bool:
        """Writes it all; returns whether it put something into the outbox."""
        await write(connection, accrual)
        await queue_mints(connection, self._submissions, accrual.mints)
        # What kept a mint from being queued may have ended since; then it is the look that does.
        passed_by = accrual.passed_by & accrual.minted
        passed_by |= await mints.on_chain(connection, accrual.passed_by - passed_by)
        await ask_for_upgrades(connection, self._submissions, passed_by, None)
        return bool(accrual.mints or passed_by)


async def write(connection: Connection, accrual: Accrual) -> None:
    """Writes what an accrual gathered, its mints aside."""
    await store.write_progress(connection, accrual.changed)
    await store.create_instances(connection, list(accrual.created.values()))
    await store.move_instances(connection, list(accrual.moved.values()))
    await audit.write(connection, accrual.audit)


async def _remembered(
    connection: Connection, requests: Sequence[RewardRequest]
) -> dict[Key, Result]:
    known = await recall(connection, idempotency_keys, [request.key for request in requests])
    return {
        key: rewards_pb2.RewardOutcome.FromString(answer) if isinstance(answer, bytes) else answer
        for key, answer in known.items()
    }


def _admitted(
    types: Mapping[str, NftType], requests: Sequence[RewardRequest], answers: dict[Key, Result]
) -> list[RewardRequest]:
    """Those to apply, repetitions collapsed into one; answers the ones without an aim."""
    admitted = []
    for request in {request.key: request for request in requests}.values():
        if request.key in answers:
            continue
        try:
            admit(types, request.reward)
        except NftError as refusal:
            answers[request.key] = refusal
        else:
            admitted.append(request)
    return admitted


async def _mark_minted(
    connection: Connection,
    types: Mapping[str, NftType],
    standings: dict[Holder, Standing],
    asked: Collection[Holder],
) -> None:
    """Finds out which instances are on chain.

    Of those that could come to an auto-mint level, or whose mint is asked for.
    """
    candidates = {
        standing.nft_id: holder
        for holder, standing in standings.items()
        if standing.nft_id is not None
        and (holder in asked or _may_mint(types[holder[1]], standing))
    }
    for nft_id in await mints.on_chain(connection, candidates):
        holder = candidates[nft_id]
        standings[holder] = replace(standings[holder], minted=True)


def _may_mint(nft_type: NftType, standing: Standing) -> bool:
    return nft_type.auto_mints(above=standing.progress.level, upto=len(nft_type.levels))


def _asks_for_mint(reward: Reward | Grant) -> bool:
    return isinstance(reward, Grant) and reward.mint


def _apply(
    accrual: Accrual, admitted: Sequence[RewardRequest], answers: dict[Key, Result]
) -> list[tuple[Key, bytes]]:
    """Answers every request; returns those that took effect, to be remembered."""
    effects: dict[tuple[str, str], tuple[Key, bytes]] = {}
    for request in admitted:
        key = request.key
        if (key.scope, key.request_id) in effects:
            answers[key] = RequestIdReused(request_id=key.request_id)
            continue
        try:
            outcome = convert.reward_outcome(accrual.apply(request.reward), request.reward)
        except CounterOverflow as refusal:
            answers[key] = refusal
            continue
        answers[key] = outcome
        effects[key.scope, key.request_id] = key, outcome.SerializeToString()
    return list(effects.values())
