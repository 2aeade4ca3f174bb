"""Transactions on a real Postgres: contention is repeated, a restart is forgiven."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.db import Connection, Database, RetryTransaction, driver
from mesh.errors import Conflict, Overloaded, Unavailable, Unstorable


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, application_name="test", pool_size=3) as database:
        async with database.transaction() as connection:
            await connection.execute(text("DROP TABLE IF EXISTS counters"))
            await connection.execute(text("CREATE TABLE counters (id int PRIMARY KEY, n int)"))
            await connection.execute(text("INSERT INTO counters VALUES (1, 0), (2, 0)"))
        yield database


async def total(database: Database) -> int:
    async with database.transaction(read_only=True) as connection:
        found: int = (await connection.execute(text("SELECT sum(n) FROM counters"))).scalar_one()
        return found


async def add(connection: Connection, counter: int) -> None:
    await connection.execute(text("UPDATE counters SET n = n + 1 WHERE id = :id"), {"id": counter})


async def test_the_drivers_connection_shares_the_transaction(database: Database) -> None:
    async def work(connection: Connection) -> None:
        await add(connection, 1)
        async with driver(connection).cursor(binary=True) as cursor:
            await cursor.execute("UPDATE counters SET n = n + 10")
            await cursor.execute("SELECT sum(n) FROM counters")
            assert await cursor.fetchone() == (21,)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.run(work)
    assert await total(database) == 0


async def test_deadlocks_are_repeated_until_both_succeed(database: Database) -> None:
    meeting = asyncio.Barrier(2)
    tries = 0

    async def transfer(first: int, second: int) -> None:
        async def work(connection: Connection) -> None:
            nonlocal tries
            tries += 1
            await add(connection, first)
            if tries <= 2:
                await meeting.wait()
            await add(connection, second)

        await database.run(work)

    await asyncio.gather(transfer(1, 2), transfer(2, 1))
    assert tries == 3
    assert await total(database) == 4


async def test_endless_contention_becomes_a_conflict(database: Database) -> None:
    tries = 0

    async def work(connection: Connection) -> None:
        nonlocal tries
        tries += 1
        await add(connection, 1)
        raise RetryTransaction

    with pytest.raises(Conflict):
        await database.run(work)
    assert tries == 5
    assert await total(database) == 0


async def test_a_serialization_failure_of_a_single_transaction_is_a_conflict(
    database: Database,
) -> None:
    async def lose() -> None:
        async with database.transaction(isolation="SERIALIZABLE") as mine:
            await mine.execute(text("SELECT * FROM counters"))
            await database.run(lambda other: add(other, 1))
            await add(mine, 1)

    with pytest.raises(Conflict):
        await lose()


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize(
    ("statement", "parameter"),
    [
        ("SELECT %s::text", "a\0"),
        ("SELECT %s::text[]", ["a", "\0"]),
        ("SELECT %s::jsonb", '{"a": "\\u0000"}'),
    ],
)
async def test_a_text_that_postgres_cannot_store_says_so(
    database: Database, statement: str, parameter: object, binary: bool
) -> None:
    async def work(connection: Connection) -> None:
        await driver(connection).cursor(binary=binary).execute(statement, [parameter])

    with pytest.raises(Unstorable):
        await database.run(work)


async def test_another_mistake_in_a_statement_stays_one(database: Database) -> None:
    with pytest.raises(DBAPIError):
        await database.run(lambda c: c.execute(text("SELECT 'x'::int")))


async def test_a_read_only_transaction_does_not_leave_its_mark_on_the_pool(
    database: Database,
) -> None:
    for _ in range(5):
        await total(database)
        await database.run(lambda connection: add(connection, 1))
    assert await total(database) == 5


async def test_an_exhausted_pool_says_so(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.db._POOL_WAIT_SECONDS", 0.05)
    async with (
        Database(database_url, application_name="test", pool_size=1) as database,
        database.transaction(),
    ):
        with pytest.raises(Overloaded):
            await database.ping()


@pytest.mark.parametrize("through_the_driver", [False, True])
async def test_a_killed_connection_is_unavailable_once(
    database: Database, through_the_driver: bool
) -> None:
    suicide = "SELECT pg_terminate_backend(pg_backend_pid())"

    async def work(connection: Connection) -> None:
        if through_the_driver:
            await driver(connection).execute(suicide)
        else:
            await connection.execute(text(suicide))

    with pytest.raises(Unavailable):
        await database.run(work)
    await database.ping()


async def test_a_postgres_restart_is_forgiven(tmp_path_factory: pytest.TempPathFactory) -> None:
    cluster = Cluster(Path(tmp_path_factory.mktemp("restarted")), free_port())
    cluster.start()
    try:
        async with Database(cluster.url(), application_name="test", pool_size=4) as database:
            await asyncio.gather(*(database.ping() for _ in range(4)))
            await asyncio.to_thread(cluster.stop)
            await asyncio.to_thread(cluster.start)
            await asyncio.gather(*(database.ping() for _ in range(8)))
            await asyncio.to_thread(cluster.stop)
            with pytest.raises(Unavailable):
                await database.ping()
    finally:
        cluster.stop()
