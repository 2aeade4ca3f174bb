"""Waking readers: an empty NOTIFY says "look again", and the reader then reads by order.

A notification can be lost with its connection, so a reader always polls as well. A transaction
that notifies takes a cluster-wide lock until it commits: send it after a group commit, in a
transaction of its own.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

import psycopg
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.engine import make_url

from mesh.db import Connection
from mesh.telemetry import logger

_RECONNECT_SECONDS = 1.0
_log = logger("mesh.notify")


async def notify(connection: Connection, channel: str) -> None:
    """Wakes whoever waits on `channel`, once the transaction has committed."""
    await connection.execute(text("SELECT pg_notify(:channel, '')"), {"channel": channel})


class Notifications:
    """Listens to one channel on a connection of its own, as an async context manager.

    Connects in the background and again after a loss; until then `wait` merely times out.
    """

    def __init__(self, url: str, channel: str) -> None:
        plain = make_url(url).set(drivername="postgresql")
        self._conninfo = plain.render_as_string(hide_password=False)
        self._channel = channel
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._listening = asyncio.create_task(self._listen(), name=f"listen {self._channel}")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listening.cancel()
        with suppress(asyncio.CancelledError):
            await self._listening

    async def wait(self, timeout: float) -> bool:
        """Waits up to `timeout` seconds; True when something may have changed since the last call.

        Meant for one waiter, which fans out itself.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._arrived.wait()
        arrived = self._arrived.is_set()
        self._arrived.clear()
        return arrived

    async def _listen(self) -> None:
        while True:
            try:
                await self._follow()
            except psycopg.Error as error:
                _log.warning("notify.connection_lost", channel=self._channel, error=str(error))
            except Exception:
                _log.exception("notify.failed", channel=self._channel)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def _follow(self) -> None:
        async with await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, connect_timeout=5, keepalives_idle=5
        ) as connection:
            await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(self._channel)))
            # What was sent before the LISTEN is lost, so the waiter must look for itself.
            self._arrived.set()
            async for _ in connection.notifies():
                self._arrived.set()
