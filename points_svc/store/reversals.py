"""The SQL of reversals; a cold path, so plain statements."""

from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from mesh.db import Connection
from points_svc.ledger import Kind, LotId, Transaction
from points_svc.tables import accounts, entries, lot_changes, lots, reversals, transactions


class Undone(NamedTuple):
    """What earlier reversals of a transaction did, and what became of its lots.

    `returned` is what each lot got back, `expired` what of the lots that the transaction made was
    booked to expiry and not taken back from there yet.
    """

    amount: int
    returned: dict[LotId, int]
    expired: int


async def undone(connection: Connection, original: Transaction, expiry_owner: str) -> Undone:
    """What was done about a transaction whose accounts are locked."""
    reversal = transactions.alias()
    of_original = reversal.c.reverses == original.transaction_id
    amount = await connection.scalar(
        select(func.coalesce(func.sum(reversal.c.amount), 0)).where(of_original)
    )
    returned = await connection.execute(
        select(
            lot_changes.c.lot_transaction_id,
            lot_changes.c.lot_ordinal,
            func.sum(lot_changes.c.amount),
        )
        .join(reversal, reversal.c.transaction_id == lot_changes.c.transaction_id)
        .where(of_original, lot_changes.c.amount > 0)
        .group_by(lot_changes.c.lot_transaction_id, lot_changes.c.lot_ordinal)
    )
    taken_back = await connection.scalar(
        select(func.coalesce(-func.sum(entries.c.amount), 0))
        .join(accounts, accounts.c.account_id == entries.c.account_id)
        .join(reversal, reversal.c.transaction_id == entries.c.transaction_id)
        .where(of_original, accounts.c.owner == expiry_owner)
    )
    made = [c.lot_id[1] for c in original.lot_changes if c.lot_id[0] == original.transaction_id]
    expired = await _expired(connection, original.transaction_id, made)
    return Undone(
        int(amount or 0),
        {(lot_id, ordinal): int(total) for lot_id, ordinal, total in returned},
        expired - int(taken_back or 0),
    )


async def count_reversal(connection: Connection, original: Transaction, amount: int) -> None:
    """Adds to what was taken back of a transaction; the database refuses more than it was."""
    row = insert(reversals).values(
        transaction_id=original.transaction_id,
        amount=original.instruction.amount,
        reversed=amount,
    )
    await connection.execute(
        row.on_conflict_do_update(
            index_elements=[reversals.c.transaction_id],
            set_={"reversed": reversals.c.reversed + row.excluded.reversed},
        )
    )


async def _expired(connection: Connection, transaction_id: str, made: Collection[int]) -> int:
    """What was booked to expiry out of the lots a transaction made."""
    if not made:
        return 0
    of_account = select(lots.c.account_id).where(lots.c.transaction_id == transaction_id)
    booked = await connection.scalar(
        select(func.coalesce(-func.sum(lot_changes.c.amount), 0))
        .join(transactions, transactions.c.transaction_id == lot_changes.c.transaction_id)
        .where(
            transactions.c.kind == Kind.EXPIRY.value,
            lot_changes.c.lot_transaction_id == transaction_id,
            transactions.c.transaction_id.in_(
                select(entries.c.transaction_id).where(entries.c.account_id.in_(of_account))
            ),
        )
    )
    return int(booked or 0)
