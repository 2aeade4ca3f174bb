"""What the database itself refuses, whoever asks."""

from collections.abc import Callable

import psycopg
import pytest
from psycopg import errors as pg

from devstack.postgres import Cluster
from mesh.migrate import drift
from points_svc.tables import metadata
from tests.integration.points_desk import LedgerDatabase, award, migrated, replica


@pytest.fixture(scope="module")
def ledger(postgres: Cluster, make_database: Callable[[], str]) -> LedgerDatabase:
    return migrated(postgres, make_database)


@pytest.fixture(autouse=True)
async def _bookings(ledger: LedgerDatabase) -> None:
    async with replica(ledger) as desk:
        await desk.book(award("anna", 5, request_id="the-one"))
        await desk.book(award("anna", 5, request_id="the-other", unit="XP"))


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.rollback()


def test_migrations_make_the_tables_as_declared(ledger: LedgerDatabase) -> None:
    assert drift(metadata, ledger.admin_url) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET amount = 1",
        "DELETE FROM entries",
        "TRUNCATE entries",
        "UPDATE transactions SET reason = 'other'",
        "DELETE FROM transactions",
        "UPDATE lots SET amount = 100",
        "DELETE FROM lots",
        "DELETE FROM lot_changes",
        "UPDATE holds SET amount = 1",
        "DELETE FROM seals",
        "UPDATE seals SET hash = ''",
        "UPDATE idempotency_keys SET response = ''",
        "DELETE FROM idempotency_keys",
        "DELETE FROM accounts",
        "UPDATE accounts SET owner = 'user:mallory'",
        "INSERT INTO units VALUES ('DOGE', 'Much')",
    ],
)
def test_the_service_may_not(ledger: LedgerDatabase, statement: str) -> None:
    with pytest.raises(pg.InsufficientPrivilege):
        execute(ledger.app_url, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET amount = 1",
        "DELETE FROM entries",
        "TRUNCATE entries",
        "UPDATE transactions SET reason = 'other'",
        "DELETE FROM idempotency_keys",
        "DELETE FROM accounts",
    ],
)
def test_history_holds_against_its_owner_too(ledger: LedgerDatabase, statement: str) -> None:
    with pytest.raises(pg.RestrictViolation, match="append-only"):
        execute(ledger.admin_url, statement)


def test_a_user_cannot_be_taken_below_zero(ledger: LedgerDatabase) -> None:
    with pytest.raises(pg.CheckViolation, match="accounts_floor_check"):
        execute(ledger.app_url, "UPDATE accounts SET posted = -1 WHERE owner = 'user:anna'")


def test_a_user_cannot_be_without_a_floor(ledger: LedgerDatabase) -> None:
    with pytest.raises(pg.CheckViolation, match="accounts_has_floor_check"):
        execute(
            ledger.app_url,
            "INSERT INTO accounts (owner, unit, posted, held, version)"
            " VALUES ('user:free', 'G2A', 0, 0, 0)",
        )


@pytest.mark.parametrize(
    "columns",
    [
        "transaction_id, ordinal + 2, account_id, abs(amount), 1, 99",
        "transaction_id, ordinal + 2, account_id + 1000, -amount, 1, 99",
        "uuidv7(), ordinal + 2, account_id, -amount, 1, 99",
        "transaction_id, ordinal + 2, 5 - account_id, -amount, 1, 99",
    ],
    ids=["do not sum to zero", "without account", "without transaction", "of another unit"],
)
def test_unsound_entries_are_refused(ledger: LedgerDatabase, columns: str) -> None:
    with pytest.raises(pg.CheckViolation, match="do not sum to zero, or its account is missing"):
        execute(ledger.app_url, f"INSERT INTO entries SELECT {columns} FROM entries")


def test_an_account_version_cannot_be_used_twice(ledger: LedgerDatabase) -> None:
    with pytest.raises(pg.UniqueViolation):
        execute(
            ledger.app_url,
            "INSERT INTO entries SELECT transaction_id, ordinal + 2, account_id, -amount,"
            " balance_after, account_version FROM entries",
        )
