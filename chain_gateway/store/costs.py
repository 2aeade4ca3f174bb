"""What messages cost, and by that the operations that they carry."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from chain_gateway.operations import Kind
from mesh.db import Connection, driver

# What could not be told within a day, because no lite-server keeps so much history, is left.
_DUE = """
SELECT message_id, query_id, created_at, boc, operation_ids FROM messages
WHERE phase = 3 AND cost IS NULL AND wallet_address = %s AND create_time > now() - interval '1 day'
ORDER BY message_id LIMIT %s
"""

# Once a message, whoever is asked again. What a transfer sends is not its cost.
_WRITE = """
WITH m AS (
    UPDATE messages SET cost = %s WHERE message_id = %s AND cost IS NULL RETURNING message_id
)
UPDATE operations AS o SET cost = o.cost + k.fee + CASE o.kind WHEN 2 THEN 0 ELSE k.value END
FROM m, unnest(%s::uuid[], %s::bigint[], %s::bigint[]) AS k (operation_id, fee, value)
WHERE o.operation_id = k.operation_id
RETURNING o.kind, o.cost
"""


class Due(NamedTuple):
    """A message that is over, of which nobody has told yet what it cost."""

    message_id: int
    query_id: int
    created_at: int
    boc: bytes
    operation_ids: Sequence[str]


class Bill(NamedTuple):
    """What each operation of a message takes, in its order: share of the fees, value; in nanoton.

    Empty for a message that the wallet never ran.
    """

    due: Due
    shares: Sequence[tuple[int, int]]


class CostStore:
    """Costs of one wallet's messages."""

    def __init__(self, connection: Connection, wallet: str) -> None:
        self._connection = connection
        self._wallet = wallet

    async def due(self, limit: int) -> list[Due]:
        """Messages to account for, oldest first."""
        return [
            Due(message_id, query_id, created_at, bytes(boc), [str(each) for each in operation_ids])
            for message_id, query_id, created_at, boc, operation_ids in await self._rows(
                _DUE, self._wallet, limit
            )
        ]

    async def write(self, bill: Bill) -> list[tuple[Kind, int]]:
        """Charges a message's operations; gives the kind of each and what it has cost by now."""
        charged = await self._rows(
            _WRITE,
            *(sum(fee + value for fee, value in bill.shares), bill.due.message_id),
            bill.due.operation_ids[: len(bill.shares)],
            [fee for fee, _ in bill.shares],
            [value for _, value in bill.shares],
        )
        return [(Kind(kind), cost) for kind, cost in charged]

    async def _rows(self, statement: Any, *parameters: Any) -> list[tuple[Any, ...]]:
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(statement, parameters)
            rows: list[tuple[Any, ...]] = await cursor.fetchall()
        return rows
