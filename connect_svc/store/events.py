"""Events, their keys, and what was decided about them."""

import json
from collections.abc import Collection, Sequence
from typing import Any

from go2asia.connect.v1 import events_pb2
from sqlalchemy import Row, select

from connect_svc.records import EventKey, Known, Moment, Receipt, Story, Taken
from connect_svc.rules import Outcome, Result
from connect_svc.store.reversals import ReversalStore
from connect_svc.store.statements import columns, execute, fetch
from connect_svc.tables import evaluations, event_keys, events
from mesh.db import Connection, RetryTransaction

_BEGIN = "SELECT pg_current_xact_id()::text"

_MOMENT = "SELECT clock_timestamp(), version FROM rule_catalog"

_KNOWN = """
SELECT source, external_id, coalesce(arrived.fingerprint, known.fingerprint),
    known.event_id::text, coalesce(evaluations.outcomes, '[]'), known.fingerprint = ''
FROM unnest(%s::text[], %s::text[]) AS k (source, external_id)
    JOIN event_keys AS known USING (source, external_id)
    LEFT JOIN evaluations USING (event_id)
    LEFT JOIN reversed_arrivals AS arrived USING (event_id)
"""

_INSERT_KEYS = """
INSERT INTO event_keys (source, external_id, fingerprint, event_id)
SELECT * FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::uuid[])
ON CONFLICT DO NOTHING
"""

_INSERT_REVERSED_ARRIVALS = """
INSERT INTO reversed_arrivals (event_id, fingerprint)
SELECT * FROM unnest(%s::uuid[], %s::bytea[])
ON CONFLICT DO NOTHING
"""

_INSERT_EVENTS = """
INSERT INTO events (event_id, source, external_id, event_type, actor_user_id,
    primary_subject_user_id, context, occurred_time, received_time)
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[],
    %s::text[], %s::jsonb[], %s::timestamptz[], %s::timestamptz[])
"""

_INSERT_EVALUATIONS = """
INSERT INTO evaluations (event_id, catalog_version, outcomes)
SELECT * FROM unnest(%s::uuid[], %s::bigint[], %s::jsonb[])
"""


class EventStore:
    """The events as one transaction sees them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def moment(self) -> Moment:
        """Now, and the catalogue to decide with."""
        [row] = await fetch(self._connection, _MOMENT)
        return Moment(*row)

    async def arrival(self) -> Moment:
        """`moment` for whoever takes events in: backfills wait for what began before them.

        So a transaction has its id before it looks which rules there are; a statement that did both
        would look first.
        """
        await fetch(self._connection, _BEGIN)
        return await self.moment()

    async def known(self, keys: Collection[EventKey]) -> dict[EventKey, Known]:
        """What was answered to those of the events that were taken in before."""
        rows = await fetch(self._connection, _KNOWN, *columns(list(keys)))
        return {
            (source, external_id): Known(
                fingerprint, Receipt.of(event_id, _outcomes(outcomes), reversed=reversed)
            )
            for source, external_id, fingerprint, event_id, outcomes, reversed in rows
        }

    async def add(self, taken: Sequence[Taken]) -> None:
        """Stores events with their keys and evaluations.

        Raises `RetryTransaction` when another replica took one of them in meanwhile.
        """
        # Sorted, so that batches with events in common wait for each other instead of deadlocking.
        keys = sorted(
            (*each.submission.key, each.submission.fingerprint, each.event.event_id)
            for each in taken
            if not each.reversed
        )
        if await execute(self._connection, _INSERT_KEYS, keys) != len(keys):
            raise RetryTransaction
        # These have their keys since they were taken back.
        late = sorted(
            (each.event.event_id, each.submission.fingerprint) for each in taken if each.reversed
        )
        if await execute(self._connection, _INSERT_REVERSED_ARRIVALS, late) != len(late):
            raise RetryTransaction
        await execute(self._connection, _INSERT_EVENTS, [_event_row(each) for each in taken])
        evaluated = [
            (
                each.event.event_id,
                each.decision.catalog_version,
                json.dumps([_plain(outcome) for outcome in each.decision.outcomes]),
            )
            for each in taken
        ]
        await execute(self._connection, _INSERT_EVALUATIONS, evaluated)

    async def find(self, key: EventKey) -> str | None:
        """The id of the event with this source and external id, if it was taken in."""
        source, external_id = key
        found: str | None = await self._connection.scalar(
            select(event_keys.c.event_id).where(
                event_keys.c.source == source, event_keys.c.external_id == external_id
            )
        )
        return found

    async def story(self, event_id: str) -> Story | None:
        """One event and what was decided about it, if there is such an event."""
        found = await self._connection.execute(
            select(events, evaluations.c.catalog_version, evaluations.c.outcomes)
            .join(evaluations, evaluations.c.event_id == events.c.event_id)
            .where(events.c.event_id == event_id)
        )
        row = found.one_or_none()
        if row is None:
            return None
        reversal = await ReversalStore(self._connection).of_event(event_id)
        return Story(stored_event(row), row.catalog_version, _outcomes(row.outcomes), reversal)

    async def page(
        self, actor_user_id: str, event_type: str, *, before: str | None, size: int
    ) -> list[events_pb2.Event]:
        """Up to `size` events, newest first, from before the event id `before`.

        Only of one actor and of one type, where these are not empty.
        """
        query = select(events).order_by(events.c.event_id.desc()).limit(size)
        if actor_user_id:
            query = query.where(events.c.actor_user_id == actor_user_id)
        if event_type:
            query = query.where(events.c.event_type == event_type)
        if before is not None:
            query = query.where(events.c.event_id < before)
        return [stored_event(row) for row in await self._connection.execute(query)]


def _event_row(taken: Taken) -> tuple[Any, ...]:
    event = taken.event
    return (
        event.event_id,
        event.source,
        event.external_id,
        event.event_type,
        event.actor_user_id,
        event.primary_subject_user_id,
        taken.submission.context,
        event.occurred_time.ToDatetime(taken.received_time.tzinfo),
        taken.received_time,
    )


def stored_event(row: Row[Any]) -> events_pb2.Event:
    """A row of `events`."""
    event = events_pb2.Event(
        event_id=row.event_id,
        source=row.source,
        external_id=row.external_id,
        event_type=row.event_type,
        actor_user_id=row.actor_user_id,
        primary_subject_user_id=row.primary_subject_user_id,
    )
    if row.context:
        event.context.update(row.context)
    event.occurred_time.FromDatetime(row.occurred_time)
    event.received_time.FromDatetime(row.received_time)
    return event


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "rule_id": outcome.rule_id,
        "rule_version": outcome.rule_version,
        "result": outcome.result,
        "detail": outcome.detail,
        "action_ids": outcome.action_ids,
        "variant": outcome.variant,
    }


def _outcomes(stored: Sequence[dict[str, Any]]) -> tuple[Outcome, ...]:
    return tuple(
        Outcome(
            each["rule_id"],
            each["rule_version"],
            Result(each["result"]),
            each["detail"],
            tuple(each["action_ids"]),
            each.get("variant", ""),  # older evaluations have none
        )
        for each in stored
    )
