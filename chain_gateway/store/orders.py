"""Orders and operations, for the RPCs: set-based, columns travel as arrays in binary form."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql
from sqlalchemy import func, select

from chain_gateway.operations import Operation, Standard, Standing, State
from chain_gateway.store.rows import (
    NEW_COLUMNS,
    STANDING_COLUMNS,
    Admission,
    OrderedItem,
    new_row,
    operation,
    placement,
    standing,
)
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
SELECT user_id, wallet_address FROM users WHERE user_id = ANY (%s) ORDER BY user_id FOR {}
"""
_SHARED, _ALONE = _LOCK_USERS.format("SHARE"), _LOCK_USERS.format("NO KEY UPDATE")

# What did not go out counts no more; the day is the one in UTC, as the session's time zone is.
_SENT_TODAY = """
SELECT user_id, sum(amount)::bigint FROM operations
WHERE kind = 2 AND user_id = ANY (%s) AND state NOT IN (7, 8)
    AND create_time >= date_trunc('day', now())
GROUP BY user_id
"""

# The mint's row is locked, so that its changes are taken one after the other, and so that its item
# does not appear between this look and the change's insertion.
_LOCK_ITEMS = """
SELECT mint_id, user_id, standard, state, collection_address, item_index, item_address,
    owner_address
FROM operations WHERE kind = 1 AND mint_id = ANY (%s::uuid[])
ORDER BY operation_id FOR NO KEY UPDATE
"""

# Milliseconds of the database's clock: even a database that lost its past goes on above what the
# items on the chain already have.
_NEXT_VERSIONS = """
SELECT k.mint_id, greatest(
    1 + (SELECT max(item_version) FROM operations WHERE item_mint_id = k.mint_id AND kind >= 3),
    (extract(epoch FROM clock_timestamp()) * 1000)::bigint
) FROM unnest(%s::uuid[]) AS k (mint_id)
"""

_INSERT = (
    f"INSERT INTO operations ({', '.join(NEW_COLUMNS)})"
    f" SELECT * FROM unnest({', '.join(f'%b::{type_}[]' for type_ in NEW_COLUMNS.values())})"
    " ON CONFLICT DO NOTHING"
)

_STANDINGS = sql.SQL("SELECT {} FROM operations WHERE operation_id = ANY (%s::uuid[])").format(
    sql.SQL(", ").join(map(sql.Identifier, STANDING_COLUMNS))
)


NO_SENDER = "NO_SENDER"
"""Why a wallet does not send that no process leads at this moment."""


@dataclass(frozen=True, slots=True)
class WalletStatus:
    """How a wallet fares, as its leader last wrote it down."""

    address: str
    balance: int
    masterchain_seqno: int
    masterchain_time: datetime | None
    paused_reason: str


@dataclass(frozen=True, slots=True)
class Status:
    """How the Gateway fares."""

    wallets: Sequence[WalletStatus]
    operations: Mapping[State, int]
    callbacks_waiting: int


class OrderStore:
    """Takes orders and reads operations."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock_users(
        self, user_ids: Collection[str], *, alone: bool = False
    ) -> dict[str, str | None]:
        """The linked wallet of each user; no link changes until this transaction ends.

        With `alone` nobody else takes orders of these users meanwhile either.
        """
        wanted = sorted(set(user_ids))
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_ADMIT_USERS, [wanted])
            await cursor.execute(_ALONE if alone else _SHARED, [wanted])
            return dict(await cursor.fetchall())

    async def sent_today(self, user_ids: Collection[str]) -> dict[str, int]:
        """Nanoton that each user was promised since midnight UTC; those without are missing."""
        if not user_ids:
            return {}
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_SENT_TODAY, [list(user_ids)])
            return dict(await cursor.fetchall())

    async def lock_items(self, mint_ids: Collection[str]) -> dict[str, OrderedItem]:
        """The mints with these ids, locked; unknown ids are missing."""
        if not mint_ids:
            return {}
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_LOCK_ITEMS, [list(mint_ids)])
            mints = await cursor.fetchall()
            # Another statement: it sees what was committed while the first one waited.
            await cursor.execute(_NEXT_VERSIONS, [[mint_id for mint_id, *_ in mints]])
            versions = dict(await cursor.fetchall())
        return {
            str(mint_id): OrderedItem(
                user_id,
                Standard(standard),
                State(state),
                placement(collection, index, address),
                owner,
                versions[mint_id],
            )
            for mint_id, user_id, standard, state, collection, index, address, owner in mints
        }

    async def recall(self, keys: Sequence[Key]) -> dict[Key, str | RequestIdReused]:
        """The operation id that each known key got."""
        seen = await idempotency.recall(self._connection, idempotency_keys, keys)
        return {
            key: answer if isinstance(answer, RequestIdReused) else answer.decode()
            for key, answer in seen.items()
        }

    async def missing(self, operation_ids: Collection[str]) -> set[str]:
        """Those that are no operations: an order that was called off before it came has one."""
        if not operation_ids:
            return set()
        found = await self._connection.scalars(
            select(operations.c.operation_id).where(operations.c.operation_id.in_(operation_ids))
        )
        return set(operation_ids) - set(found)

    async def ordered(self, mint_ids: Collection[str]) -> dict[str, str]:
        """The operation id of each mint id that was ordered before."""
        found = await self._connection.execute(
            select(operations.c.mint_id, operations.c.operation_id).where(
                operations.c.mint_id.in_(mint_ids)
            )
        )
        return {row.mint_id: row.operation_id for row in found}

    async def admit(self, admissions: Sequence[Admission]) -> None:
        """Stores operations and new keys; raises `RetryTransaction` when a rival was faster."""
        if not admissions:
            return
        rows = [new_row(admission) for admission in admissions]
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_INSERT, [[row.get(name) for row in rows] for name in NEW_COLUMNS])
            if cursor.rowcount != len(admissions):
                raise RetryTransaction
        answers = [
            (admission.key, admission.operation_id.encode())
            for admission in admissions
            if not admission.called_off
        ]
        await idempotency.remember(self._connection, idempotency_keys, answers)

    async def operations(self, operation_ids: Sequence[str]) -> dict[str, Operation]:
        """Operations by id; unknown ids are missing."""
        rows = await self._connection.execute(
            select(operations).where(operations.c.operation_id.in_(operation_ids))
        )
        return {row["operation_id"]: operation(row) for row in rows.mappings()}

    async def standings(self, operation_ids: Sequence[str]) -> list[Standing]:
        """Where operations stand, without what was ordered."""
        async with driver(self._connection).cursor(binary=True) as cursor:
            await cursor.execute(_STANDINGS, [operation_ids])
            return [standing(*row) for row in await cursor.fetchall()]

    async def page(self, state: State | None, after: str | None, size: int) -> list[Operation]:
        """Up to `size` operations behind id `after`, by id."""
        statement = select(operations).order_by(operations.c.operation_id).limit(size)
        if state is not None:
            statement = statement.where(operations.c.state == state)
        if after is not None:
            statement = statement.where(operations.c.operation_id > after)
        return [operation(row) for row in (await self._connection.execute(statement)).mappings()]

    async def status(self, addresses: Sequence[str]) -> Status:
        """How the Gateway fares with these wallets."""
        led = func.coalesce(wallets.c.lease_expire_time > func.now(), False).label("led")
        found = await self._connection.execute(
            select(wallets, led).where(wallets.c.address.in_(addresses))
        )
        known = {row["address"]: row for row in found.mappings()}
        states = await self._connection.execute(
            select(operations.c.state, func.count()).group_by(operations.c.state)
        )
        waiting = await self._connection.scalar(
            select(func.count()).select_from(callbacks).where(callbacks.c.dead_reason.is_(None))
        )
        return Status(
            [_wallet_status(address, known.get(address, {})) for address in addresses],
            {State(state): count for state, count in states},
            waiting or 0,
        )


def _wallet_status(address: str, row: Mapping[Any, Any]) -> WalletStatus:
    return WalletStatus(
        address,
        row.get("balance", 0),
        row.get("masterchain_seqno", 0),
        row.get("masterchain_time"),
        row.get("paused_reason", "") if row.get("led", False) else NO_SENDER,
    )
