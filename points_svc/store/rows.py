"""Rows as the ledger's terms, and the ledger's terms as columns."""

import json
from collections.abc import Collection, Sequence
from typing import Any, LiteralString

from sqlalchemy import ARRAY, Column, ColumnElement, Row, any_, literal

from mesh.db import Connection, driver
from points_svc.ledger import (
    AccountKey,
    Entry,
    Hold,
    HoldState,
    Instruction,
    Kind,
    Lot,
    LotChange,
    LotId,
    Reservation,
    Transaction,
)


async def execute(connection: Connection, statement: LiteralString, *columns: Any) -> None:
    """Runs set-based SQL whose parameters travel in binary form."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(statement, columns)


async def fetch(connection: Connection, statement: LiteralString, *columns: Any) -> list[Any]:
    """The rows of set-based SQL whose parameters and results travel in binary form."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(statement, columns)
        return await cursor.fetchall()


def columns(rows: Collection[tuple[Any, ...]], count: int) -> list[list[Any]]:
    """Rows as `count` columns, also when there is no row."""
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(count)]


def among(column: Column[Any], values: Collection[Any]) -> ColumnElement[bool]:
    """Whether a column has one of these values; they are one parameter, however many they are."""
    return column == any_(literal(list(values), ARRAY(column.type)))


def transaction_row(made: Transaction) -> tuple[Any, ...]:
    """A transaction as the columns of its table."""
    asked = made.instruction
    return (
        made.transaction_id,
        asked.request_id,
        asked.kind.value,
        asked.user_id,
        asked.recipient,
        asked.unit,
        asked.amount,
        asked.reason,
        asked.reference,
        json.dumps(dict(asked.metadata)) if asked.metadata else "{}",
        made.effective_time,
        made.booked_time,
        asked.reverses,
        asked.hold_id,
    )


def transaction(
    row: Row[Any], entries: Sequence[Entry], lot_changes: Sequence[LotChange]
) -> Transaction:
    """A stored transaction with what belongs to it."""
    instruction = Instruction(
        Kind(row.kind),
        row.request_id,
        row.user_id,
        row.unit,
        row.amount,
        row.reason,
        row.reference,
        row.metadata,
        row.effective_time,
        recipient=row.recipient,
        reverses=row.reverses,
        hold_id=row.hold_id,
    )
    return Transaction(
        row.transaction_id,
        instruction,
        row.effective_time,
        row.booked_time,
        tuple(entries),
        tuple(sorted(lot_changes)),
    )


def lot(row: Sequence[Any], account: AccountKey) -> Lot:
    """A stored lot: transaction id, number, amount, remaining, held, expiry."""
    transaction_id, ordinal, amount, remaining, held, expire_time = row
    return Lot((transaction_id, ordinal), account, amount, remaining, held, expire_time)


def lot_ids(lots: Collection[LotId]) -> list[list[Any]]:
    """Lot ids as two columns."""
    return columns(lots, 2)


def hold(row: Row[Any], lots: Sequence[Reservation]) -> Hold:
    """A stored hold with what it reserves."""
    return Hold(
        row.hold_id,
        row.request_id,
        row.user_id,
        row.unit,
        row.amount,
        row.captured,
        HoldState(row.state),
        row.reason,
        row.reference,
        row.placed_time,
        row.expire_time,
        row.closed_time,
        tuple(sorted(lots)),
    )
