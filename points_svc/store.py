"""All SQL of the ledger's hot path and its reads, within one transaction of the caller.

A batch of any size is written with one statement: columns travel as arrays, in binary form.
"""

import json
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, LiteralString, NamedTuple

from sqlalchemy import ColumnElement, Row, select

from mesh.db import Connection, driver
from mesh.errors import RequestIdReused
from mesh.idempotency import Key, recall, remember
from points_svc.errors import UnknownUnit
from points_svc.ledger import (
    Account,
    AccountKey,
    Entry,
    Instruction,
    Kind,
    Transaction,
    unopened,
)
from points_svc.tables import accounts, entries, idempotency_keys, transactions, units

# Sorted, so that batches which open accounts in common wait for each other instead of deadlocking.
# Units that do not exist open nothing.
_OPEN = """
INSERT INTO accounts (owner, unit, posted, held, version, floor)
SELECT owner, unit, 0, 0, 0, k.floor
FROM unnest(%b::text[], %b::text[], %b::bigint[]) AS k (owner, unit, floor)
    JOIN units ON units.code = k.unit
    LEFT JOIN accounts AS known USING (owner, unit)
WHERE known.account_id IS NULL
ORDER BY owner, unit
ON CONFLICT DO NOTHING
"""

# NO KEY UPDATE lets other transactions insert rows that refer to these accounts.
_LOCK = """
SELECT account_id, owner, unit, posted, held, version, floor
FROM unnest(%b::text[], %b::text[]) AS k (owner, unit) JOIN accounts USING (owner, unit)
ORDER BY account_id
FOR NO KEY UPDATE OF accounts
"""

_MOMENT = "SELECT clock_timestamp(), array_agg(code) FROM units"

_WRITE = """
WITH booked AS (
    INSERT INTO transactions (transaction_id, request_id, kind, user_id, unit, amount,
        reason, reference, metadata, effective_time, booked_time)
    SELECT * FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[],
        %b::text[], %b::text[], %b::jsonb[], %b::timestamptz[], %b::timestamptz[])
), sides AS (
    INSERT INTO entries
        (transaction_id, ordinal, account_id, amount, balance_after, account_version)
    SELECT * FROM unnest(%b::uuid[], %b::smallint[], %b::bigint[], %b::bigint[], %b::bigint[],
        %b::bigint[])
)
UPDATE accounts SET posted = k.posted, held = k.held, version = k.version
FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[])
    AS k (account_id, posted, held, version)
WHERE accounts.account_id = k.account_id
"""


class Moment(NamedTuple):
    """The database's time, and the codes of the units there are."""

    now: datetime
    units: frozenset[str]


class Store:
    """The ledger's rows as one transaction sees them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ids: dict[AccountKey, int] = {}

    async def lock(
        self, keys: Collection[AccountKey], opening: Collection[AccountKey]
    ) -> list[Account]:
        """Opens the accounts `opening` where missing, then locks and returns those of `keys`."""
        floors = [unopened(key).floor for key in opening]
        await self._execute(_OPEN, *_columns(opening, 2), floors)
        rows = await self._fetch(_LOCK, *_columns(keys, 2))
        locked = [Account(AccountKey(owner, unit), *state) for _, owner, unit, *state in rows]
        self._ids = {account.key: row[0] for account, row in zip(locked, rows, strict=True)}
        return locked

    async def moment(self) -> Moment:
        """When to book; read with the locks held, so that each account's entries rise in time."""
        [(now, codes)] = await self._fetch(_MOMENT)
        return Moment(now, frozenset(codes))

    async def recall(self, keys: Sequence[Key]) -> dict[Key, Transaction | RequestIdReused]:
        """What these requests booked earlier; the error where the input was another."""
        known = await recall(self._connection, idempotency_keys, keys)
        ids = {key: answer.decode() for key, answer in known.items() if isinstance(answer, bytes)}
        if not ids:
            return {key: error for key, error in known.items() if not isinstance(error, bytes)}
        booked = await self.transactions(set(ids.values()))
        return {
            key: booked[ids[key]] if isinstance(answer, bytes) else answer
            for key, answer in known.items()
        }

    async def write(
        self, booked: Sequence[tuple[Key, Transaction]], changed: Sequence[Account]
    ) -> None:
        """Writes transactions, their entries, the accounts as they are now, and the request ids.

        The accounts must be locked. Raises `RetryTransaction` when another replica took one of the
        request ids meanwhile.
        """
        if not booked:
            return
        await self._execute(
            _WRITE,
            *_columns([_transaction_row(made) for _, made in booked], 11),
            *_columns(self._entry_rows(booked), 6),
            *_columns(self._account_rows(changed), 4),
        )
        remembered = [(key, made.transaction_id.encode()) for key, made in booked]
        await remember(self._connection, idempotency_keys, remembered)

    async def balance(self, key: AccountKey) -> Account:
        """One account; empty if nothing was ever booked on it. Raises `UnknownUnit`."""
        columns = accounts.c
        found = await self._connection.execute(
            select(columns.posted, columns.held, columns.version, columns.floor)
            .select_from(units.outerjoin(accounts, _is_account(key)))
            .where(units.c.code == key.unit)
        )
        row = found.one_or_none()
        if row is None:
            raise UnknownUnit(key.unit)
        return unopened(key) if row.version is None else Account(key, *row)

    async def page(
        self, user_id: str, unit: str, *, before: str | None, size: int
    ) -> list[Transaction]:
        """Up to `size` transactions of a user, newest first, in one unit or, if empty, in all.

        `before` is the id of the last one already seen.
        """
        columns = transactions.c
        query = select(columns.transaction_id).where(columns.user_id == user_id)
        if unit:
            query = query.where(columns.unit == unit)
        if before is not None:
            query = query.where(columns.transaction_id < before)
        query = query.order_by(columns.transaction_id.desc()).limit(size)
        ids = (await self._connection.scalars(query)).all()
        found = await self.transactions(ids)
        return [found[transaction_id] for transaction_id in ids]

    async def transactions(self, ids: Collection[str]) -> dict[str, Transaction]:
        """The transactions that have these ids, with their entries, by id."""
        of_these = transactions.c.transaction_id.in_(ids)
        rows = (await self._connection.execute(select(transactions).where(of_these))).all()
        sides = await self._connection.execute(
            select(entries, accounts.c.owner, accounts.c.unit)
            .join(accounts, accounts.c.account_id == entries.c.account_id)
            .where(entries.c.transaction_id.in_(ids))
            .order_by(entries.c.transaction_id, entries.c.ordinal)
        )
        found: dict[str, list[Entry]] = {row.transaction_id: [] for row in rows}
        for side in sides:
            account = AccountKey(side.owner, side.unit)
            found[side.transaction_id].append(
                Entry(account, side.amount, side.balance_after, side.account_version)
            )
        return {row.transaction_id: _transaction(row, found[row.transaction_id]) for row in rows}

    def _entry_rows(self, booked: Sequence[tuple[Key, Transaction]]) -> list[tuple[Any, ...]]:
        return [
            (
                made.transaction_id,
                ordinal,
                self._ids[entry.account],
                entry.amount,
                entry.balance_after,
                entry.account_version,
            )
            for _, made in booked
            for ordinal, entry in enumerate(made.entries)
        ]

    def _account_rows(self, changed: Sequence[Account]) -> list[tuple[int, ...]]:
        return [
            (self._ids[key], posted, held, version) for key, posted, held, version, _ in changed
        ]

    async def _execute(self, statement: LiteralString, *columns: Sequence[Any]) -> None:
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(statement, columns)

    async def _fetch(self, statement: LiteralString, *columns: Sequence[Any]) -> list[Any]:
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(statement, columns)
            return await cursor.fetchall()


def _columns(rows: Collection[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """Rows as `count` columns, also when there is no row."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]


def _is_account(key: AccountKey) -> ColumnElement[bool]:
    return (accounts.c.owner == key.owner) & (accounts.c.unit == key.unit)


def _transaction_row(made: Transaction) -> tuple[Any, ...]:
    asked = made.instruction
    return (
        made.transaction_id,
        asked.request_id,
        asked.kind.value,
        asked.user_id,
        asked.unit,
        asked.amount,
        asked.reason,
        asked.reference,
        json.dumps(dict(asked.metadata)) if asked.metadata else "{}",
        made.effective_time,
        made.booked_time,
    )


def _transaction(row: Row[Any], sides: Sequence[Entry]) -> Transaction:
    return Transaction(
        row.transaction_id,
        Instruction(
            Kind(row.kind),
            row.request_id,
            row.user_id,
            row.unit,
            row.amount,
            row.reason,
            row.reference,
            row.metadata,
            row.effective_time,
        ),
        row.effective_time,
        row.booked_time,
        tuple(sides),
    )
