"""Transactions on Postgres: what contention interrupts is repeated, what is lost says so.

SQLAlchemy Core builds the ordinary statements. Hot, set-based SQL goes through the driver's own
connection inside the same transaction (`driver`), which hands Postgres arrays in binary form.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

import psycopg
from psycopg import errors as pg
from sqlalchemy import Engine, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from mesh.clock import monotonic
from mesh.errors import Conflict, Overloaded, Unavailable, Unstorable

T = TypeVar("T")

Connection = AsyncConnection
"""A connection inside a transaction, as handed to whoever works in it."""

_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.01
_POOL_WAIT_SECONDS = 5
# No Postgres restarts within this time.
_IDLE_SECONDS = 0.1
_LAST_USED = "last used"

# A peer that vanished without a word is noticed within about 15 seconds, and a process that froze
# inside a transaction does not hold its row locks for ever.
_SESSION = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
    "options": "-c timezone=UTC -c idle_in_transaction_session_timeout=60s",
}

_CONTENTION = (pg.SerializationFailure, pg.DeadlockDetected, pg.LockNotAvailable)
_OUT_OF_REACH = (
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.TooManyConnections,
    pg.IdleInTransactionSessionTimeout,
    pg.ReadOnlySqlTransaction,  # a failover turned this server into a standby
)


class RetryTransaction(Exception):
    """Another transaction got there first; begin this one anew to see what it left."""


class Database:
    """A pool of connections to one Postgres, as an async context manager.

    Connects lazily, so services start in any order, and checks a connection that was idle before
    lending it, so a restarted Postgres is noticed and forgiven.
    """

    def __init__(self, url: str, *, application_name: str, pool_size: int = 8) -> None:
        self._engine = create_async_engine(
            url,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=_POOL_WAIT_SECONDS,
            pool_use_lifo=True,
            connect_args={**_SESSION, "application_name": application_name},
        )
        _check_idle_connections(self._engine.sync_engine)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._engine.dispose()

    @asynccontextmanager
    async def transaction(
        self, *, read_only: bool = False, isolation: str | None = None
    ) -> AsyncIterator[Connection]:
        """One transaction, committed at the end of the block, rolled back when it raises.

        `isolation` is a level by its SQL name, READ COMMITTED unless given; with AUTOCOMMIT each
        statement is a transaction of its own, which saves a single one BEGIN and COMMIT. Raises
        `Conflict` on a serialization failure or deadlock, `Unavailable` when the connection is lost
        (the commit may or may not have happened), `Overloaded` when no connection becomes free and
        `Unstorable` when the database refuses a text.
        """
        try:
            async with self._attempt(read_only=read_only, isolation=isolation) as connection:
                yield connection
        except RetryTransaction as error:
            raise Conflict from error

    async def run(self, work: Callable[[Connection], Awaitable[T]]) -> T:
        """Runs `work` in one transaction and returns what it returned.

        Repeats the whole transaction on a serialization failure, a deadlock or `RetryTransaction`,
        with growing random pauses, and raises `Conflict` when five tries were not enough. So
        `work` must have no effect outside the database. Otherwise raises as `transaction` does.
        """
        for attempt in range(_TRIES):
            if attempt:
                await asyncio.sleep(random.uniform(0, _FIRST_PAUSE_SECONDS * 2**attempt))
            try:
                async with self._attempt() as connection:
                    return await work(connection)
            except RetryTransaction as error:
                last = error
        raise Conflict from last

    async def ping(self) -> None:
        """Asks the database for a sign of life; raises `Unavailable` when there is none."""
        async with self._attempt(read_only=True) as connection:
            await connection.execute(text("SELECT 1"))

    @asynccontextmanager
    async def _attempt(
        self, *, read_only: bool = False, isolation: str | None = None
    ) -> AsyncIterator[Connection]:
        options: dict[str, Any] = {"postgresql_readonly": True} if read_only else {}
        if isolation is not None:
            options["isolation_level"] = isolation
        try:
            async with self._engine.connect() as connection:
                if options:
                    await connection.execution_options(**options)
                async with connection.begin():
                    yield connection
        except PoolTimeout as error:
            raise Overloaded("No database connection became free; try again later.") from error
        except (DBAPIError, psycopg.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if isinstance(cause, _CONTENTION):
                raise RetryTransaction from error
            if is_out_of_reach(cause):
                raise Unavailable(
                    "The database is out of reach; try again with the same request id."
                ) from error
            if _is_unstorable(cause):
                raise Unstorable from error
            raise


def _check_idle_connections(engine: Engine) -> None:
    """Like SQLAlchemy's `pool_pre_ping`, but not before every transaction of a busy service."""

    def check(raw: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        idle = monotonic() - record.info.get(_LAST_USED, monotonic())
        if idle < _IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(raw)
        except psycopg.Error as error:
            raise InvalidatePoolError from error

    def note(_: object, record: ConnectionPoolEntry) -> None:
        record.info[_LAST_USED] = monotonic()

    event.listen(engine, "checkout", check)
    event.listen(engine, "checkin", note)


def driver(connection: Connection) -> psycopg.AsyncConnection[Any]:
    """The driver's connection inside the same transaction, for set-based SQL.

    Use it as `driver(connection).cursor(binary=True)`.
    """
    sync = connection.sync_connection
    raw = sync.connection.driver_connection if sync is not None else None
    if not isinstance(raw, psycopg.AsyncConnection):
        raise TypeError("no psycopg connection here: use a URL that begins postgresql+psycopg://")
    return raw


def is_out_of_reach(error: BaseException | None) -> bool:
    """Whether `error`, of the driver, means that there is no working connection any more."""
    if isinstance(error, _OUT_OF_REACH):
        return True
    # Without an SQLSTATE it was the driver, not the server, that spoke: the connection is gone.
    # Class 08 is "connection exception" (PostgreSQL manual, appendix A).
    if not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith("08")


def _is_unstorable(error: BaseException | None) -> bool:
    # Texts in text form are checked by the driver, whose errors have no SQLSTATE.
    return isinstance(error, pg.CharacterNotInRepertoire | pg.UntranslatableCharacter) or (
        isinstance(error, psycopg.DataError) and error.sqlstate is None
    )
