"""What falls due together is settled without a pause, and around what cannot be settled."""

from collections.abc import AsyncIterator, Callable

import pytest

from devstack.postgres import Cluster
from mesh.clock import new_id
from mesh.db import Database
from points_svc.ledger import MAX_BALANCE
from points_svc.posting import Desk
from points_svc.store.history import transactions_by_id
from points_svc.upkeep import DUE_AT_ONCE, Expiry
from tests.integration.points_desk import LedgerDatabase, audit, award, balance, migrated, replica


@pytest.fixture
def ledger(postgres: Cluster, make_database: Callable[[], str]) -> LedgerDatabase:
    return migrated(postgres, make_database)


@pytest.fixture
async def desk(ledger: LedgerDatabase) -> AsyncIterator[Desk]:
    async with replica(ledger) as desk:
        yield desk


@pytest.fixture
async def database(ledger: LedgerDatabase) -> AsyncIterator[Database]:
    async with Database(ledger.app_url, application_name="points") as database:
        yield database


def let_expire(ledger: LedgerDatabase) -> None:
    ledger.query("UPDATE lots SET expire_time = now() - interval '1 day' RETURNING 1")


async def passes(expiry: Expiry) -> int:
    """How often the upkeep would go on without a pause."""
    count = 0
    while await expiry.settle_due():
        count += 1
    return count


async def test_many_lots_of_one_account_do_not_look_like_little_work(
    ledger: LedgerDatabase, desk: Desk, database: Database
) -> None:
    await desk.book_many([award("hoarder", 1) for _ in range(DUE_AT_ONCE + 1)])
    await desk.book_many([award(f"user-{number}", 1) for number in range(5)])
    let_expire(ledger)
    assert await passes(Expiry(database)) > 0
    assert ledger.query("SELECT 1 FROM lots WHERE open") == []
    assert (await audit(ledger)).findings == []


async def test_an_account_that_cannot_be_settled_keeps_no_other_waiting(
    ledger: LedgerDatabase, desk: Desk, database: Database
) -> None:
    await desk.book_many([award("stuck", 1, unit="XP") for _ in range(DUE_AT_ONCE + 1)])
    await desk.book_many([award(f"user-{number}", 1) for number in range(5)])
    ledger.query(
        "INSERT INTO accounts (owner, unit, posted, held, version)"
        " VALUES ('system:expiry', 'XP', %s, 0, 0) RETURNING 1",
        MAX_BALANCE,
    )
    let_expire(ledger)
    expiry = Expiry(database)
    assert await passes(expiry) > 0
    assert (await balance(ledger, "user-0")).posted == 0
    assert (await balance(ledger, "stuck", "XP")).posted == DUE_AT_ONCE + 1
    ledger.query("UPDATE accounts SET posted = 0 WHERE owner = 'system:expiry' RETURNING 1")
    assert await passes(expiry) > 0, "it is tried again"
    assert (await balance(ledger, "stuck", "XP")).posted == 0


async def test_more_transactions_can_be_read_than_a_statement_has_parameters(
    database: Database,
) -> None:
    async with database.transaction(read_only=True) as connection:
        assert await transactions_by_id(connection, [new_id() for _ in range(70_000)]) == {}
