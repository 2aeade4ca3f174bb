"""The audit: recomputes the ledger from its entries and names every row that contradicts another.

Run it in one REPEATABLE READ snapshot: it then judges a single moment of a ledger in use.
"""

from typing import Any, LiteralString

from mesh.db import Connection, driver
from points_svc.ledger import MAX_BALANCE, Report, Seal
from points_svc.seal import check_chain

MAX_FINDINGS = 100

_COUNTS = """
SELECT (SELECT count(*) FROM transactions),
       (SELECT count(*) FROM entries),
       (SELECT count(*) FROM accounts),
       (SELECT count(*) FROM lots),
       (SELECT count(*) FROM holds),
       (SELECT count(*) FROM transactions
        WHERE batch >= coalesce((SELECT max(end_batch) FROM seals), 0))
"""

_SUMS = """
SELECT unit,
       coalesce(sum(amount), 0),
       -coalesce(sum(amount) FILTER (WHERE owner = 'system:issuance'), 0)
FROM entries JOIN accounts USING (account_id)
GROUP BY unit
"""

# Each is told by a sentence and selects one sentence for every contradiction.
_CHECKS: tuple[tuple[str, LiteralString], ...] = (
    (
        "The entries of each unit sum to zero.",
        """
        SELECT format('unit %s: its entries sum to %s instead of 0', unit, sum(amount))
        FROM entries JOIN accounts USING (account_id)
        GROUP BY unit HAVING sum(amount) <> 0
        """,
    ),
    (
        "The entries of each transaction sum to zero per unit.",
        """
        SELECT format('transaction %s: its entries sum to %s %s instead of 0',
                      transaction_id, sum(amount), unit)
        FROM entries JOIN accounts USING (account_id)
        GROUP BY transaction_id, unit HAVING sum(amount) <> 0
        """,
    ),
    (
        "Each transaction's entries credit what it says.",
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
    ),
    (
        "Every entry belongs to a transaction and an account.",
        """
        SELECT format('transaction %s, entry %s: transaction or account is missing',
                      transaction_id, ordinal)
        FROM entries
            LEFT JOIN transactions USING (transaction_id)
            LEFT JOIN accounts USING (account_id)
        WHERE transactions.transaction_id IS NULL OR accounts.account_id IS NULL
        """,
    ),
    (
        "Each account's entries count up without a gap and carry the balance they leave.",
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
    ),
    (
        "Each account's balance and version are those of its entries.",
        """
        SELECT format('account %s %s: posted is %s at version %s, but its %s entries sum to %s',
                      owner, unit, posted, version, coalesce(count, 0), coalesce(sum, 0))
        FROM accounts LEFT JOIN (
            SELECT account_id, count(*), sum(amount) FROM entries GROUP BY account_id
        ) AS booked USING (account_id)
        WHERE posted <> coalesce(sum, 0) OR version <> coalesce(count, 0)
        """,
    ),
    (
        "No account is below its floor, except for debts.",
        """
        SELECT format('account %s %s: %s is available, below its floor of %s',
                      owner, unit, posted::numeric - held, coalesce(floor::text, 'nothing'))
        FROM accounts
        WHERE (owner NOT LIKE 'debt:%' AND posted::numeric - held < floor)
            OR (owner LIKE 'debt:%' AND posted > 0)
            OR (owner LIKE 'user:%' AND floor IS NULL)
        """,
    ),
    (
        "In each lot remains what it was made with and what was put in and taken out since.",
        """
        SELECT format('lot %s:%s: %s remains, but it was made with %s and changes sum to %s',
                      lots.transaction_id, ordinal, remaining, amount, coalesce(changed, 0))
        FROM lots LEFT JOIN (
            SELECT lot_transaction_id, lot_ordinal, sum(amount) AS changed
            FROM lot_changes GROUP BY 1, 2
        ) AS c ON lot_transaction_id = lots.transaction_id AND lot_ordinal = ordinal
        WHERE remaining <> amount + coalesce(changed, 0)
        """,
    ),
    (
        "Each user's lots together hold the user's balance.",
        """
        SELECT format('account %s %s: posted is %s, but its lots hold %s',
                      owner, unit, posted, coalesce(remaining, 0))
        FROM accounts LEFT JOIN (
            SELECT account_id, sum(remaining) AS remaining FROM lots GROUP BY 1
        ) AS l USING (account_id)
        WHERE posted <> coalesce(remaining, 0) AND (owner LIKE 'user:%' OR remaining IS NOT NULL)
        """,
    ),
    (
        "Each transaction changes a user's lots by what its entries change the balance.",
        """
        SELECT format('transaction %s: its entries change %s %s by %s, but its lot changes by %s',
                      transaction_id, owner, unit, sum(entry), sum(lot))
        FROM (
            SELECT transaction_id, account_id, amount AS entry, 0 AS lot FROM entries
            UNION ALL
            SELECT transaction_id, account_id, 0, amount FROM lots
            UNION ALL
            SELECT c.transaction_id, account_id, 0, c.amount
            FROM lot_changes AS c LEFT JOIN lots AS l
                ON l.transaction_id = c.lot_transaction_id AND l.ordinal = c.lot_ordinal
        ) AS both_sides LEFT JOIN accounts USING (account_id)
        WHERE owner IS NULL OR owner LIKE 'user:%'
        GROUP BY transaction_id, owner, unit HAVING sum(entry) <> sum(lot) OR owner IS NULL
        """,
    ),
    (
        "Each hold reserves what its lots say, and was captured for what its transaction books.",
        """
        SELECT format('hold %s: it is %s over %s with %s captured, but its lots say %s and its '
                      'transaction %s', hold_id, state, amount, captured, coalesce(reserved, 0),
                      coalesce(spent, 0))
        FROM holds
            LEFT JOIN (SELECT hold_id, sum(amount) AS reserved FROM hold_lots GROUP BY 1) AS r
                USING (hold_id)
            LEFT JOIN (
                SELECT hold_id, sum(amount) AS spent FROM transactions
                WHERE kind = 'capture' GROUP BY 1
            ) AS s USING (hold_id)
        WHERE amount <> coalesce(reserved, 0) OR captured <> coalesce(spent, 0)
        """,
    ),
    (
        "What an account and its lots hold is what its active holds reserve.",
        """
        SELECT format('account %s %s: %s is held, its active holds reserve %s',
                      owner, unit, held, coalesce(reserved, 0))
        FROM accounts LEFT JOIN (
            SELECT account_id, sum(amount) AS reserved FROM holds WHERE state = 'active' GROUP BY 1
        ) AS h USING (account_id)
        WHERE held <> coalesce(reserved, 0)
        """,
    ),
    (
        "What each lot holds is what the active holds reserve of it.",
        """
        SELECT format('lot %s:%s: %s is held, active holds reserve %s of it',
                      lots.transaction_id, ordinal, held, coalesce(reserved, 0))
        FROM lots LEFT JOIN (
            SELECT lot_transaction_id, lot_ordinal, sum(hold_lots.amount) AS reserved
            FROM hold_lots JOIN holds USING (hold_id) WHERE state = 'active' GROUP BY 1, 2
        ) AS h ON lot_transaction_id = lots.transaction_id AND lot_ordinal = ordinal
        WHERE held <> coalesce(reserved, 0)
        """,
    ),
    (
        "Reversals never exceed what they take back.",
        """
        SELECT format('transaction %s over %s: its reversals sum to %s and are counted as %s',
                      original, amount, coalesce(reversed, 0), coalesce(counted, 0))
        FROM (SELECT reverses AS original, sum(amount) AS reversed
              FROM transactions WHERE reverses IS NOT NULL GROUP BY 1) AS r
            FULL JOIN (SELECT transaction_id AS original, reversed AS counted FROM reversals) AS c
                USING (original)
            LEFT JOIN (SELECT transaction_id AS original, amount FROM transactions) AS o
                USING (original)
        WHERE reversed IS DISTINCT FROM counted OR amount IS NULL OR reversed > amount
        """,
    ),
)
_SEALS = "Each seal follows from the one before and from the transactions it covers."


async def verify(connection: Connection, known: Seal | None = None) -> Report:
    """Examines everything that the connection's snapshot shows.

    `known` is a seal noted outside the ledger, which must be in the chain.
    """
    [(transactions, entries, accounts, lots, holds, unsealed)] = await _rows(connection, _COUNTS)
    sums = await _rows(connection, _SUMS)
    findings: list[str] = []
    for _, check in _CHECKS:
        wanted = MAX_FINDINGS - len(findings)
        findings += [row[0] for row in await _rows(connection, f"{check} LIMIT {wanted}")]
    seals, last_seal, broken = await check_chain(connection, known)
    return Report(
        transactions=transactions,
        entries=entries,
        accounts=accounts,
        sums={unit: _within_int64(total) for unit, total, _ in sums},
        awarded={unit: _within_int64(debit) for unit, _, debit in sums},
        findings=[*findings, *broken][:MAX_FINDINGS],
        lots=lots,
        holds=holds,
        seals=seals,
        unsealed_transactions=unsealed,
        checks=[*(told for told, _ in _CHECKS), _SEALS],
        last_seal=last_seal,
    )


async def _rows(connection: Connection, query: LiteralString) -> list[tuple[Any, ...]]:
    async with driver(connection).cursor() as cursor:
        await cursor.execute(query)
        return await cursor.fetchall()


def _within_int64(total: int) -> int:
    # A row forged by hand may take a sum anywhere; that must not keep it from being reported.
    return max(-MAX_BALANCE, min(MAX_BALANCE, int(total)))
