"""The audit: recomputes the ledger from its entries and names every row that contradicts another.

Run it in one REPEATABLE READ snapshot: it then judges a single moment of a ledger in use.
"""

from typing import Any, LiteralString

from mesh.db import Connection, driver
from points_svc.ledger import MAX_BALANCE, Report

MAX_FINDINGS = 100

_COUNTS = """
SELECT (SELECT count(*) FROM transactions),
       (SELECT count(*) FROM entries),
       (SELECT count(*) FROM accounts)
"""

_SUMS = """
SELECT unit,
       coalesce(sum(amount), 0),
       -coalesce(sum(amount) FILTER (WHERE owner = 'system:issuance'), 0)
FROM entries JOIN accounts USING (account_id)
GROUP BY unit
"""

# Each selects one sentence a row.
_CHECKS: tuple[LiteralString, ...] = (
    """
    SELECT format('unit %s: its entries sum to %s instead of 0', unit, sum(amount))
    FROM entries JOIN accounts USING (account_id)
    GROUP BY unit HAVING sum(amount) <> 0
    """,
    """
    SELECT format('transaction %s: its entries sum to %s %s instead of 0',
                  transaction_id, sum(amount), unit)
    FROM entries JOIN accounts USING (account_id)
    GROUP BY transaction_id, unit HAVING sum(amount) <> 0
    """,
    """
    SELECT format('transaction %s: it says %s %s but its entries credit %s',
                  transaction_id, t.amount, t.unit, coalesce(credited.amount, 0))
    FROM transactions AS t LEFT JOIN (
        SELECT transaction_id, unit, sum(entries.amount) AS amount
        FROM entries JOIN accounts USING (account_id)
        WHERE entries.amount > 0
        GROUP BY transaction_id, unit
    ) AS credited USING (transaction_id, unit)
    WHERE credited.amount IS DISTINCT FROM t.amount
    """,
    """
    SELECT format('transaction %s, entry %s: transaction or account is missing',
                  transaction_id, ordinal)
    FROM entries
        LEFT JOIN transactions USING (transaction_id)
        LEFT JOIN accounts USING (account_id)
    WHERE transactions.transaction_id IS NULL OR accounts.account_id IS NULL
    """,
    """
    SELECT format('account %s %s: entry of %s leaves %s at version %s, after %s at version %s',
                  owner, unit, transaction_id, balance_after, account_version,
                  balance_before, version_before)
    FROM (
        SELECT *, lag(balance_after, 1, 0::bigint) OVER account AS balance_before,
                  lag(account_version, 1, 0::bigint) OVER account AS version_before
        FROM entries
        WINDOW account AS (PARTITION BY account_id ORDER BY account_version)
    ) AS chained JOIN accounts USING (account_id)
    WHERE balance_after::numeric <> balance_before::numeric + chained.amount
        OR account_version <> version_before + 1
    """,
    """
    SELECT format('account %s %s: posted is %s at version %s, but its %s entries sum to %s',
                  owner, unit, posted, version, coalesce(count, 0), coalesce(sum, 0))
    FROM accounts LEFT JOIN (
        SELECT account_id, count(*), sum(amount) FROM entries GROUP BY account_id
    ) AS booked USING (account_id)
    WHERE posted <> coalesce(sum, 0) OR version <> coalesce(count, 0)
    """,
    """
    SELECT format('account %s %s: %s is available, below its floor of %s',
                  owner, unit, posted::numeric - held, coalesce(floor::text, 'nothing'))
    FROM accounts
    WHERE posted::numeric - held < floor OR (owner LIKE 'user:%' AND floor IS NULL)
    """,
)


async def verify(connection: Connection) -> Report:
    """Examines everything that the connection's snapshot shows."""
    [(transactions, entries, accounts)] = await _rows(connection, _COUNTS)
    sums = await _rows(connection, _SUMS)
    findings: list[str] = []
    for check in _CHECKS:
        wanted = MAX_FINDINGS - len(findings)
        findings += [row[0] for row in await _rows(connection, f"{check} LIMIT {wanted}")]
    return Report(
        transactions=transactions,
        entries=entries,
        accounts=accounts,
        sums={unit: _within_int64(total) for unit, total, _ in sums},
        awarded={unit: _within_int64(debit) for unit, _, debit in sums},
        findings=findings,
    )


async def _rows(connection: Connection, query: LiteralString) -> list[tuple[Any, ...]]:
    async with driver(connection).cursor() as cursor:
        await cursor.execute(query)
        return await cursor.fetchall()


def _within_int64(total: int) -> int:
    # A row forged by hand may take a sum anywhere; that must not keep it from being reported.
    return max(-MAX_BALANCE, min(MAX_BALANCE, int(total)))
