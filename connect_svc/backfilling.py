"""Trying a rule on stored events: asking for it, and the worker that does it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import takewhile
from types import TracebackType
from typing import Self

from go2asia.connect.v1 import backfills_pb2, events_pb2, rules_pb2

from connect_svc import convert
from connect_svc.deciding import try_rules
from connect_svc.errors import BackfillNotFound, BackfillStateForbidden, RuleNotFound
from connect_svc.lanes import LANES, QUEUE
from connect_svc.pacing import paced
from connect_svc.rationing import foresee, ration
from connect_svc.records import BackfillRecord
from connect_svc.rules import Catalogue, CompiledRule, Decision, compile_rule, stored_rule
from connect_svc.store import ActionStore, BackfillStore, RuleStore
from connect_svc.tables import idempotency_keys
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.errors import MeshError
from mesh.idempotency import Key, recall, remember
from mesh.telemetry import logger

_log = logger("connect.backfilling")
_CHUNK = 500
_POLL_SECONDS = 1.0
_APPLICABLE = (rules_pb2.Rule.STATE_ENABLED, rules_pb2.Rule.STATE_PAUSED)

Backfill = backfills_pb2.Backfill


async def start_backfill(database: Database, key: Key, author: str, rule_id: str) -> Backfill:
    """Has a rule's present version previewed on the events stored up to now.

    Raises `RuleNotFound`, `InvalidRule`, `InvalidExpression` or `RequestIdReused`.
    """

    async def work(connection: Connection) -> Backfill:
        rules = RuleStore(connection)
        catalog_version = await rules.catalog_version()
        rule = await rules.as_of(rule_id, catalog_version)
        if rule is None:
            raise RuleNotFound(rule_id)
        compile_rule(rule)
        backfill_id = new_id()
        await BackfillStore(connection).add(
            BackfillRecord(backfill_id, rule_id, rule.version, catalog_version, author, new_id())
        )
        return await read_backfill(connection, backfill_id)

    return await _once(database, key, work)


async def apply_backfill(database: Database, key: Key, backfill_id: str) -> Backfill:
    """Has a preview applied.

    Raises `BackfillNotFound`, `BackfillStateForbidden` or `RequestIdReused`.
    """

    async def work(connection: Connection) -> Backfill:
        store = BackfillStore(connection)
        record = await store.get(backfill_id)
        if record is None:
            raise BackfillNotFound(backfill_id)
        rule = await RuleStore(connection).as_of(record.rule_id, record.catalog_version)
        if rule is None or rule.state not in _APPLICABLE:
            wanted = "enable its rule and preview that version: only such a one is applied"
            raise BackfillStateForbidden(backfill_id=backfill_id, state=record.state, wanted=wanted)
        if not await store.apply(backfill_id):
            wanted = "only a finished preview is applied, and once"
            raise BackfillStateForbidden(backfill_id=backfill_id, state=record.state, wanted=wanted)
        return await read_backfill(connection, backfill_id)

    return await _once(database, key, work)


class Backfiller:
    """Carries backfills on within the context, a chunk a commit; any number of replicas may.

    `dispatch` is called after each commit that queued actions.
    """

    def __init__(self, database: Database, *, dispatch: Callable[[], None]) -> None:
        self._database = database
        self._dispatch = dispatch
        self._wake = asyncio.Event()
        self._closing = False

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run(), name="backfills")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        self._wake.set()
        await self._running

    def wake(self) -> None:
        """Says that there is something to do; without it the next poll notices."""
        self._wake.set()

    async def _run(self) -> None:
        while not self._closing:
            self._wake.clear()
            try:
                if await self._database.run(carry_on):
                    self._dispatch()
                    continue
            except MeshError as error:
                _log.warning("backfill.interrupted", error=error.message)
            except Exception:
                _log.exception("backfill.failed")
            try:
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                continue


async def carry_on(connection: Connection, size: int = _CHUNK) -> bool:
    """Takes one backfill up to `size` events further; False when there is none under way."""
    store = BackfillStore(connection)
    record = await store.claim()
    if record is None:
        return False
    rule = await _rule(connection, record)
    if not record.previewing:
        await store.keep_reversals_out()
    elif record.seen_event_id is None:
        # Not before: what was on its way in when the preview was asked for is stored only now.
        newest = await store.newest_event(rule.event_type)
        record = replace(record, last_event_id=newest or record.last_event_id)
    events = await store.next_events(record, rule.event_type, size)
    ids = [event.event_id for event in events]
    gone = await store.reversed(ids)
    held = await store.held(ids, record.rule_id) - gone
    fresh = [event for event in events if event.event_id not in held | gone]
    decisions = await _decide(connection, record, rule, fresh)
    undecided = {event.event_id for event in fresh[len(decisions) :]}
    seen = list(takewhile(lambda event_id: event_id not in undecided, ids))
    record.tally.reversed += len(gone.intersection(seen))
    record.tally.held += len(held.intersection(seen))
    await _conclude(connection, record, fresh, decisions)
    await store.advance(record, seen, ended=len(seen) == len(events) < size)
    return True


async def _rule(connection: Connection, record: BackfillRecord) -> CompiledRule:
    rule = await RuleStore(connection).as_of(record.rule_id, record.catalog_version)
    if rule is None:
        raise RuntimeError(f"rule {record.rule_id} vanished; versions are never deleted")
    compiled = stored_rule(rule)
    return replace(compiled, limits=()) if record.previewing else compiled


async def _decide(
    connection: Connection,
    record: BackfillRecord,
    rule: CompiledRule,
    events: Sequence[events_pb2.Event],
) -> list[Decision]:
    """Decides the first events, as many as there is time for."""
    catalogue = Catalogue(record.catalog_version, [rule])
    trials = await paced(lambda event: try_rules(catalogue, event), events)
    return await (foresee if record.previewing else ration)(connection, trials)


async def _conclude(
    connection: Connection,
    record: BackfillRecord,
    events: Sequence[events_pb2.Event],
    decisions: Sequence[Decision],
) -> None:
    """Counts what the first events are given, and notes or gives it."""
    for decision in decisions:
        record.tally.count(decision)
    if record.previewing:
        rewarded = [
            event.event_id
            for event, decision in zip(events, decisions, strict=False)
            if decision.actions
        ]
        await BackfillStore(connection).keep(record.backfill_id, rewarded)
    else:
        actions = [action for decision in decisions for action in decision.actions]
        await ActionStore(connection).add(actions, record.backfill_id)
        await QUEUE.enqueue(connection, [convert.work(a, LANES[a.kind]) for a in actions])


async def read_backfill(connection: Connection, backfill_id: str) -> Backfill:
    """How far a backfill is; raises `BackfillNotFound`."""
    record = await BackfillStore(connection).get(backfill_id)
    if record is None:
        raise BackfillNotFound(backfill_id)
    return convert.backfill(record)


async def _once(
    database: Database, key: Key, work: Callable[[Connection], Awaitable[Backfill]]
) -> Backfill:
    async def transaction(connection: Connection) -> Backfill:
        known = (await recall(connection, idempotency_keys, [key])).get(key)
        if isinstance(known, Exception):
            raise known
        if known is not None:
            return Backfill.FromString(known)
        answer = await work(connection)
        await remember(connection, idempotency_keys, [(key, answer.SerializeToString())])
        return answer

    return await database.run(transaction)
