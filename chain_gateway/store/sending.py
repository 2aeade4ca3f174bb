"""What the sender reads and writes: operations that wait, and the messages that carry them.

Every transaction that writes begins with `Lease.hold`, see `chain_gateway.store.lease`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.rows import dict_row

from chain_gateway.delivery import Message, Phase
from chain_gateway.operations import Placement, Task
from chain_gateway.store import reports
from chain_gateway.store.rows import placement, stored_task
from mesh.db import Connection, driver

# Sharing the users' rows, as orders do, so that no wallet changes meanwhile. Users whose wallet is
# being changed at this moment are left for the next time: whoever changes it waits for the
# operations that are locked here. What a contract turned down waits longer each time.
_WAITING = """
WITH due AS MATERIALIZED (
    SELECT * FROM operations
    WHERE message_id IS NULL AND state IN (1, 3) AND (kind < 3 OR item_address IS NOT NULL)
        AND (kind <> 2 OR amount <= %s)
        AND (refusals = 0 OR update_time + make_interval(secs => 1 << least(refusals, 12)) <= now())
    ORDER BY operation_id LIMIT %s FOR UPDATE SKIP LOCKED
)
SELECT due.*, coalesce(owner_address, users.wallet_address) AS recipient
FROM due JOIN users USING (user_id)
WHERE owner_address IS NOT NULL OR users.wallet_address IS NOT NULL
ORDER BY operation_id FOR SHARE OF users SKIP LOCKED
"""

_BALANCE = """
SELECT balance, extract(epoch FROM masterchain_time)::bigint FROM wallets WHERE address = %s
"""

_ANY_DEARER = """
SELECT EXISTS (
    SELECT FROM operations WHERE message_id IS NULL AND state IN (1, 3) AND kind = 2 AND amount > %s
)
"""

_LOCK_INDICES = """
SELECT address, next_index FROM collections WHERE address = ANY (%s) ORDER BY address FOR UPDATE
"""

_INSERT_MESSAGE = """
INSERT INTO messages
    (wallet_address, sequence, query_id, created_at, value, boc, operation_ids, phase)
VALUES (%s, %s, %s, %s, %s, %s, %s::uuid[], 1) RETURNING message_id
"""

_COUNT_MESSAGE = "UPDATE wallets SET next_sequence = %s WHERE address = %s"
_COUNT_INDICES = """
UPDATE collections AS c SET next_index = k.next_index
FROM unnest(%s::text[], %s::bigint[]) AS k (address, next_index) WHERE c.address = k.address
"""

_SUBMIT = """
UPDATE operations AS o SET state = 3, version = version + 1, update_time = now(),
    message_id = %s, query_id = %s, wallet_address = %s, owner_address = k.owner_address,
    collection_address = k.collection_address, item_index = k.item_index,
    item_address = k.item_address
FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::bigint[], %s::text[])
    AS k (operation_id, owner_address, collection_address, item_index, item_address)
WHERE o.operation_id = k.operation_id
RETURNING o.operation_id, o.version, o.kind
"""

_OPEN = """
SELECT message_id, query_id, created_at, phase, processed_at, value FROM messages
WHERE phase < 3 AND wallet_address = %s ORDER BY message_id
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """An operation to send; a mint has no placement before its first message.

    `owner` is whom the item is minted to or TON is sent to. `setback` is why its last message came
    to nothing (`FailureReason`), if it had one.
    """

    operation_id: str
    mint_id: str | None
    task: Task
    placement: Placement | None
    owner: str
    version: int
    refusals: int
    setback: str = ""


@dataclass(frozen=True, slots=True)
class Packed:
    """An operation that is in a message, with its recipient and its item's place for ever."""

    operation_id: str
    placement: Placement | None
    owner: str


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A wallet message to persist; `created_at` is chain time, `value` is in nanoton."""

    wallet: str
    sequence: int
    query_id: int
    created_at: int
    value: int
    boc: bytes
    packed: Sequence[Packed]


class SendingStore:
    """Operations that wait for a message, and messages."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def waiting(self, limit: int, budget: int) -> list[Waiting]:
        """The operations that wait longest for a message, locked.

        Transfers of more than `budget` nanoton are passed over.
        """
        async with driver(self._connection).cursor(binary=True, row_factory=dict_row) as cursor:
            await cursor.execute(_WAITING, [budget, limit])
            return [_waiting(row) for row in await cursor.fetchall()]

    async def balance(self, wallet: str) -> tuple[int, int]:
        """The wallet's balance at the head that its messages are as of, and the time of that."""
        [[balance, time]] = await self._rows(_BALANCE, wallet)
        return balance, time

    async def any_dearer(self, budget: int) -> bool:
        """Whether a transfer of more than `budget` nanoton waits."""
        [[there]] = await self._rows(_ANY_DEARER, budget)
        return bool(there)

    async def lock_next_indices(self, collections: Sequence[str]) -> dict[str, int]:
        """The next index to give out in each collection."""
        return dict(await self._rows(_LOCK_INDICES, list(collections)))

    async def store_message(self, outgoing: Outgoing, next_indices: Mapping[str, int]) -> int:
        """Persists a message, freezes what it carries, moves the counters; gives its id."""
        packed = outgoing.packed
        places = [each.placement for each in packed]
        operation_ids = [each.operation_id for each in packed]
        [[message_id]] = await self._rows(
            _INSERT_MESSAGE,
            *(outgoing.wallet, outgoing.sequence, outgoing.query_id, outgoing.created_at),
            *(outgoing.value, outgoing.boc, operation_ids),
        )
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_COUNT_MESSAGE, [outgoing.sequence + 1, outgoing.wallet])
            await cursor.execute(
                _COUNT_INDICES, [list(next_indices.keys()), list(next_indices.values())]
            )
        changed = await self._rows(
            _SUBMIT,
            *(message_id, outgoing.query_id, outgoing.wallet),
            *(operation_ids, [each.owner for each in packed]),
            [place and place.collection for place in places],
            [place and place.index for place in places],
            [place and place.address for place in places],
        )
        await reports.enqueue(self._connection, changed)
        return int(message_id)

    async def boc(self, message_id: int) -> bytes:
        """The message as it was persisted, to be sent again."""
        statement = "SELECT boc FROM messages WHERE message_id = %s"
        [[boc]] = await self._rows(statement, message_id)
        return bytes(boc)

    async def created_at(self, wallet: str, sequence: int) -> int:
        """When the wallet's message with this sequence number was made, in chain time."""
        statement = "SELECT created_at FROM messages WHERE wallet_address = %s AND sequence = %s"
        [[created_at]] = await self._rows(statement, wallet, sequence)
        return int(created_at)

    async def open_messages(self, wallet: str) -> list[Message]:
        """Messages whose effects are still awaited, oldest first."""
        return [
            Message(message_id, query_id, created_at, Phase(phase), processed_at, value)
            for message_id, query_id, created_at, phase, processed_at, value in await self._rows(
                _OPEN, wallet
            )
        ]

    async def _rows(self, statement: Any, *parameters: Any) -> list[tuple[Any, ...]]:
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(statement, parameters)
            rows: list[tuple[Any, ...]] = await cursor.fetchall()
        return rows


def _waiting(row: Mapping[str, Any]) -> Waiting:
    return Waiting(
        str(row["operation_id"]),
        None if row["mint_id"] is None else str(row["mint_id"]),
        stored_task(row),
        placement(row["collection_address"], row["item_index"], row["item_address"]),
        row["recipient"],
        row["item_version"] or 0,
        row["refusals"],
        row["failure_reason"],
    )
