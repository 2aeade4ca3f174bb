"""The SQL of booked transactions: by id, and lists of them."""

from collections import defaultdict
from collections.abc import Collection
from typing import Any, NamedTuple

from sqlalchemy import Select, select, union_all

from mesh.db import Connection
from points_svc.ledger import AccountKey, Entry, LotChange, Transaction
from points_svc.store import rows
from points_svc.tables import accounts, entries, lot_changes, lots, transactions


class Filter(NamedTuple):
    """Which transactions to list; empty means any. `before` is the id of the last one seen."""

    user_id: str
    unit: str
    reference: str
    reason: str
    before: str | None = None


async def transactions_by_id(
    connection: Connection, ids: Collection[str]
) -> dict[str, Transaction]:
    """The transactions that have these ids, with their entries and lots, by id."""
    if not ids:
        return {}
    found = (
        await connection.execute(
            select(transactions).where(rows.among(transactions.c.transaction_id, ids))
        )
    ).all()
    sides: dict[str, list[Entry]] = defaultdict(list)
    for side in await connection.execute(
        select(entries, accounts.c.owner, accounts.c.unit)
        .join(accounts, accounts.c.account_id == entries.c.account_id)
        .where(rows.among(entries.c.transaction_id, ids))
        .order_by(entries.c.transaction_id, entries.c.ordinal)
    ):
        account = AccountKey(side.owner, side.unit)
        sides[side.transaction_id].append(
            Entry(account, side.amount, side.balance_after, side.account_version)
        )
    changes = await _lot_changes(connection, ids)
    return {
        row.transaction_id: rows.transaction(
            row, sides[row.transaction_id], changes[row.transaction_id]
        )
        for row in found
    }


async def _lot_changes(connection: Connection, ids: Collection[str]) -> dict[str, list[LotChange]]:
    """What these transactions made lots with, and what they changed in others."""
    made = (
        select(
            lots.c.transaction_id.label("by"),
            lots.c.transaction_id,
            lots.c.ordinal,
            accounts.c.owner,
            lots.c.amount,
            lots.c.expire_time,
        )
        .join(accounts, accounts.c.account_id == lots.c.account_id)
        .where(rows.among(lots.c.transaction_id, ids))
    )
    changed = (
        select(
            lot_changes.c.transaction_id.label("by"),
            lots.c.transaction_id,
            lots.c.ordinal,
            accounts.c.owner,
            lot_changes.c.amount,
            lots.c.expire_time,
        )
        .join(
            lots,
            (lots.c.transaction_id == lot_changes.c.lot_transaction_id)
            & (lots.c.ordinal == lot_changes.c.lot_ordinal),
        )
        .join(accounts, accounts.c.account_id == lots.c.account_id)
        .where(rows.among(lot_changes.c.transaction_id, ids))
    )
    found: dict[str, list[LotChange]] = defaultdict(list)
    for query in (made, changed):
        for by, lot, ordinal, owner, amount, expire_time in await connection.execute(query):
            found[by].append(LotChange((lot, ordinal), owner, amount, expire_time))
    return found


def listing(wanted: Filter, size: int) -> Select[Any]:
    """The ids to list, newest first; each branch of an account's list walks its own index."""
    columns = transactions.c
    query = select(columns.transaction_id)
    if wanted.unit:
        query = query.where(columns.unit == wanted.unit)
    if wanted.reference:
        query = query.where(columns.reference == wanted.reference)
    if wanted.reason:
        query = query.where(columns.reason == wanted.reason)
    if wanted.before is not None:
        query = query.where(columns.transaction_id < wanted.before)
    newest = columns.transaction_id.desc()
    if not wanted.user_id:
        return query.order_by(newest).limit(size)
    branches = [
        query.where(column == wanted.user_id).order_by(newest).limit(size).subquery()
        for column in (columns.user_id, columns.recipient)
    ]
    both = union_all(*(select(branch) for branch in branches)).subquery()
    return select(both).order_by(both.c.transaction_id.desc()).limit(size)
