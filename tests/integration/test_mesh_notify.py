"""A notification wakes the waiter, at commit, also after the connection was lost."""

import asyncio

import pytest
from sqlalchemy import text

from mesh.db import Connection, Database
from mesh.notify import Notifications, notify

KILL_LISTENERS = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND query LIKE 'LISTEN%'"
)


async def send(database: Database, channel: str = "feed") -> None:
    await database.run(lambda c: notify(c, channel))


async def test_a_wait_ends_with_the_commit_of_a_notification(database_url: str) -> None:
    async with (
        Database(database_url, application_name="test") as database,
        Notifications(database_url, "feed") as notifications,
    ):
        assert await notifications.wait(5), "connecting is news"
        async with database.transaction() as connection:
            await notify(connection, "feed")
            assert not await notifications.wait(0.05)
        assert await notifications.wait(5)
        assert not await notifications.wait(0.05)


async def test_other_channels_and_rollbacks_wake_nobody(database_url: str) -> None:
    async def fail(connection: Connection) -> None:
        await notify(connection, "feed")
        raise ZeroDivisionError

    async with (
        Database(database_url, application_name="test") as database,
        Notifications(database_url, "feed") as notifications,
    ):
        assert await notifications.wait(5)
        await send(database, "other")
        with pytest.raises(ZeroDivisionError):
            await database.run(fail)
        assert not await notifications.wait(0.1)


async def test_a_lost_connection_is_replaced_and_counts_as_news(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh.notify._RECONNECT_SECONDS", 0.05)
    async with (
        Database(database_url, application_name="test") as database,
        Notifications(database_url, "feed") as notifications,
    ):
        assert await notifications.wait(5)
        async with database.transaction() as connection:
            assert (await connection.execute(KILL_LISTENERS)).scalar_one() == 1
        assert await notifications.wait(5)
        await send(database)
        assert await notifications.wait(5)


async def test_leaving_does_not_wait_for_a_database_out_of_reach() -> None:
    async with asyncio.timeout(2):
        async with Notifications("postgresql+psycopg://nobody@127.0.0.1:1/none", "feed") as lost:
            assert not await lost.wait(0.05)
