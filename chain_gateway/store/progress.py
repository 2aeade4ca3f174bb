"""What the tracker writes: how far messages and operations have come.

Every transaction that writes begins with `Lease.hold`, see `chain_gateway.store.lease`.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import text

from chain_gateway.effects import Awaited, Refusal, Sighting
from chain_gateway.operations import Kind
from chain_gateway.store import changes, reports
from mesh.db import Connection, driver

_FOLLOWED = text("""
UPDATE wallets SET balance = :balance, masterchain_seqno = :seqno,
    masterchain_time = to_timestamp(:time)
WHERE address = :address
""")

_PAUSE = text("UPDATE wallets SET paused_reason = :paused_reason WHERE address = :address")

_SEED_INDEX = text("""
INSERT INTO collections AS c (address, next_index) VALUES (:address, :next_index)
ON CONFLICT (address)
    DO UPDATE SET next_index = greatest(c.next_index, excluded.next_index)
""")

_CHANGED = "RETURNING operation_id, version, kind"

_PROCESSED = f"""
WITH m AS (
    UPDATE messages SET phase = 2, processed_at = %s WHERE message_id = ANY (%s) AND phase = 1
    RETURNING message_id
)
UPDATE operations AS o SET state = 4, version = version + 1, update_time = now()
FROM m WHERE o.message_id = m.message_id AND o.state = 3 {_CHANGED}
"""

_REVERTED = f"""
WITH m AS (
    UPDATE messages SET phase = 1, processed_at = NULL WHERE message_id = ANY (%s) AND phase = 2
    RETURNING message_id
)
UPDATE operations AS o SET state = 3, version = version + 1, update_time = now()
FROM m WHERE o.message_id = m.message_id AND o.state = 4 {_CHANGED}
"""

# A change has come true also when a later one of the same item has.
_SEEN = """
UPDATE operations AS o SET state = 5, version = version + 1, update_time = now(),
    seen_seqno = %s, seen_root_hash = %s, failure_reason = ''
FROM unnest(%s::text[], %s::uuid[], %s::bigint[], %s::boolean[])
    AS k (item_address, mint_id, item_version, revoked)
WHERE o.item_address = k.item_address AND o.wallet_address = %s AND o.state IN (3, 4)
    AND CASE o.kind
    WHEN 1 THEN o.mint_id = k.mint_id
    WHEN 3 THEN o.item_version <= k.item_version
    WHEN 4 THEN k.revoked ELSE false END
RETURNING o.operation_id, o.version, o.kind
"""

_FULFILLED = f"""
UPDATE operations SET state = 5, version = version + 1, update_time = now(),
    seen_seqno = %s, seen_root_hash = %s, failure_reason = ''
WHERE operation_id = ANY (%s::uuid[]) AND state IN (3, 4) {_CHANGED}
"""

_FINALIZED = f"""
UPDATE operations SET state = 6, version = version + 1, update_time = now()
WHERE state = 5 AND seen_seqno = %s AND seen_root_hash = %s AND wallet_address = %s {_CHANGED}
"""

# Their messages are looked at again, as if they had just run.
_ROLLED_BACK = """
WITH o AS (
    UPDATE operations SET state = 3, version = version + 1, update_time = now(),
        seen_seqno = NULL, seen_root_hash = NULL
    WHERE state = 5 AND seen_seqno = %s AND seen_root_hash = %s AND wallet_address = %s
    RETURNING operation_id, version, kind, message_id
), m AS (
    UPDATE messages SET phase = 2, processed_at = %s
    WHERE message_id IN (SELECT message_id FROM o) AND phase = 3
)
SELECT operation_id, version, kind FROM o
"""

_REQUEUE = f"""
UPDATE operations SET state = 3, version = version + 1, update_time = now(), message_id = NULL,
    failure_reason = %s
WHERE operation_id = ANY (%s::uuid[]) AND state IN (3, 4) {_CHANGED}
"""

_REFUSED = """
UPDATE operations AS o SET state = 3, version = version + 1, update_time = now(),
    message_id = NULL, refusals = least(o.refusals, 30) + 1, failure_reason = k.reason
FROM unnest(%s::text[], %s::bigint[], %s::smallint[], %s::bigint[], %s::text[])
    AS k (collection_address, item_index, kind, query_id, reason)
WHERE o.collection_address = k.collection_address AND o.item_index = k.item_index
    AND o.kind = k.kind AND o.query_id = k.query_id AND o.wallet_address = %s
    AND o.state IN (3, 4)
    AND o.message_id IS NOT NULL
RETURNING o.operation_id, o.version, o.kind
"""

_FAIL = f"""
UPDATE operations SET state = 7, version = version + 1, update_time = now(),
    failure_reason = %s, retryable = %s
WHERE operation_id = ANY (%s::uuid[]) AND state IN (1, 3, 4) {_CHANGED}
"""

_CLOSE = """
UPDATE messages AS m SET phase = 3 WHERE (phase = 2 OR message_id = ANY (%s)) AND NOT EXISTS (
    SELECT FROM operations AS o WHERE o.message_id = m.message_id AND o.state IN (3, 4)
) AND phase < 3 AND wallet_address = %s
"""

_IN_FLIGHT = """
SELECT o.message_id, o.operation_id, o.kind, o.item_address, o.mint_id, o.item_version
FROM operations AS o WHERE o.state IN (3, 4) AND o.message_id = ANY (%s) ORDER BY o.operation_id
"""

_CARRIED = "SELECT message_id, boc, operation_ids FROM messages WHERE message_id = ANY (%s)"

_NOT_FINAL = """
SELECT DISTINCT seen_seqno, seen_root_hash FROM operations
WHERE state = 5 AND seen_seqno <= %s AND wallet_address = %s
"""


class ProgressStore:
    """Progress of one wallet's messages and of the operations that they carry.

    Each change of an operation also asks for a report.
    """

    def __init__(self, connection: Connection, wallet: str) -> None:
        self._connection = connection
        self._wallet = wallet

    async def followed(self, *, balance: int, seqno: int, time: int) -> None:
        """Writes down the head that all else is as of, and the wallet's balance there."""
        values = {"address": self._wallet, "balance": balance, "seqno": seqno, "time": time}
        await self._connection.execute(_FOLLOWED, values)

    async def pause(self, paused_reason: str) -> None:
        """Writes down why sending is paused; empty if it is not."""
        values = {"address": self._wallet, "paused_reason": paused_reason}
        await self._connection.execute(_PAUSE, values)

    async def seed_index(self, collection: str, next_index: int) -> None:
        """Starts the counter of indices at least where the chain is."""
        values = {"address": collection, "next_index": next_index}
        await self._connection.execute(_SEED_INDEX, values)

    async def in_flight(self, message_ids: Collection[int]) -> list[Awaited]:
        """What these messages carry and has not come true."""
        return [
            Awaited(message_id, str(operation_id), Kind(kind), address, mint_id and str(mint_id), v)
            for message_id, operation_id, kind, address, mint_id, v in await self._rows(
                _IN_FLIGHT, list(message_ids)
            )
        ]

    async def carried(self, message_ids: Collection[int]) -> dict[int, tuple[bytes, list[str]]]:
        """These messages as they were sent, and the operations in them, in their order."""
        return {
            message_id: (bytes(boc), [str(operation_id) for operation_id in operation_ids])
            for message_id, boc, operation_ids in await self._rows(_CARRIED, list(message_ids))
        }

    async def processed(self, message_ids: Collection[int], time: int) -> None:
        """The wallet ran these messages: SUBMITTED → ACCEPTED."""
        await self._change(_PROCESSED, time, list(message_ids))

    async def reverted(self, message_ids: Collection[int]) -> None:
        """The wallet has not run them after all: ACCEPTED → SUBMITTED."""
        await self._change(_REVERTED, list(message_ids))

    async def seen(self, found: Sequence[Sighting], seqno: int, root_hash: bytes) -> None:
        """Items as seen at a block: what they show has come true → MINTED."""
        changed = await self._change(
            _SEEN,
            *(seqno, root_hash),
            [sighting.address for sighting in found],
            [sighting.mint_id for sighting in found],
            [sighting.version for sighting in found],
            [sighting.revoked for sighting in found],
            self._wallet,
        )
        await changes.place(self._connection, changed)

    async def fulfilled(self, operation_ids: Sequence[str], seqno: int, root_hash: bytes) -> None:
        """These have come true, as seen at a block: → MINTED."""
        changed = await self._change(_FULFILLED, seqno, root_hash, list(operation_ids))
        await changes.place(self._connection, changed)

    async def requeue(self, operation_ids: Sequence[str], reason: str) -> None:
        """Their message came to nothing, by this reason: to be sent in a new one."""
        await self._change(_REQUEUE, reason, list(operation_ids))

    async def refused(self, refusals: Sequence[Refusal]) -> None:
        """The collection turned these down: to be sent again, later and later."""
        await self._change(
            _REFUSED,
            [refusal.collection for refusal in refusals],
            [refusal.index for refusal in refusals],
            [int(refusal.kind) for refusal in refusals],
            [refusal.query_id for refusal in refusals],
            [refusal.reason for refusal in refusals],
            self._wallet,
        )

    async def fail(self, operation_ids: Sequence[str], reason: str, *, retryable: bool) -> None:
        """These will never come true: FAILED, and with mints the changes that waited for them."""
        failed = await self._change(_FAIL, reason, retryable, list(operation_ids))
        await changes.fail(self._connection, failed)

    async def close(self, message_ids: Collection[int]) -> None:
        """Closes those of these messages, and of all that have run, that nothing waits for."""
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_CLOSE, [list(message_ids), self._wallet])

    async def not_final(self, seqno: int) -> list[tuple[int, bytes]]:
        """Blocks up to `seqno` at which MINTED operations were seen."""
        blocks = await self._rows(_NOT_FINAL, seqno, self._wallet)
        return [(number, bytes(root)) for number, root in blocks]

    async def finalize(self, seqno: int, root_hash: bytes) -> None:
        """That block is beyond rollback: MINTED → FINALIZED."""
        await self._change(_FINALIZED, seqno, root_hash, self._wallet)

    async def roll_back(self, seqno: int, root_hash: bytes, time: int) -> None:
        """That block is no longer on the chain: MINTED → SUBMITTED, as of chain time `time`."""
        await self._change(_ROLLED_BACK, seqno, root_hash, self._wallet, time)

    async def _change(self, statement: Any, *parameters: Any) -> list[tuple[Any, ...]]:
        changed = await self._rows(statement, *parameters)
        await reports.enqueue(self._connection, changed)
        return changed

    async def _rows(self, statement: Any, *parameters: Any) -> list[tuple[Any, ...]]:
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(statement, parameters)
            rows: list[tuple[Any, ...]] = await cursor.fetchall()
        return rows
