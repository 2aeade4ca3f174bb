"""The SQL of the chain of seals.

A seal covers the transactions whose batch (the database transaction that booked them) is in a
range that ends at or before the oldest batch still under way, so nothing can join it later. Its
hash is over the seal before it, the range, and every transaction in it with its entries and lot
changes, in a form that no session setting changes.
"""

from typing import Any, LiteralString, NamedTuple

from mesh.db import Connection
from points_svc.ledger import Seal
from points_svc.store.rows import execute, fetch

_ADVISORY_LOCK = "SELECT pg_try_advisory_xact_lock(hashtext('points.seal'))"
_LAST = "SELECT number, end_batch, hash FROM seals ORDER BY number DESC LIMIT 1"

# Up to a number of transactions, but whole batches.
_END = """
SELECT max(batch) + 1, count(*) FROM (
    SELECT batch FROM transactions
    WHERE batch >= %b::bigint AND batch < pg_snapshot_xmin(pg_current_snapshot())::text::bigint
    ORDER BY batch LIMIT %b
) AS next
"""

DIGEST: LiteralString = """
SELECT count(*), sha256(coalesce(string_agg(sha256(convert_to(jsonb_build_array(
    t.transaction_id, t.request_id, t.kind, t.user_id, t.recipient, t.unit, t.amount, t.reason,
    t.reference, t.metadata, extract(epoch FROM t.effective_time),
    extract(epoch FROM t.booked_time), t.reverses, t.hold_id, t.batch,
    (SELECT jsonb_agg(jsonb_build_array(
        e.ordinal, e.account_id, e.amount, e.balance_after, e.account_version) ORDER BY e.ordinal)
     FROM entries AS e WHERE e.transaction_id = t.transaction_id),
    (SELECT jsonb_agg(jsonb_build_array(l.ordinal, l.account_id, l.amount,
        extract(epoch FROM l.expire_time)) ORDER BY l.ordinal)
     FROM lots AS l WHERE l.transaction_id = t.transaction_id),
    (SELECT jsonb_agg(jsonb_build_array(c.lot_transaction_id, c.lot_ordinal, c.amount)
        ORDER BY c.lot_transaction_id, c.lot_ordinal)
     FROM lot_changes AS c WHERE c.transaction_id = t.transaction_id)
)::text, 'UTF8')), ''::bytea ORDER BY t.transaction_id), ''::bytea))
FROM transactions AS t WHERE t.batch >= %b::bigint AND t.batch < %b::bigint
"""

_SEAL = """
INSERT INTO seals (number, first_batch, end_batch, transactions, hash, sealed_time)
VALUES (%b, %b, %b, %b, %b, clock_timestamp())
"""

_ALL = """
SELECT number, first_batch, end_batch, transactions, hash FROM seals
WHERE number > %b ORDER BY number LIMIT 1000
"""


class SealedRange(NamedTuple):
    """A stored seal and what it says it covers."""

    number: int
    first_batch: int
    end_batch: int
    transactions: int
    hash: bytes


async def try_to_lead(connection: Connection) -> bool:
    """Whether no other replica seals at this moment; holds until the transaction ends."""
    [(leading,)] = await fetch(connection, _ADVISORY_LOCK)
    return bool(leading)


async def last_seal(connection: Connection) -> tuple[Seal, int] | None:
    """The newest seal and the batch that the next one begins with."""
    found = await fetch(connection, _LAST)
    return (Seal(found[0][0], bytes(found[0][2])), found[0][1]) if found else None


async def next_end(connection: Connection, first_batch: int, limit: int) -> tuple[int, bool] | None:
    """Where a seal of about `limit` transactions would end, and whether more wait behind it."""
    [(end, count)] = await fetch(connection, _END, first_batch, limit)
    return None if end is None else (end, count == limit)


async def digest(connection: Connection, first_batch: int, end_batch: int) -> tuple[int, bytes]:
    """How many transactions a range holds, and the SHA-256 over them."""
    [(count, content)] = await fetch(connection, DIGEST, first_batch, end_batch)
    return count, bytes(content)


async def add_seal(connection: Connection, seal: SealedRange) -> None:
    """Writes the next seal."""
    await execute(connection, _SEAL, *seal)


async def seals_behind(connection: Connection, number: int) -> list[SealedRange]:
    """Stored seals that come after this one, up to 1,000."""
    found: list[Any] = await fetch(connection, _ALL, number)
    return [SealedRange._make(row) for row in found]
