"""What the ledger's tests share: a migrated ledger, replicas that write to it, orders for them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from itertools import count
from typing import Any

from devstack.postgres import Cluster
from mesh.db import Database
from mesh.idempotency import Key
from mesh.migrate import migrate
from points_svc.audit import verify
from points_svc.ledger import Account, Instruction, Kind, Report, user_account
from points_svc.posting import Desk, Order
from points_svc.store.reading import Reader

_numbers = count(1)


@dataclass(frozen=True)
class LedgerDatabase:
    """An empty ledger: `app_url` as the service sees it, `query` as the superuser does."""

    cluster: Cluster
    name: str

    @property
    def app_url(self) -> str:
        return self.cluster.url(self.name, "points_app")

    @property
    def admin_url(self) -> str:
        return self.cluster.url(self.name)

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.cluster.connect(self.name) as connection:
            return connection.execute(statement, values).fetchall()


def migrated(cluster: Cluster, make_database: Callable[[], str]) -> LedgerDatabase:
    """A new ledger."""
    ledger = LedgerDatabase(cluster, make_database())
    asyncio.run(migrate("points_svc", ledger.admin_url))
    return ledger


@asynccontextmanager
async def replica(ledger: LedgerDatabase) -> AsyncIterator[Desk]:
    """The booking half of one service process."""
    async with (
        Database(ledger.app_url, application_name="points") as database,
        Desk(database) as desk,
    ):
        yield desk


async def balance(ledger: LedgerDatabase, user_id: str, unit: str = "G2A") -> Account:
    """A user's account, read as the service reads it."""
    async with (
        Database(ledger.app_url, application_name="points") as database,
        database.transaction(read_only=True) as connection,
    ):
        [found] = await Reader(connection).balances([user_account(user_id, unit)], unit)
        return found.account


async def audit(ledger: LedgerDatabase) -> Report:
    """What VerifyLedger would say."""
    async with (
        Database(ledger.app_url, application_name="points") as database,
        database.transaction(isolation="REPEATABLE READ") as connection,
    ):
        return await verify(connection)


def award(user_id: str, amount: int, **rest: Any) -> Order:
    """An order to award, under a request id of its own unless given one."""
    return _order(Kind.AWARD, user_id, amount, **rest)


def spend(user_id: str, amount: int, **rest: Any) -> Order:
    """An order to spend, under a request id of its own unless given one."""
    return _order(Kind.SPEND, user_id, amount, **rest)


def _order(
    kind: Kind,
    user_id: str,
    amount: int,
    *,
    request_id: str = "",
    unit: str = "G2A",
    reason: str = "test",
    effective_time: datetime | None = None,
) -> Order:
    request_id = request_id or f"request-{next(_numbers)}"
    instruction = Instruction(
        kind, request_id, user_id, unit, amount, reason, "", {"why": "test"}, effective_time
    )
    fingerprint = sha256(repr(instruction).encode()).digest()
    return Order(Key(f"connect/connect:{kind}", request_id, fingerprint), instruction)
