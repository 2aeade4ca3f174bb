"""The SQL of reads: balances, statements, lots; `history` has that of transactions."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, ScalarSelect, func, select, tuple_

from mesh.db import Connection
from points_svc.errors import UnknownUnit
from points_svc.ledger import (
    Account,
    AccountKey,
    Entry,
    HoldState,
    Lot,
    LotId,
    Transaction,
    debt_account,
    unopened,
)
from points_svc.store.history import Filter, listing, transactions_by_id
from points_svc.store.past import before, expiring_at, held_at
from points_svc.store.rows import fetch
from points_svc.tables import (
    accounts,
    entries,
    hold_lots,
    holds,
    lots,
    units,
)

# A hold or a lot whose time has passed counts as passed, whether or not that is booked yet.
_BALANCES = """
WITH asked AS (
    SELECT a.account_id, a.owner, posted, held, version
    FROM unnest(%b::text[]) AS k (owner) JOIN accounts AS a ON a.owner = k.owner AND a.unit = %b
), freed AS (
    SELECT account_id, lot_transaction_id AS transaction_id, lot_ordinal AS ordinal,
        sum(hold_lots.amount) AS amount
    FROM holds JOIN hold_lots USING (hold_id)
    WHERE account_id IN (SELECT account_id FROM asked WHERE held > 0)
        AND state = 'active' AND expire_time <= statement_timestamp()
    GROUP BY 1, 2, 3
), expiring AS (
    SELECT lots.account_id, expire_time, sum(remaining - lots.held + coalesce(f.freed, 0)) AS free
    FROM asked
        JOIN lots ON lots.account_id = asked.account_id AND open AND expire_time IS NOT NULL
        LEFT JOIN (SELECT transaction_id, ordinal, amount AS freed FROM freed) AS f
            USING (transaction_id, ordinal)
    GROUP BY 1, 2
), times AS (
    SELECT account_id,
        sum(free) FILTER (WHERE expire_time <= statement_timestamp()) AS expired,
        min(expire_time) FILTER (WHERE expire_time > statement_timestamp()) AS next_time,
        (array_agg(free ORDER BY expire_time)
            FILTER (WHERE expire_time > statement_timestamp()))[1] AS next_amount
    FROM expiring WHERE free > 0 GROUP BY 1
)
SELECT owner, posted,
    (held - coalesce((SELECT sum(amount) FROM freed WHERE freed.account_id = asked.account_id), 0)
        )::bigint,
    version, coalesce(expired, 0)::bigint, coalesce(next_amount, 0)::bigint, next_time
FROM asked LEFT JOIN times USING (account_id)
"""


class Balance(NamedTuple):
    """A user's account and debt account, and what expired or will next, in minor units."""

    account: Account
    owed: int
    overdraft_limit: int
    expired: int = 0
    next_amount: int = 0
    next_time: datetime | None = None


class Period(NamedTuple):
    """An account's entries over a time: the versions it begins behind and ends with."""

    account_id: int
    first: int
    last: int
    opening: int
    closing: int


class Reader:
    """The ledger's rows as one transaction sees them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def balances(self, keys: Sequence[AccountKey], unit: str) -> list[Balance]:
        """Users' balances of one unit, in order; empty where nothing was booked.

        Raises `UnknownUnit`.
        """
        await self._require_unit(unit)
        debts = [debt_account(key) for key in keys]
        owners = [key.owner for key in keys]
        found = {row[0]: row[1:] for row in await fetch(self._connection, _BALANCES, owners, unit)}
        owing = await self._accounts(debts)
        balances = []
        for key, debt_key in zip(keys, debts, strict=True):
            debt = owing.get(debt_key) or unopened(debt_key)
            posted, held, version, *expiring = found.get(key.owner, (0, 0, 0, 0, 0, None))
            account = Account(key, posted, held, version, floor=0)
            balances.append(Balance(account, -debt.posted, -(debt.floor or 0), *expiring))
        return balances

    async def balance_before(self, key: AccountKey, moment: datetime) -> Balance:
        """A user's balance as the ledger had it just before a moment; of limits it has no past.

        Raises `UnknownUnit`.
        """
        await self._require_unit(key.unit)
        _, _, owed = await before(self._connection, debt_account(key), moment)
        mark = await before(self._connection, key, moment)
        held = await held_at(self._connection, mark.account_id, moment)
        expiring = await expiring_at(self._connection, mark, moment)
        account = Account(key, mark.posted, held, mark.version, floor=0)
        return Balance(account, -owed, 0, *expiring)

    async def period(self, key: AccountKey, start: datetime | None, end: datetime) -> Period:
        """What was booked on an account in [start, end). Raises `UnknownUnit`."""
        await self._require_unit(key.unit)
        _, first, opening = await before(self._connection, key, start) if start else (0, 0, 0)
        account_id, last, closing = await before(self._connection, key, end)
        return Period(account_id, first, last, opening, closing)

    async def lines(
        self, key: AccountKey, period: Period, after: int, size: int
    ) -> list[tuple[Entry, str]]:
        """Up to `size` entries of a period behind version `after`, and their transactions' ids."""
        columns = entries.c
        found = await self._connection.execute(
            select(entries)
            .where(
                columns.account_id == period.account_id,
                columns.account_version > max(after, period.first),
                columns.account_version <= period.last,
            )
            .order_by(columns.account_version)
            .limit(size)
        )
        return [
            (Entry(key, row.amount, row.balance_after, row.account_version), row.transaction_id)
            for row in found
        ]

    async def transactions(self, ids: Collection[str]) -> dict[str, Transaction]:
        """The transactions that have these ids, by id."""
        return await transactions_by_id(self._connection, ids)

    async def page(self, wanted: Filter, size: int) -> list[Transaction]:
        """Up to `size` transactions, newest first."""
        ids = (await self._connection.scalars(listing(wanted, size))).all()
        found = await self.transactions(ids)
        return [found[transaction_id] for transaction_id in ids]

    async def lots(
        self, key: AccountKey, *, include_empty: bool, after: LotId | None, size: int
    ) -> list[Lot]:
        """Up to `size` lots of an account, oldest first. Raises `UnknownUnit`."""
        await self._require_unit(key.unit)
        name = tuple_(lots.c.transaction_id, lots.c.ordinal)
        query = (
            select(lots, _timed_out_holds().label("freed"))
            .join(accounts, accounts.c.account_id == lots.c.account_id)
            .where(_is_account(key))
            .order_by(lots.c.transaction_id, lots.c.ordinal)
            .limit(size)
        )
        if not include_empty:
            query = query.where(lots.c.open)
        if after is not None:
            query = query.where(name > after)
        return [
            Lot(
                (row.transaction_id, row.ordinal),
                key,
                row.amount,
                row.remaining,
                row.held - int(row.freed or 0),
                row.expire_time,
            )
            for row in await self._connection.execute(query)
        ]

    async def _accounts(self, keys: Sequence[AccountKey]) -> dict[AccountKey, Account]:
        found = await self._connection.execute(
            select(accounts).where(tuple_(accounts.c.owner, accounts.c.unit).in_(keys))
        )
        return {
            (key := AccountKey(row.owner, row.unit)): Account(
                key, row.posted, row.held, row.version, row.floor
            )
            for row in found
        }

    async def _require_unit(self, unit: str) -> None:
        if not await self._connection.scalar(select(func.count()).where(units.c.code == unit)):
            raise UnknownUnit(unit)


def _timed_out_holds() -> ScalarSelect[Any]:
    """What holds reserve of a lot though their time has passed."""
    return (
        select(func.sum(hold_lots.c.amount))
        .join(holds, holds.c.hold_id == hold_lots.c.hold_id)
        .where(
            lots.c.held > 0,
            holds.c.account_id == lots.c.account_id,
            holds.c.state == HoldState.ACTIVE.value,
            holds.c.expire_time <= func.statement_timestamp(),
            hold_lots.c.lot_transaction_id == lots.c.transaction_id,
            hold_lots.c.lot_ordinal == lots.c.ordinal,
        )
        .correlate(lots)
        .scalar_subquery()
    )


def _is_account(key: AccountKey) -> ColumnElement[bool]:
    return (accounts.c.owner == key.owner) & (accounts.c.unit == key.unit)
