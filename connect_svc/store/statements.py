"""Set-based statements: one a table, whatever the size of the batch, columns as binary arrays."""

from collections.abc import Sequence
from typing import Any, LiteralString

from mesh.db import Connection, driver


async def execute(
    connection: Connection, statement: LiteralString, rows: Sequence[tuple[Any, ...]]
) -> int:
    """Runs a statement that takes each column of `rows` as an array; returns the rows affected.

    Does nothing when there is no row.
    """
    if not rows:
        return 0
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(statement, columns(rows))
        return cursor.rowcount


async def fetch(connection: Connection, statement: LiteralString, *parameters: Any) -> list[Any]:
    """Runs a query with binary parameters and returns its rows as tuples."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(statement, parameters)
        return await cursor.fetchall()


def columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """Rows as columns; there must be a row."""
    return [list(column) for column in zip(*rows, strict=True)]
