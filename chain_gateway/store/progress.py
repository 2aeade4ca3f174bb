"""What the leader of the minting reads and writes.

Every transaction that writes begins with `Lease.hold`, see `chain_gateway.store.lease`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from chain_gateway.blocks import Deployment
from chain_gateway.delivery import Message, Phase
from chain_gateway.operations import Content, FailureReason, Placement
from chain_gateway.store import reports
from chain_gateway.store.orders import stored_content
from mesh.db import Connection, driver

_REPORT = text("""
UPDATE wallets SET balance = :balance, masterchain_seqno = :seqno,
    masterchain_time = to_timestamp(:time), paused_reason = :paused_reason
WHERE address = :address
""")

_PAUSE = text("UPDATE wallets SET paused_reason = :paused_reason WHERE address = :address")

_SEED_INDEX = text("""
INSERT INTO collections AS c (address, next_index) VALUES (:address, :next_index)
ON CONFLICT (address)
    DO UPDATE SET next_index = greatest(c.next_index, excluded.next_index)
""")

# Sharing the users' rows, as orders do: a wallet being linked at this moment is either seen or
# waits, and so would one being unlinked.
_WAITING = """
WITH due AS MATERIALIZED (
    SELECT operation_id, user_id, mint_id, content, item_index, item_address, owner_address
    FROM operations WHERE message_id IS NULL AND state IN (1, 3)
    ORDER BY operation_id LIMIT %s FOR UPDATE SKIP LOCKED
)
SELECT operation_id, mint_id, content, item_index, item_address,
    coalesce(owner_address, wallet_address)
FROM due JOIN users USING (user_id)
WHERE owner_address IS NOT NULL OR wallet_address IS NOT NULL
ORDER BY operation_id FOR SHARE OF users
"""

_INSERT_MESSAGE = """
INSERT INTO messages
    (wallet_address, sequence, query_id, created_at, value, boc, operation_ids, phase)
VALUES (%s, %s, %s, %s, %s, %s, %s::uuid[], 1) RETURNING message_id
"""

_COUNT_MESSAGE = "UPDATE wallets SET next_sequence = %s WHERE address = %s"
_COUNT_INDEX = "UPDATE collections SET next_index = %s WHERE address = %s"

_SUBMIT = """
UPDATE operations AS o SET state = 3, version = version + 1, update_time = now(),
    message_id = %s, query_id = %s, collection_address = %s,
    item_index = k.item_index, item_address = k.item_address,
    owner_address = k.owner_address, content_hash = k.content_hash
FROM unnest(%s::uuid[], %s::bigint[], %s::text[], %s::text[], %s::bytea[])
    AS k (operation_id, item_index, item_address, owner_address, content_hash)
WHERE o.operation_id = k.operation_id
RETURNING o.operation_id, o.version
"""

_OPEN = """
SELECT message_id, query_id, created_at, phase, processed_at, value FROM messages
WHERE phase < 3 AND wallet_address = %s ORDER BY message_id
"""

_PROCESSED = """
WITH m AS (
    UPDATE messages SET phase = 2, processed_at = %s WHERE message_id = ANY (%s) AND phase = 1
    RETURNING message_id
)
UPDATE operations AS o SET state = 4, version = version + 1, update_time = now()
FROM m WHERE o.message_id = m.message_id AND o.state = 3 RETURNING operation_id, version
"""

_REVERTED = """
WITH m AS (
    UPDATE messages SET phase = 1, processed_at = NULL WHERE message_id = ANY (%s) AND phase = 2
    RETURNING message_id
)
UPDATE operations AS o SET state = 3, version = version + 1, update_time = now()
FROM m WHERE o.message_id = m.message_id AND o.state = 4 RETURNING operation_id, version
"""

_MINTED = """
UPDATE operations AS o SET state = 5, version = version + 1, update_time = now(),
    seen_seqno = %s, seen_root_hash = %s
FROM unnest(%s::text[], %s::bytea[]) AS k (item_address, content_hash)
WHERE o.item_address = k.item_address AND o.content_hash = k.content_hash AND o.state IN (3, 4)
RETURNING o.operation_id, o.version
"""

_FINALIZED = """
UPDATE operations SET state = 6, version = version + 1, update_time = now()
WHERE state = 5 AND seen_seqno = %s AND seen_root_hash = %s RETURNING operation_id, version
"""

# Their messages are looked at again, as if they had just run.
_ROLLED_BACK = """
WITH o AS (
    UPDATE operations SET state = 3, version = version + 1, update_time = now(),
        seen_seqno = NULL, seen_root_hash = NULL
    WHERE state = 5 AND seen_seqno = %s AND seen_root_hash = %s
    RETURNING operation_id, version, message_id
), m AS (
    UPDATE messages SET phase = 2, processed_at = %s
    WHERE message_id IN (SELECT message_id FROM o) AND phase = 3
)
SELECT operation_id, version FROM o
"""

_REQUEUE = """
UPDATE operations SET state = 3, version = version + 1, update_time = now(), message_id = NULL
WHERE item_address = ANY (%s) AND state IN (3, 4) RETURNING operation_id, version
"""

_TAKEN = """
UPDATE operations SET state = 7, version = version + 1, update_time = now(),
    failure_reason = %s, retryable = true
WHERE item_address = ANY (%s) AND state IN (3, 4) RETURNING operation_id, version
"""

_CLOSE = """
UPDATE messages AS m SET phase = 3 WHERE phase = 2 AND NOT EXISTS (
    SELECT FROM operations AS o WHERE o.message_id = m.message_id AND o.state IN (3, 4)
)
"""

_CLOSE_THESE = "UPDATE messages SET phase = 3 WHERE message_id = ANY (%s)"

_IN_FLIGHT = """
SELECT item_address, content_hash FROM operations
WHERE state IN (3, 4) AND message_id = ANY (%s) ORDER BY item_address
"""

_NOT_FINAL = """
SELECT DISTINCT seen_seqno, seen_root_hash FROM operations WHERE state = 5 AND seen_seqno <= %s
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A mint to send; index and address are None before its first message."""

    operation_id: str
    mint_id: str
    content: Content
    index: int | None
    address: str | None
    owner: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A mint that is in a message, placed for ever."""

    operation_id: str
    placement: Placement
    content_hash: bytes


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A wallet message to persist; `created_at` is chain time, `value` is in nanoton."""

    wallet: str
    sequence: int
    query_id: int
    created_at: int
    value: int
    boc: bytes
    mints: Sequence[Packed]


class ProgressStore:
    """Progress of messages and operations; each change of an operation also asks for a report."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def report(
        self, wallet: str, *, balance: int, seqno: int, time: int, paused_reason: str
    ) -> None:
        """Writes down how the Gateway fares."""
        values = {"address": wallet, "balance": balance, "seqno": seqno, "time": time}
        await self._connection.execute(_REPORT, {**values, "paused_reason": paused_reason})

    async def pause(self, wallet: str, paused_reason: str) -> None:
        """Writes down that sending is paused while the chain cannot be seen."""
        await self._connection.execute(_PAUSE, {"address": wallet, "paused_reason": paused_reason})

    async def seed_index(self, collection: str, next_index: int) -> None:
        """Starts the counter of indices at least where the chain is."""
        values = {"address": collection, "next_index": next_index}
        await self._connection.execute(_SEED_INDEX, values)

    async def waiting(self, limit: int) -> list[Waiting]:
        """The mints that wait longest for a message, locked."""
        return [
            Waiting(str(operation), str(mint), stored_content(content), index, address, owner)
            for operation, mint, content, index, address, owner in await self._rows(_WAITING, limit)
        ]

    async def lock_next_index(self, collection: str) -> int:
        """The next index to give out."""
        statement = "SELECT next_index FROM collections WHERE address = %s FOR UPDATE"
        [[next_index]] = await self._rows(statement, collection)
        return int(next_index)

    async def store_message(self, outgoing: Outgoing, next_index: int) -> int:
        """Persists a message, freezes what it carries, moves both counters; gives its id."""
        mints = outgoing.mints
        collection = mints[0].placement.collection
        [[message_id]] = await self._rows(
            _INSERT_MESSAGE,
            *(outgoing.wallet, outgoing.sequence, outgoing.query_id, outgoing.created_at),
            *(outgoing.value, outgoing.boc, [mint.operation_id for mint in mints]),
        )
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_COUNT_MESSAGE, [outgoing.sequence + 1, outgoing.wallet])
            await cursor.execute(_COUNT_INDEX, [next_index, collection])
        await self._change(
            _SUBMIT,
            *(message_id, outgoing.query_id, collection),
            [mint.operation_id for mint in mints],
            [mint.placement.index for mint in mints],
            [mint.placement.address for mint in mints],
            [mint.placement.owner for mint in mints],
            [mint.content_hash for mint in mints],
        )
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
        """Messages whose items are still awaited, oldest first."""
        return [
            Message(message_id, query_id, created_at, Phase(phase), processed_at, value)
            for message_id, query_id, created_at, phase, processed_at, value in await self._rows(
                _OPEN, wallet
            )
        ]

    async def in_flight(self, message_ids: Collection[int]) -> dict[str, bytes]:
        """Item addresses and content hashes of the mints in these messages that are not minted."""
        return dict(await self._rows(_IN_FLIGHT, list(message_ids)))

    async def processed(self, message_ids: Collection[int], time: int) -> None:
        """The wallet ran these messages: SUBMITTED → ACCEPTED."""
        await self._change(_PROCESSED, time, list(message_ids))

    async def reverted(self, message_ids: Collection[int]) -> None:
        """The wallet has not run them after all: ACCEPTED → SUBMITTED."""
        await self._change(_REVERTED, list(message_ids))

    async def minted(self, found: Sequence[Deployment], seqno: int, root_hash: bytes) -> None:
        """Items seen at a block, with our content: → MINTED. Others' items change nothing."""
        addresses = [deployment.address for deployment in found]
        hashes = [deployment.content_hash for deployment in found]
        await self._change(_MINTED, seqno, root_hash, addresses, hashes)

    async def requeue(self, addresses: Sequence[str]) -> None:
        """Items that are not there and will not come by their message: to be sent in a new one."""
        await self._change(_REQUEUE, list(addresses))

    async def taken(self, addresses: Sequence[str]) -> None:
        """Items that exist, finally, with others' content: FAILED."""
        await self._change(_TAKEN, FailureReason.INDEX_TAKEN, list(addresses))

    async def close(self, message_ids: Collection[int]) -> None:
        """Closes these messages and all that have run and whose items are all there."""
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_CLOSE)
            await cursor.execute(_CLOSE_THESE, [list(message_ids)])

    async def not_final(self, seqno: int) -> list[tuple[int, bytes]]:
        """Blocks up to `seqno` at which MINTED items were seen."""
        return [(number, bytes(root)) for number, root in await self._rows(_NOT_FINAL, seqno)]

    async def finalize(self, seqno: int, root_hash: bytes) -> None:
        """That block is beyond rollback: MINTED → FINALIZED."""
        await self._change(_FINALIZED, seqno, root_hash)

    async def roll_back(self, seqno: int, root_hash: bytes, time: int) -> None:
        """That block is no longer on the chain: MINTED → SUBMITTED, as of chain time `time`."""
        await self._change(_ROLLED_BACK, seqno, root_hash, time)

    async def _change(self, statement: Any, *parameters: Any) -> None:
        changed = await self._rows(statement, *parameters)
        await reports.enqueue(
            self._connection, [(str(operation_id), version) for operation_id, version in changed]
        )

    async def _rows(self, statement: Any, *parameters: Any) -> list[tuple[Any, ...]]:
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(statement, parameters)
            rows: list[tuple[Any, ...]] = await cursor.fetchall()
        return rows
