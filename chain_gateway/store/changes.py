"""Changes of items whose mints are on their way: they wait here until there is an item, or never.

Mints are named by what a statement that changed operations returned: (operation id, version, kind).
"""

from collections.abc import Sequence
from typing import Any

from chain_gateway.operations import FailureReason, Kind
from chain_gateway.store import reports
from mesh.db import Connection, driver

# By a statement of its own, after mints were seen: so it sees the changes that were ordered while
# their mint's row was awaited.
_PLACE = """
UPDATE operations AS c SET collection_address = m.collection_address,
    item_index = m.item_index, item_address = m.item_address, owner_address = m.owner_address
FROM operations AS m
WHERE m.operation_id = ANY (%s::uuid[]) AND m.kind = 1 AND c.item_mint_id = m.mint_id
    AND c.kind >= 3 AND c.state = 1 AND c.item_address IS NULL
"""

_FAIL = """
UPDATE operations SET state = 7, version = version + 1, update_time = now(), failure_reason = %s
WHERE kind >= 3 AND state = 1 AND item_mint_id IN (
    SELECT mint_id FROM operations WHERE operation_id = ANY (%s::uuid[]) AND kind = 1
)
RETURNING operation_id, version, kind
"""


async def place(connection: Connection, seen: Sequence[tuple[Any, ...]]) -> None:
    """The items of these mints are there: what waits for them is ready to be sent."""
    if mints := _mints(seen):
        async with driver(connection).cursor(binary=True) as cursor:
            await cursor.execute(_PLACE, [mints])


async def fail(connection: Connection, ended: Sequence[tuple[Any, ...]]) -> None:
    """These mints will never have an item: what waits for it has FAILED."""
    if mints := _mints(ended):
        async with driver(connection).cursor(binary=True) as cursor:
            await cursor.execute(_FAIL, [FailureReason.ITEM_NOT_MINTED, mints])
            failed = await cursor.fetchall()
        await reports.enqueue(connection, failed)


def _mints(changed: Sequence[tuple[Any, ...]]) -> list[str]:
    return [str(operation_id) for operation_id, _, kind in changed if kind == Kind.MINT]
