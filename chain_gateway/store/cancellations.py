"""Calling operations off, by the request ids that they came or will come under."""

from collections.abc import Sequence

from sqlalchemy import select, text

from chain_gateway.errors import OperationAlreadySent
from chain_gateway.operations import State
from chain_gateway.store import reports
from chain_gateway.store.progress import ProgressStore
from chain_gateway.tables import operations
from mesh.db import Connection

_UNSENT = frozenset({State.QUEUED, State.AWAITING_WALLET})

_CANCEL = text("""
UPDATE operations SET state = :cancelled, version = version + 1, update_time = now()
WHERE operation_id = ANY (CAST(:operation_ids AS uuid[])) AND state <> :cancelled
RETURNING operation_id, version, kind
""")


class CancellationStore:
    """Ends operations before they are sent."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def cancel(self, operation_ids: Sequence[str]) -> None:
        """All of these end here, and the changes that wait for their items fail.

        One that is CANCELLED stays so. Raises `OperationAlreadySent` if one is further.
        """
        found = await self._connection.execute(
            select(operations.c.operation_id, operations.c.state)
            .where(operations.c.operation_id.in_(operation_ids))
            .order_by(operations.c.operation_id)
            .with_for_update()
        )
        for operation_id, state in found:
            if state not in _UNSENT and state != State.CANCELLED:
                raise OperationAlreadySent(operation_id=operation_id, state=State(state).name)
        cancelled = await self._connection.execute(
            _CANCEL, {"operation_ids": list(operation_ids), "cancelled": State.CANCELLED}
        )
        changed = [(operation_id, version, kind) for operation_id, version, kind in cancelled]
        await reports.enqueue(self._connection, changed)
        await ProgressStore(self._connection).fail_changes(changed)
