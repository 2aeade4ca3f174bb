"""The SQL of the past: an account, its holds and its lots as they were just before a moment."""

from datetime import datetime
from typing import NamedTuple

from mesh.db import Connection
from points_svc.ledger import AccountKey
from points_svc.store.rows import fetch

# An account's versions count its entries without a gap and rise with their booking time, so the
# number of entries before a moment is found by bisection.
_VERSION_BEFORE = """
WITH RECURSIVE account AS (
    SELECT account_id, version FROM accounts WHERE owner = %b AND unit = %b
), search (low, high) AS (
    SELECT 0::bigint, version FROM account
    UNION ALL
    SELECT CASE WHEN before THEN middle ELSE low END, CASE WHEN before THEN high ELSE middle - 1 END
    FROM search,
        LATERAL (SELECT (low + high + 1) / 2 AS middle) AS m,
        LATERAL (
            SELECT booked_time < %b::timestamptz AS before
            FROM entries JOIN transactions USING (transaction_id)
            WHERE account_id = (SELECT account_id FROM account) AND account_version = middle
        ) AS e
    WHERE low < high
)
SELECT account_id, low, coalesce(
    (SELECT balance_after FROM entries WHERE entries.account_id = account.account_id
        AND account_version = low), 0)
FROM search, account WHERE low = high
"""

_HELD_AT = """
SELECT coalesce(sum(amount), 0)::bigint FROM holds
WHERE account_id = %b AND placed_time < %b::timestamptz AND expire_time >= %b::timestamptz
    AND (closed_time IS NULL OR closed_time >= %b::timestamptz)
"""

# What lots hold now, less what changed since. A lot or a hold whose time had passed counts as
# passed, whether or not that was booked yet.
_EXPIRING_AT = """
WITH since AS (
    SELECT lot_transaction_id AS transaction_id, lot_ordinal AS ordinal, sum(amount) AS changed
    FROM lot_changes
    WHERE transaction_id IN (
        SELECT transaction_id FROM entries WHERE account_id = %b AND account_version > %b
    )
    GROUP BY 1, 2
), reserved AS (
    SELECT lot_transaction_id AS transaction_id, lot_ordinal AS ordinal,
        sum(hold_lots.amount) AS reserved
    FROM holds JOIN hold_lots USING (hold_id)
    WHERE account_id = %b AND placed_time < %b::timestamptz AND expire_time >= %b::timestamptz
        AND (closed_time IS NULL OR closed_time >= %b::timestamptz)
    GROUP BY 1, 2
), expiring AS (
    SELECT expire_time, expire_time < %b::timestamptz AS passed,
        sum(remaining - coalesce(changed, 0) - coalesce(reserved, 0))::bigint AS free
    FROM lots JOIN transactions USING (transaction_id)
        LEFT JOIN since USING (transaction_id, ordinal)
        LEFT JOIN reserved USING (transaction_id, ordinal)
    WHERE account_id = %b AND lots.expire_time IS NOT NULL AND booked_time < %b::timestamptz
    GROUP BY 1
)
SELECT passed, free, expire_time FROM expiring WHERE free > 0 ORDER BY expire_time
"""


class Mark(NamedTuple):
    """An account then: number, version, posted balance; zeros before it was opened."""

    account_id: int
    version: int
    posted: int


async def before(connection: Connection, key: AccountKey, moment: datetime) -> Mark:
    """Where an account stood just before a moment."""
    found = await fetch(connection, _VERSION_BEFORE, key.owner, key.unit, moment)
    return Mark(*found[0]) if found else Mark(0, 0, 0)


async def held_at(connection: Connection, account_id: int, moment: datetime) -> int:
    """What holds reserved just before a moment, in minor units."""
    [(held,)] = await fetch(connection, _HELD_AT, account_id, moment, moment, moment)
    return int(held)


async def expiring_at(
    connection: Connection, mark: Mark, moment: datetime
) -> tuple[int, int, datetime | None]:
    """What had expired and was not booked so yet, and what was to expire next and when."""
    account_id, version, _ = mark
    found = await fetch(
        connection,
        _EXPIRING_AT,
        *(account_id, version, account_id, moment, moment, moment, moment, account_id, moment),
    )
    expired = sum(free for passed, free, _ in found if passed)
    coming = [(free, expire_time) for passed, free, expire_time in found if not passed]
    return expired, *(coming[0] if coming else (0, None))
