"""Backfills, the events that their previews found, and what stands against rewarding an event."""

from collections.abc import Collection, Sequence
from typing import Any

from go2asia.connect.v1 import events_pb2
from sqlalchemy import ColumnElement, Row, func, insert, literal_column, select, update

from connect_svc.records import BackfillRecord, BackfillState
from connect_svc.store.events import stored_event
from connect_svc.store.statements import execute, fetch
from connect_svc.tables import backfill_events, backfills, events
from connect_svc.tallies import Tally
from mesh.db import Connection

# An arbitrary number; reversals hold it together, a commit that applies a backfill holds it alone.
_LOCK = 7_202_311

# Whatever began before the backfill has ended, so no event that the rule did not decide comes in
# behind the cursor.
_SETTLED: ColumnElement[int] = literal_column(
    "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
)

_KEEP = """
INSERT INTO backfill_events (backfill_id, event_id) SELECT * FROM unnest(%s::uuid[], %s::uuid[])
"""

_HELD = """
SELECT DISTINCT event_id::text FROM reward_actions
WHERE event_id = ANY (%s::uuid[]) AND rule_id = %s
"""

_REVERSED = "SELECT event_id::text FROM event_reversals WHERE event_id = ANY (%s::uuid[])"


class BackfillStore:
    """The backfills as one transaction sees them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, record: BackfillRecord) -> None:
        """Stores a new backfill."""
        await self._connection.execute(
            insert(backfills).values(
                backfill_id=record.backfill_id,
                rule_id=record.rule_id,
                rule_version=record.rule_version,
                catalog_version=record.catalog_version,
                author=record.author,
                last_event_id=record.last_event_id,
            )
        )

    async def get(self, backfill_id: str) -> BackfillRecord | None:
        """A backfill, if there is such a one."""
        query = select(backfills).where(backfills.c.backfill_id == backfill_id)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _record(row)

    async def apply(self, backfill_id: str) -> bool:
        """Lets a previewed backfill be applied; False if it is not that."""
        changed = await self._connection.execute(
            update(backfills)
            .where(
                backfills.c.backfill_id == backfill_id,
                backfills.c.state == BackfillState.PREVIEWED.value,
            )
            .values(
                state=BackfillState.APPLYING.value,
                seen_event_id=None,
                events_seen=0,
                update_time=func.clock_timestamp(),
            )
        )
        return changed.rowcount == 1

    async def claim(self) -> BackfillRecord | None:
        """The oldest backfill under way that no other replica has in hand, until the commit."""
        under_way = (BackfillState.PREVIEWING.value, BackfillState.APPLYING.value)
        query = (
            select(backfills)
            .where(backfills.c.state.in_(under_way), backfills.c.snapshot < _SETTLED)
            .order_by(backfills.c.backfill_id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _record(row)

    async def newest_event(self, event_type: str) -> str | None:
        """The highest id of the events of a type, if there is one."""
        columns = events.c
        query = select(columns.event_id).where(columns.event_type == event_type)
        newest: str | None = await self._connection.scalar(
            query.order_by(columns.event_id.desc()).limit(1)
        )
        return newest

    async def advance(self, record: BackfillRecord, seen: Sequence[str], *, ended: bool) -> None:
        """Notes how far a claimed backfill has come, and what its tally is now."""
        column = backfills.c.preview if record.previewing else backfills.c.result
        values = {
            column: record.tally.plain(),
            backfills.c.last_event_id: record.last_event_id,
            backfills.c.events_seen: record.events_seen + len(seen),
            backfills.c.update_time: func.clock_timestamp(),
        }
        if seen:
            values[backfills.c.seen_event_id] = seen[-1]
        if ended:
            after = BackfillState.PREVIEWED if record.previewing else BackfillState.APPLIED
            values[backfills.c.state] = after.value
        await self._connection.execute(
            update(backfills).where(backfills.c.backfill_id == record.backfill_id).values(values)
        )

    async def next_events(
        self, record: BackfillRecord, event_type: str, size: int
    ) -> list[events_pb2.Event]:
        """Up to `size` events behind those that were seen, in order."""
        query = select(events).limit(size)
        if record.previewing:
            event_id = events.c.event_id
            query = query.where(events.c.event_type == event_type, event_id <= record.last_event_id)
        else:
            event_id = backfill_events.c.event_id
            query = query.join(backfill_events, event_id == events.c.event_id)
            query = query.where(backfill_events.c.backfill_id == record.backfill_id)
        if record.seen_event_id is not None:
            query = query.where(event_id > record.seen_event_id)
        found = await self._connection.execute(query.order_by(event_id))
        return [stored_event(row) for row in found]

    async def keep(self, backfill_id: str, event_ids: Sequence[str]) -> None:
        """Adds events to what the preview found."""
        await execute(self._connection, _KEEP, [(backfill_id, each) for each in event_ids])

    async def page(self, backfill_id: str, *, after: str | None, size: int) -> list[str]:
        """Up to `size` ids of events that the preview found, from behind `after`."""
        columns = backfill_events.c
        query = select(columns.event_id).where(columns.backfill_id == backfill_id)
        query = query.order_by(columns.event_id).limit(size)
        if after is not None:
            query = query.where(columns.event_id > after)
        return list(await self._connection.scalars(query))

    async def held(self, event_ids: Collection[str], rule_id: str) -> set[str]:
        """Which of the events hold an action of the rule."""
        rows = await fetch(self._connection, _HELD, list(event_ids), rule_id)
        return {event_id for (event_id,) in rows}

    async def reversed(self, event_ids: Collection[str]) -> set[str]:
        """Which of the events were taken back."""
        rows = await fetch(self._connection, _REVERSED, list(event_ids))
        return {event_id for (event_id,) in rows}

    async def keep_reversals_out(self) -> None:
        """Until the commit no event is taken back, and no other backfill is applied."""
        await fetch(self._connection, "SELECT pg_advisory_xact_lock(%s)", _LOCK)


async def keep_backfills_out(connection: Connection) -> None:
    """Until the commit no backfill adds actions; for whoever takes an event back."""
    await fetch(connection, "SELECT pg_advisory_xact_lock_shared(%s)", _LOCK)


def _record(row: Row[Any]) -> BackfillRecord:
    return BackfillRecord(
        row.backfill_id,
        row.rule_id,
        row.rule_version,
        row.catalog_version,
        row.author,
        row.last_event_id,
        BackfillState(row.state),
        row.seen_event_id,
        row.events_seen,
        Tally.of(row.preview),
        Tally.of(row.result),
        row.create_time,
        row.update_time,
    )
