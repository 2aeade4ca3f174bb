"""Reward actions: what was decided, and how far it is.

While an action is PENDING in its own table, the queue knows more: a worker that holds its claim
makes it DISPATCHED, and attempts are counted there.
"""

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Text, and_, case, cast, func, literal, select

from connect_svc.lanes import LANES, LEASE
from connect_svc.records import ActionRecord, ReversalVerdict, State, Verdict
from connect_svc.rules import Action
from connect_svc.store.statements import execute, fetch
from connect_svc.tables import reward_actions, reward_queue
from mesh.db import Connection

_INSERT = """
INSERT INTO reward_actions (action_id, event_id, rule_id, rule_version, action_key,
    recipient_user_id, kind, command, variant, backfill_id)
SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::integer[], %s::text[], %s::text[],
    %s::text[], %s::jsonb[], %s::text[], %s::text[])
"""

_SETTLE = """
UPDATE reward_actions AS a
SET state = v.state, attempts = v.attempts, last_error = v.last_error, result = v.result,
    update_time = clock_timestamp()
FROM unnest(%s::uuid[], %s::text[], %s::integer[], %s::text[], %s::text[])
    AS v (action_id, state, attempts, last_error, result)
WHERE a.action_id = v.action_id
"""

_SETTLE_REVERSALS = """
UPDATE reward_actions AS a
SET state = v.state, reversal_error = v.error, reversal_result = v.result,
    update_time = clock_timestamp()
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[])
    AS v (action_id, state, error, result)
WHERE a.action_id = v.action_id
"""

# What fails again comes last the next time, so that it does not stand before the others for ever.
_FAILED_LOCKED = """
SELECT action_id::text FROM reward_actions
WHERE state = 'FAILED' AND (%s = '' OR rule_id = %s) AND (%s = '' OR recipient_user_id = %s)
ORDER BY update_time, sequence LIMIT %s FOR UPDATE
"""

_REOPEN = """
UPDATE reward_actions
SET state = CASE state WHEN 'FAILED' THEN 'PENDING' ELSE 'REVERSING' END,
    update_time = clock_timestamp()
WHERE action_id = ANY (%s::uuid[]) AND state IN ('FAILED', 'REVERSAL_FAILED')
RETURNING action_id::text
"""

# A claim under way holds the row: then this waits, and finds an attempt counted.
_WITHDRAW = """
DELETE FROM reward_queue AS q USING reward_actions AS a
WHERE q.item_id = %s AND q.attempts = 0 AND q.dead_reason IS NULL
    AND a.action_id = %s::uuid AND a.attempts = 0 AND a.state = 'PENDING'
RETURNING q.item_id
"""

_CANCEL = """
UPDATE reward_actions SET state = 'CANCELLED', update_time = clock_timestamp()
WHERE action_id = %s::uuid RETURNING event_id::text
"""


class ActionStore:
    """The actions as one transaction sees them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def add(self, actions: Sequence[Action], backfill_id: str = "") -> None:
        """Stores new actions, in order."""
        rows = [
            (
                action.action_id,
                action.event_id,
                action.rule_id,
                action.rule_version,
                action.key,
                action.recipient,
                action.kind,
                json.dumps(action.command),
                action.variant,
                backfill_id,
            )
            for action in actions
        ]
        await execute(self._connection, _INSERT, rows)

    async def settle(self, verdicts: Sequence[Verdict]) -> None:
        """Writes what became of attempts."""
        await execute(self._connection, _SETTLE, verdicts)

    async def settle_reversals(self, verdicts: Sequence[ReversalVerdict]) -> None:
        """Writes what became of attempts to take actions back."""
        await execute(self._connection, _SETTLE_REVERSALS, verdicts)

    async def lock_failed(self, rule_id: str, recipient_user_id: str, limit: int) -> list[str]:
        """Up to `limit` ids of what failed longest ago; empty filters let all through."""
        filters = (rule_id, rule_id, recipient_user_id, recipient_user_id)
        rows = await fetch(self._connection, _FAILED_LOCKED, *filters, limit)
        return [action_id for (action_id,) in rows]

    async def reopen(self, action_ids: Sequence[str]) -> list[str]:
        """Makes failed actions pending, and failed reversals go on; returns the ids of those.

        Their attempts stay counted: a target may have them.
        """
        rows = await fetch(self._connection, _REOPEN, list(action_ids))
        return [action_id for (action_id,) in rows]

    async def cancel(self, action_id: str) -> str | None:
        """Takes an action out of the queue, unless it was ever claimed or is not there.

        Returns the id of its event if it did.
        """
        if not await fetch(self._connection, _WITHDRAW, action_id, action_id):
            return None
        [(event_id,)] = await fetch(self._connection, _CANCEL, action_id)
        return str(event_id)

    async def get(self, action_id: str) -> ActionRecord | None:
        """One action, if there is such an action."""
        query = self._select().where(reward_actions.c.action_id == action_id)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else _record(row)

    async def of_event(self, event_id: str) -> list[ActionRecord]:
        """An event's actions, in the order in which they were decided."""
        query = self._select().where(reward_actions.c.event_id == event_id)
        query = query.order_by(reward_actions.c.sequence)
        return [_record(row) for row in await self._connection.execute(query)]

    async def page(
        self,
        *,
        event_id: str,
        state: State | None,
        recipient_user_id: str,
        rule_id: str,
        before: int | None,
        size: int,
    ) -> list[ActionRecord]:
        """Up to `size` actions, newest first, from before the sequence number `before`.

        Only of one event, in one state, of one recipient and of one rule, where these are given.
        """
        columns = reward_actions.c
        query = self._select().order_by(columns.sequence.desc()).limit(size)
        if state is not None:
            query = query.where(columns.state == _stored(state), _state == state.value)
        if recipient_user_id:
            query = query.where(columns.recipient_user_id == recipient_user_id)
        if rule_id:
            query = query.where(columns.rule_id == rule_id)
        if event_id:
            query = query.where(columns.event_id == event_id)
        if before is not None:
            query = query.where(columns.sequence < before)
        return [_record(row) for row in await self._connection.execute(query)]

    async def count(self) -> dict[State, int]:
        """How many actions are in each state, as of one moment."""
        out = reward_queue.c.lane.in_(sorted(set(LANES.values())))
        in_hand = select(func.count()).select_from(reward_queue).where(_HELD, out).scalar_subquery()
        by_state = select(reward_actions.c.state, func.count(), in_hand)
        rows = (await self._connection.execute(by_state.group_by(reward_actions.c.state))).all()
        counts = dict.fromkeys(State, 0)
        for state, count, held in rows:
            counts[State(state)] = count
            counts[State.DISPATCHED] = held
        counts[State.PENDING] -= counts[State.DISPATCHED]
        return counts

    def _select(self) -> Select[Any]:
        queue, columns = reward_queue.c, reward_actions.c
        claim_time = queue.lease_expire_time - literal(LEASE)
        return select(
            *(column for column in columns if column.name not in ("state", "attempts")),
            _state.label("state"),
            func.coalesce(queue.attempts, columns.attempts).label("attempts"),
            func.coalesce(claim_time, columns.update_time).label("changed_time"),
        ).select_from(reward_actions.outerjoin(reward_queue, _IN_QUEUE))


_HELD = reward_queue.c.token.is_not(None)
_IN_QUEUE = and_(
    reward_queue.c.item_id == cast(reward_actions.c.action_id, Text),
    reward_actions.c.state == State.PENDING.value,
)
_state: ColumnElement[str] = case((_HELD, State.DISPATCHED.value), else_=reward_actions.c.state)


def _stored(state: State) -> str:
    return State.PENDING.value if state is State.DISPATCHED else state.value


def _record(row: Row[Any]) -> ActionRecord:
    action = Action(
        row.action_id,
        row.event_id,
        row.rule_id,
        row.rule_version,
        row.action_key,
        row.recipient_user_id,
        row.kind,
        row.command,
        variant=row.variant,
    )
    return ActionRecord(
        action,
        row.sequence,
        State(row.state),
        row.attempts,
        row.last_error,
        row.result,
        row.create_time,
        row.changed_time,
        row.reversal_error,
        row.reversal_result,
        row.backfill_id,
    )
