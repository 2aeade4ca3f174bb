"""Orders and operations, for the RPCs: set-based, columns travel as arrays in binary form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb
from sqlalchemy import RowMapping, func, select

from chain_gateway.operations import Content, Operation, Order, Placement, Standing, State
from chain_gateway.tables import callbacks, idempotency_keys, operations, wallets
from mesh import idempotency
from mesh.db import Connection, RetryTransaction, driver
from mesh.errors import RequestIdReused
from mesh.idempotency import Key

# Sorted, so that two batches with users in common wait for each other instead of deadlocking.
_ADMIT_USERS = """
INSERT INTO users (user_id)
SELECT k.user_id FROM unnest(%s::text[]) AS k (user_id) LEFT JOIN users USING (user_id)
WHERE users.user_id IS NULL
ORDER BY k.user_id
ON CONFLICT DO NOTHING
"""

_LOCK_USERS = """
SELECT user_id, wallet_address FROM users WHERE user_id = ANY (%s) ORDER BY user_id FOR SHARE
"""

_INSERT = """
INSERT INTO operations (operation_id, request_id, mint_id, user_id, content, state)
SELECT * FROM unnest(%s::uuid[], %s::text[], %s::uuid[], %s::text[], %s::jsonb[], %s::smallint[])
ON CONFLICT (mint_id) DO NOTHING
"""

# In the order of the parameters of `_standing`.
_STANDING_COLUMNS = (
    "operation_id", "mint_id", "state", "version", "collection_address", "item_index",
    "item_address", "owner_address", "failure_reason", "retryable",
)  # fmt: skip
_STANDINGS = sql.SQL("SELECT {} FROM operations WHERE operation_id = ANY (%s::uuid[])").format(
    sql.SQL(", ").join(map(sql.Identifier, _STANDING_COLUMNS))
)


@dataclass(frozen=True, slots=True)
class Admission:
    """An order that is taken, under which key, as which operation, and how it begins."""

    key: Key
    operation_id: str
    order: Order
    state: State


@dataclass(frozen=True, slots=True)
class Status:
    """How the Gateway fares, as its leader last wrote it down; `led` is False without a leader."""

    wallet_address: str
    balance: int
    masterchain_seqno: int
    masterchain_time: datetime | None
    paused_reason: str
    led: bool
    operations: Mapping[State, int]
    callbacks_waiting: int


class OrderStore:
    """Takes orders and reads operations."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock_users(self, user_ids: Sequence[str]) -> dict[str, str | None]:
        """The linked wallet of each user; no link changes until this transaction ends."""
        wanted = sorted(set(user_ids))
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_ADMIT_USERS, [wanted])
            await cursor.execute(_LOCK_USERS, [wanted])
            return dict(await cursor.fetchall())

    async def recall(self, keys: Sequence[Key]) -> dict[Key, str | RequestIdReused]:
        """The operation id that each known key got."""
        seen = await idempotency.recall(self._connection, idempotency_keys, keys)
        return {
            key: answer if isinstance(answer, RequestIdReused) else answer.decode()
            for key, answer in seen.items()
        }

    async def ordered(self, mint_ids: Sequence[str]) -> dict[str, str]:
        """The operation id of each mint id that was ordered before."""
        found = await self._connection.execute(
            select(operations.c.mint_id, operations.c.operation_id).where(
                operations.c.mint_id.in_(mint_ids)
            )
        )
        return {row.mint_id: row.operation_id for row in found}

    async def admit(self, admissions: Sequence[Admission]) -> None:
        """Stores operations and their keys; raises `RetryTransaction` when a rival was faster."""
        if not admissions:
            return
        columns: list[list[Any]] = [
            [admission.operation_id for admission in admissions],
            [admission.order.request_id for admission in admissions],
            [admission.order.mint_id for admission in admissions],
            [admission.order.user_id for admission in admissions],
            [Jsonb(_content_columns(admission.order.content)) for admission in admissions],
            [int(admission.state) for admission in admissions],
        ]
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_INSERT, columns)
            if cursor.rowcount != len(admissions):
                raise RetryTransaction
        answers = [(admission.key, admission.operation_id.encode()) for admission in admissions]
        await idempotency.remember(self._connection, idempotency_keys, answers)

    async def operations(self, operation_ids: Sequence[str]) -> dict[str, Operation]:
        """Operations by id; unknown ids are missing."""
        rows = await self._connection.execute(
            select(operations).where(operations.c.operation_id.in_(operation_ids))
        )
        return {row["operation_id"]: _operation(row) for row in rows.mappings()}

    async def standings(self, operation_ids: Sequence[str]) -> list[Standing]:
        """Where operations stand, without what was ordered."""
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_STANDINGS, [operation_ids])
            return [_standing(*row) for row in await cursor.fetchall()]

    async def page(self, state: State | None, after: str | None, size: int) -> list[Operation]:
        """Up to `size` operations behind id `after`, by id."""
        statement = select(operations).order_by(operations.c.operation_id).limit(size)
        if state is not None:
            statement = statement.where(operations.c.state == state)
        if after is not None:
            statement = statement.where(operations.c.operation_id > after)
        return [_operation(row) for row in (await self._connection.execute(statement)).mappings()]

    async def status(self, wallet_address: str) -> Status:
        """How the Gateway fares."""
        led = func.coalesce(wallets.c.lease_expire_time > func.now(), False).label("led")
        found = await self._connection.execute(
            select(wallets, led).where(wallets.c.address == wallet_address)
        )
        row: dict[str, Any] = dict(found.mappings().one_or_none() or {})
        states = await self._connection.execute(
            select(operations.c.state, func.count()).group_by(operations.c.state)
        )
        waiting = await self._connection.scalar(
            select(func.count()).select_from(callbacks).where(callbacks.c.dead_reason.is_(None))
        )
        return Status(
            wallet_address,
            row.get("balance", 0),
            row.get("masterchain_seqno", 0),
            row.get("masterchain_time"),
            row.get("paused_reason", ""),
            row.get("led", False),
            {State(state): count for state, count in states},
            waiting or 0,
        )


def _content_columns(content: Content) -> dict[str, Any]:
    return {
        "name": content.name,
        "description": content.description,
        "image": content.image,
        "attributes": content.attributes,
    }


def stored_content(column: Mapping[str, Any]) -> Content:
    """Content as the column `operations.content` holds it."""
    attributes = tuple((kind, value) for kind, value in column["attributes"])
    return Content(column["name"], column["description"], column["image"], attributes)


def _operation(row: RowMapping) -> Operation:
    return Operation(
        order=Order(
            row["request_id"], row["mint_id"], row["user_id"], stored_content(row["content"])
        ),
        standing=_standing(*(row[column] for column in _STANDING_COLUMNS)),
        query_id=row["query_id"],
        create_time=row["create_time"],
        update_time=row["update_time"],
    )


def _standing(
    operation_id: object,
    mint_id: object,
    state: int,
    version: int,
    collection: str,
    index: int,
    address: str | None,
    owner: str,
    failure_reason: str,
    retryable: bool,
) -> Standing:
    return Standing(
        operation_id=str(operation_id),
        mint_id=str(mint_id),
        state=State(state),
        version=version,
        placement=None if address is None else Placement(collection, index, address, owner),
        failure_reason=failure_reason,
        retryable=retryable,
    )
