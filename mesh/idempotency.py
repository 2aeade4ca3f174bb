"""Request ids remembered for ever (AIP-155): the same request gets the first answer again.

Only effects are remembered, in the transaction that made them; a refusal leaves no trace and is
evaluated anew. The table stays narrow and unpartitioned: uniqueness must hold for ever.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message
from psycopg import sql
from sqlalchemy import Column, LargeBinary, MetaData, Table, Text

from mesh.db import Connection, RetryTransaction, driver
from mesh.errors import RequestIdReused

_FINGERPRINT_VERSION = b"\x01"
ANY_INPUT = b""
"""In the place of a fingerprint it is equal to all: to recall an answer by the request id alone, or
to remember one, a tombstone, for a request that has yet to come."""


@dataclass(frozen=True)
class Key:
    """One use of a request id.

    `scope` is caller and method, `f"{caller}:{method}"`, so that callers cannot disturb each
    other; `fingerprint` is the hash of the input.
    """

    scope: str
    request_id: str
    fingerprint: bytes


def fingerprint(message: Message) -> bytes:
    """The versioned hash of a request's content, its `request_id` aside.

    One version byte, then SHA-256 over the deterministic serialisation.
    """
    content = type(message)()
    content.CopyFrom(message)
    content.ClearField("request_id")
    digest = hashlib.sha256(content.SerializeToString(deterministic=True)).digest()
    return _FINGERPRINT_VERSION + digest


def idempotency_table(metadata: MetaData) -> Table:
    """The table of remembered requests; a service has one and only inserts and reads."""
    return Table(
        "idempotency_keys",
        metadata,
        Column("scope", Text, primary_key=True),
        Column("request_id", Text, primary_key=True),
        Column("fingerprint", LargeBinary, nullable=False),
        Column("response", LargeBinary, nullable=False),
    )


async def recall(
    connection: Connection, table: Table, keys: Sequence[Key]
) -> dict[Key, bytes | RequestIdReused]:
    """What is remembered of `keys`: the response's bytes, or an error to raise to the caller.

    A key that is not in the result has not been seen. The error says that its request id was used
    with another input.
    """
    if not keys:
        return {}
    statement = sql.SQL(
        "SELECT k.n, t.fingerprint, t.response"
        " FROM unnest(%b::text[], %b::text[]) WITH ORDINALITY AS k (scope, request_id, n)"
        " JOIN {table} AS t USING (scope, request_id)"
    ).format(table=sql.Identifier(table.name))
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(statement, [[k.scope for k in keys], [k.request_id for k in keys]])
        rows = await cursor.fetchall()
    seen: dict[Key, bytes | RequestIdReused] = {}
    for number, stored, response in rows:
        key = keys[number - 1]
        same = stored == key.fingerprint or ANY_INPUT in (stored, key.fingerprint)
        seen[key] = response if same else RequestIdReused(request_id=key.request_id)
    return seen


async def remember(
    connection: Connection, table: Table, entries: Sequence[tuple[Key, bytes]]
) -> None:
    """Stores the responses of requests that took effect in this transaction.

    Each (scope, request id) may occur once; collapse repetitions first. Raises `RetryTransaction`
    when another transaction stored one of them meanwhile: its answer is then the first one.
    """
    if not entries:
        return
    # Sorted, so that two batches with keys in common wait for each other instead of deadlocking.
    ordered = sorted(entries, key=lambda entry: (entry[0].scope, entry[0].request_id))
    if len({(key.scope, key.request_id) for key, _ in ordered}) != len(ordered):
        raise ValueError("a request id occurs twice in one batch; collapse repetitions first")
    statement = sql.SQL(
        "INSERT INTO {table} (scope, request_id, fingerprint, response)"
        " SELECT * FROM unnest(%b::text[], %b::text[], %b::bytea[], %b::bytea[])"
        " ON CONFLICT DO NOTHING"
    ).format(table=sql.Identifier(table.name))
    columns = [
        [key.scope for key, _ in ordered],
        [key.request_id for key, _ in ordered],
        [key.fingerprint for key, _ in ordered],
        [response for _, response in ordered],
    ]
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(statement, columns)
        if cursor.rowcount != len(ordered):
            raise RetryTransaction
