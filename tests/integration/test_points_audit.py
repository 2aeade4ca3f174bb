"""VerifyLedger: silent on a sound ledger, precise about a row that was changed by hand."""

import asyncio
from collections.abc import Callable

import pytest
from sqlalchemy import text

from devstack.postgres import Cluster
from mesh.db import Database
from points_svc.audit import verify
from points_svc.ledger import Report
from tests.integration.points_desk import (
    LedgerDatabase,
    audit,
    award,
    migrated,
    replica,
    spend,
)

UNGUARDED = (
    "SET LOCAL session_replication_role = replica",
    "ALTER TABLE accounts DROP CONSTRAINT accounts_floor_check",
)


@pytest.fixture(scope="module")
def ledger(postgres: Cluster, make_database: Callable[[], str]) -> LedgerDatabase:
    return migrated(postgres, make_database)


@pytest.fixture(autouse=True, scope="module")
def _bookings(ledger: LedgerDatabase) -> None:
    async def book() -> None:
        async with replica(ledger) as desk:
            await desk.book_many(
                [award("anna", 100), award("boris", 50), award("anna", 7, unit="XP")]
            )
            await desk.book_many([spend("anna", 30), award("anna", 5), spend("boris", 99)])

    asyncio.run(book())


async def forged(ledger: LedgerDatabase, *statements: str) -> Report:
    """What the audit says after the superuser went behind every constraint's back."""
    async with (
        Database(ledger.admin_url, application_name="mallory") as database,
        database.transaction() as connection,
    ):
        for opening in UNGUARDED:
            await connection.execute(text(opening))
        for statement in statements:
            assert (await connection.execute(text(statement))).rowcount > 0
        report = await verify(connection)
        await connection.rollback()
        return report


async def test_a_sound_ledger_has_no_findings(ledger: LedgerDatabase) -> None:
    report = await audit(ledger)
    assert report == Report(
        transactions=5,
        entries=10,
        accounts=6,
        sums={"G2A": 0, "XP": 0},
        awarded={"G2A": 155, "XP": 7},
        findings=[],
        lots=4,
        unsealed_transactions=5,
        checks=report.checks,
    )
    assert len(report.checks) == len(set(report.checks)) > 10


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        (
            "UPDATE accounts SET posted = posted + 1 WHERE owner = 'user:anna' AND unit = 'G2A'",
            "account user:anna G2A: posted is 76 at version 3, but its 3 entries sum to 75",
        ),
        (
            "UPDATE accounts SET version = 9 WHERE owner = 'user:boris'",
            "account user:boris G2A: posted is 50 at version 9, but its 1 entries sum to 50",
        ),
        (
            "UPDATE entries SET amount = amount - 1 WHERE balance_after = 70",
            "unit G2A: its entries sum to -1 instead of 0",
        ),
        (
            "UPDATE entries SET balance_after = 71 WHERE balance_after = 70",
            "leaves 71 at version 2, after 100 at version 1",
        ),
        (
            "UPDATE entries SET account_version = 8 WHERE balance_after = 75",
            "leaves 75 at version 8, after 70 at version 2",
        ),
        (
            "UPDATE transactions SET amount = 51 WHERE user_id = 'boris'",
            "it says 51 G2A but its entries credit 50",
        ),
        (
            "DELETE FROM transactions WHERE user_id = 'boris'",
            "entry 0: transaction or account is missing",
        ),
        (
            "DELETE FROM entries WHERE balance_after = 70",
            "account user:anna G2A: entry",
        ),
        (
            "UPDATE accounts SET held = 80 WHERE owner = 'user:anna' AND unit = 'G2A'",
            "account user:anna G2A: -5 is available, below its floor of 0",
        ),
        (
            "UPDATE lots SET remaining = 69 WHERE remaining = 70",
            "69 remains, but it was made with 100 and changes sum to -30",
        ),
        (
            "UPDATE lots SET remaining = 69 WHERE remaining = 70",
            "account user:anna G2A: posted is 75, but its lots hold 74",
        ),
        (
            "UPDATE lots SET held = 1 WHERE remaining = 70",
            "1 is held, active holds reserve 0 of it",
        ),
        (
            "UPDATE accounts SET held = 1 WHERE owner = 'user:anna' AND unit = 'G2A'",
            "account user:anna G2A: 1 is held, its active holds reserve 0",
        ),
        (
            "DELETE FROM lot_changes",
            "its entries change user:anna G2A by -30, but its lot changes by 0",
        ),
        (
            "INSERT INTO reversals SELECT transaction_id, amount, 1 FROM transactions"
            " WHERE user_id = 'boris'",
            "over 50: its reversals sum to 0 and are counted as 1",
        ),
    ],
)
async def test_a_row_changed_by_hand_is_named(
    ledger: LedgerDatabase, statement: str, finding: str
) -> None:
    findings = (await forged(ledger, statement)).findings
    assert any(finding in sentence for sentence in findings), findings


async def test_a_forged_amount_names_its_transaction(ledger: LedgerDatabase) -> None:
    [(transaction_id,)] = ledger.query("SELECT transaction_id FROM entries WHERE amount = 30")
    report = await forged(ledger, "UPDATE entries SET amount = 31 WHERE amount = 30")
    assert f"transaction {transaction_id}: its entries sum to 1 G2A instead of 0" in report.findings


async def test_sums_beyond_int64_are_still_reported(ledger: LedgerDatabase) -> None:
    report = await forged(ledger, f"UPDATE entries SET amount = {2**63 - 1} WHERE amount > 0")
    assert report.sums["G2A"] == 2**63 - 1
    assert report.findings


async def test_findings_are_bounded(ledger: LedgerDatabase) -> None:
    report = await forged(
        ledger,
        "INSERT INTO accounts (owner, unit, posted, held, version, floor)"
        " SELECT 'user:' || n, 'G2A', 1, 0, 0, 0 FROM generate_series(1, 150) AS n",
    )
    assert len(report.findings) == 100
