"""Events taken back, and what their actions must be for it."""

from typing import NamedTuple

from sqlalchemy import select

from connect_svc.records import EventKey, Reversal, State
from connect_svc.store.statements import execute, fetch
from connect_svc.tables import event_reversals
from mesh.db import Connection, RetryTransaction

_AWAITED = b""

_BURY = """
INSERT INTO event_keys (source, external_id, fingerprint, event_id)
SELECT * FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::uuid[])
ON CONFLICT DO NOTHING
"""

_ADD = """
INSERT INTO event_reversals (event_id, reason, author, before_arrival)
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::boolean[])
ON CONFLICT DO NOTHING
"""

# The queue's rows first, as workers lock them: a claim under way is waited for, a later one finds
# nothing, and a verdict on one that was made before is stale.
_WITHDRAW = """
WITH held AS (
    SELECT q.item_id, q.attempts FROM reward_queue AS q
        JOIN reward_actions AS a ON q.item_id = a.action_id::text
    WHERE a.event_id = %s::uuid ORDER BY q.item_id FOR UPDATE OF q
)
DELETE FROM reward_queue AS q USING held WHERE q.item_id = held.item_id
RETURNING q.item_id, q.attempts
"""

_STANDINGS = """
SELECT action_id::text, state, attempts FROM reward_actions
WHERE event_id = %s::uuid ORDER BY sequence FOR UPDATE
"""

_MOVE = """
UPDATE reward_actions AS a SET state = v.state, update_time = clock_timestamp()
FROM unnest(%s::uuid[], %s::text[]) AS v (action_id, state) WHERE a.action_id = v.action_id
"""


class Standing(NamedTuple):
    """How far an action was when it was withdrawn; `attempts` is 0 if it was never claimed."""

    action_id: str
    state: State
    attempts: int


class ReversalStore:
    """The taking back of events as one transaction sees it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def of_event(self, event_id: str) -> Reversal | None:
        """How the event was taken back, if it was."""
        query = select(event_reversals).where(event_reversals.c.event_id == event_id)
        row = (await self._connection.execute(query)).one_or_none()
        return None if row is None else Reversal(*row)

    async def bury(self, key: EventKey, event_id: str) -> None:
        """Takes the key of an event that has yet to arrive, under this id.

        Raises `RetryTransaction` when it arrived at this moment.
        """
        if not await execute(self._connection, _BURY, [(*key, _AWAITED, event_id)]):
            raise RetryTransaction

    async def add(self, event_id: str, reason: str, author: str, *, before_arrival: bool) -> None:
        """Records that the event is taken back.

        Raises `RetryTransaction` when another transaction took it back meanwhile.
        """
        if not await execute(self._connection, _ADD, [(event_id, reason, author, before_arrival)]):
            raise RetryTransaction

    async def withdraw(self, event_id: str) -> list[Standing]:
        """Takes the event's actions out of the queue, and locks them; in order."""
        queued = dict(await fetch(self._connection, _WITHDRAW, event_id))
        rows = await fetch(self._connection, _STANDINGS, event_id)
        return [
            Standing(action_id, State(state), max(attempts, queued.get(action_id, 0)))
            for action_id, state, attempts in rows
        ]

    async def move(self, states: dict[str, State]) -> None:
        """Brings locked actions into these states."""
        await execute(self._connection, _MOVE, list(states.items()))
