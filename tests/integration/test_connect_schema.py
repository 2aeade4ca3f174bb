"""What the database itself refuses, whoever asks."""

from collections.abc import Callable

import psycopg
import pytest
from psycopg import errors as pg

from connect_svc.tables import metadata
from devstack.postgres import Cluster
from mesh.migrate import drift
from tests.integration.connect_replica import (
    ConnectDatabase,
    migrated,
    replica,
    rule,
    submission,
)


@pytest.fixture(scope="module")
def made(make_database: Callable[[], str]) -> str:
    return make_database()


@pytest.fixture
async def connect(postgres: Cluster, made: str) -> ConnectDatabase:
    """One database for the module, with a rule, an event and an action in it."""
    connect = await migrated(postgres, lambda: made)
    async with replica(connect) as one:
        if connect.count("rule_versions") == 0:
            await one.create(rule("quest-reward"))
        await one.intake.submit(submission(external_id="the-one"))
    return connect


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        connection.execute(statement.encode())
        connection.rollback()


def test_migrations_make_the_tables_as_declared(connect: ConnectDatabase) -> None:
    assert drift(metadata, connect.admin_url) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor_user_id = 'mallory'",
        "DELETE FROM events",
        "TRUNCATE events",
        "UPDATE event_keys SET fingerprint = ''",
        "DELETE FROM event_keys",
        "UPDATE evaluations SET outcomes = '[]'",
        "DELETE FROM evaluations",
        "UPDATE event_reversals SET reason = ''",
        "DELETE FROM reversed_arrivals",
        "UPDATE rule_versions SET definition = ''",
        "DELETE FROM rule_versions",
        "DELETE FROM rule_catalog",
        "INSERT INTO rule_catalog VALUES (false, 0)",
        "UPDATE idempotency_keys SET response = ''",
        "DELETE FROM reward_actions",
        "UPDATE reward_actions SET recipient_user_id = 'mallory'",
        "UPDATE reward_actions SET command = '{}'",
        "UPDATE reward_actions SET variant = 'other'",
        "DELETE FROM limit_counters",
        "UPDATE limit_charges SET amount = 0",
        "DELETE FROM limit_charges",
        "DELETE FROM variant_assignments",
    ],
)
def test_the_service_may_not(connect: ConnectDatabase, statement: str) -> None:
    with pytest.raises(pg.InsufficientPrivilege):
        execute(connect.app_url, statement)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE events SET actor_user_id = 'mallory'",
        "DELETE FROM event_keys",
        "TRUNCATE evaluations",
        "UPDATE rule_versions SET state = 'STATE_DRAFT'",
        "DELETE FROM idempotency_keys",
    ],
)
def test_history_holds_against_its_owner_too(connect: ConnectDatabase, statement: str) -> None:
    with pytest.raises(pg.RestrictViolation, match="append-only"):
        execute(connect.admin_url, statement)


def test_there_is_one_catalogue(connect: ConnectDatabase) -> None:
    with pytest.raises(pg.UniqueViolation):
        execute(connect.admin_url, "INSERT INTO rule_catalog (version) VALUES (9)")
    with pytest.raises(pg.CheckViolation):
        execute(connect.admin_url, "INSERT INTO rule_catalog VALUES (false, 9)")


def test_a_counter_is_never_below_zero(connect: ConnectDatabase) -> None:
    with pytest.raises(pg.CheckViolation):
        execute(connect.app_url, "INSERT INTO limit_counters VALUES ('r', '', 'campaign', '', -1)")


def test_an_action_has_a_known_state(connect: ConnectDatabase) -> None:
    with pytest.raises(pg.CheckViolation):
        execute(connect.app_url, "UPDATE reward_actions SET state = 'LOST'")
