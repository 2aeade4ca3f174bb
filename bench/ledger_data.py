"""Ledgers to measure on: users who have points, and years of older entries, loaded by COPY."""

from collections.abc import Mapping
from typing import LiteralString

import psycopg

BALANCE = 10**12
PAIRS_PER_COPY = 50_000  # in one database transaction, so that seals have a size to work with

# The numbers of accounts and lots are what `ledger_transfer.sql` expects: user n has account n and
# a first lot named n. Account 1 is issuance, the last one redemption.
_SEED: tuple[LiteralString, ...] = (
    """
    INSERT INTO accounts (owner, unit, posted, held, version, floor)
    SELECT owner, 'G2A', posted, 0, version, floor FROM (
        SELECT 1 AS n, 'system:issuance', -%(balance)s::bigint * (%(users)s - 1), %(users)s - 1,
            NULL::bigint
        UNION ALL
        SELECT n, 'user:user-' || n, %(balance)s, 1, 0 FROM generate_series(2, %(users)s) AS n
        UNION ALL
        SELECT %(users)s + 1, 'system:redemption', 0, 0, NULL
    ) AS seed (n, owner, posted, version, floor) ORDER BY n
    """,
    """
    INSERT INTO transactions (transaction_id, request_id, kind, user_id, recipient, unit, amount,
        reason, reference, metadata, effective_time, booked_time)
    SELECT lpad(to_hex(n), 32, '0')::uuid, 'seed-' || n, 'award', 'user-' || n, '', 'G2A',
        %(balance)s, 'seed', '', '{}', now(), now()
    FROM generate_series(2, %(users)s) AS n
    """,
    """
    INSERT INTO entries
    SELECT lpad(to_hex(n), 32, '0')::uuid, side, CASE side WHEN 0 THEN 1 ELSE n END,
        CASE side WHEN 0 THEN -%(balance)s::bigint ELSE %(balance)s END,
        CASE side WHEN 0 THEN -%(balance)s::bigint * (n - 1) ELSE %(balance)s END,
        CASE side WHEN 0 THEN n - 1 ELSE 1 END
    FROM generate_series(2, %(users)s) AS n, generate_series(0, 1) AS side
    """,
    """
    INSERT INTO lots
    SELECT lpad(to_hex(n), 32, '0')::uuid, 0, n, %(balance)s, %(balance)s, 0, NULL
    FROM generate_series(2, %(users)s) AS n
    """,
)

# Pair i is an award of 5 points to user 2 + i mod (users - 1), who spends them at once: two
# transactions, four entries, one lot. `turn` counts the user's pairs before it.
_PAIRS: LiteralString = """
    SELECT i, 2 + i %% (%(users)s - 1) AS n, i / (%(users)s - 1) AS turn,
        ('00000000-0001-7000-8000-' || lpad(to_hex(2 * i), 12, '0'))::uuid AS award,
        ('00000000-0001-7000-8000-' || lpad(to_hex(2 * i + 1), 12, '0'))::uuid AS spend
    FROM generate_series(%(first)s::bigint, %(last)s::bigint - 1) AS i
"""
_TRANSACTION: LiteralString = "'user-' || n, '', 'G2A', 5, '{}'::jsonb, now(), now() FROM pairs"
_COPIES: Mapping[LiteralString, LiteralString] = {
    "transactions (transaction_id, request_id, kind, reason, reference, user_id, recipient, unit,"
    " amount, metadata, effective_time, booked_time)": f"""
        SELECT award, 'old-' || award, 'award', 'quest', '', {_TRANSACTION}
        UNION ALL SELECT spend, 'old-' || spend, 'spend', 'shop', '', {_TRANSACTION}
    """,
    "entries": """
        SELECT award, 0::smallint, 1::bigint, -5::bigint,
            -%(balance)s::bigint * (%(users)s - 1) - 5 * (i + 1), %(users)s + i FROM pairs
        UNION ALL SELECT award, 1, n, 5, %(balance)s + 5, 2 * turn + 2 FROM pairs
        UNION ALL SELECT spend, 0, n, -5, %(balance)s, 2 * turn + 3 FROM pairs
        UNION ALL SELECT spend, 1, %(users)s + 1, 5, 5 * (i + 1), i + 1 FROM pairs
    """,
    "lots (transaction_id, ordinal, account_id, amount, remaining, held)": """
        SELECT award, 0::smallint, n, 5::bigint, 0::bigint, 0::bigint FROM pairs
    """,
    "lot_changes": "SELECT spend, award, 0::smallint, -5::bigint FROM pairs",
    "idempotency_keys": """
        SELECT 'old', 'old-' || award, sha256(''), convert_to(award::text, 'UTF8') FROM pairs
        UNION ALL
        SELECT 'old', 'old-' || spend, sha256(''), convert_to(spend::text, 'UTF8') FROM pairs
    """,
}

_CATCH_UP: LiteralString = """
    UPDATE accounts SET posted = e.balance_after, version = e.account_version
    FROM entries AS e
    WHERE e.account_id = accounts.account_id AND e.account_version = (
        SELECT max(account_version) FROM entries WHERE account_id = accounts.account_id)
"""


def seed(connection: psycopg.Connection, users: int) -> None:
    """Users 2 to `users`, each with one award."""
    for statement in _SEED:
        cursor = psycopg.ClientCursor(connection)
        cursor.execute(statement, {"users": users, "balance": BALANCE})


def load(source: psycopg.Connection, target: psycopg.Connection, users: int, entries: int) -> None:
    """About that many entries, as they are left by users who earn and spend."""
    target.execute("SET session_replication_role = replica")  # they are sound; VerifyLedger checks
    pairs = entries // 4
    for first in range(0, pairs, PAIRS_PER_COPY):
        span = {"first": first, "last": min(first + PAIRS_PER_COPY, pairs)}
        with target.transaction():
            for table, query in _COPIES.items():
                _copy(source, target, table, query, {**span, "users": users, "balance": BALANCE})
        print(f"  loaded {4 * span['last']:,} entries", end="\r", flush=True)
    target.execute(_CATCH_UP)
    target.execute("VACUUM ANALYZE")
    print()


def _copy(
    source: psycopg.Connection,
    target: psycopg.Connection,
    table: LiteralString,
    query: LiteralString,
    values: Mapping[str, int],
) -> None:
    reading = psycopg.ClientCursor(source)
    rows = f"COPY (WITH pairs AS ({_PAIRS}) {query}) TO STDOUT"
    with (
        reading.copy(rows, values) as output,
        target.cursor().copy(f"COPY {table} FROM STDIN") as into,
    ):
        for block in output:
            into.write(block)
