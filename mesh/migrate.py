"""Schema migrations: Alembic under a Postgres advisory lock, so any number of replicas may start.

A service's `migrations/` holds `versions/` and an `env.py` of one statement:

    from mesh.migrate import run_migrations
    from points_svc.tables import metadata

    run_migrations(metadata)
"""

import asyncio
import hashlib
import threading
import time
from typing import Any

import alembic.command
import alembic.context
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from mesh.db import is_out_of_reach
from mesh.errors import Unavailable
from mesh.telemetry import logger

_POLL_SECONDS = 0.1
_log = logger("mesh.migrate")

# Alembic's `context` and `op` are global to the process.
_one_at_a_time = threading.Lock()


async def migrate(package: str, url: str) -> None:
    """Brings the database at `url` to the newest version in `<package>/migrations`.

    One replica migrates, the others wait for it and find nothing to do. Each migration is a
    transaction. `url` is of a user who owns the schema. Raises `Unavailable` when the database is
    out of reach.
    """
    await asyncio.to_thread(_upgrade, package, url)


def run_migrations(metadata: MetaData) -> None:
    """The body of a service's `env.py`: runs what `migrate` asked for on its connection."""
    connection: Connection = alembic.context.config.attributes["connection"]
    alembic.context.configure(
        connection=connection, target_metadata=metadata, transaction_per_migration=True
    )
    with alembic.context.begin_transaction():
        alembic.context.run_migrations()


def drift(metadata: MetaData, url: str) -> list[Any]:
    """How the database at `url` differs from `metadata`; for tests.

    The differences are Alembic's operations, and `("storage", table, wanted, found)` for storage
    parameters, which Alembic does not compare.
    """
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        changes = list(compare_metadata(context, metadata))
        for table in metadata.sorted_tables:
            wanted = table.dialect_options["postgresql"]["with"] or {}
            found = connection.scalar(
                text("SELECT reloptions FROM pg_class WHERE oid = to_regclass(:name)"),
                {"name": table.name},
            )
            if {f"{name}={value}" for name, value in wanted.items()} != set(found or ()):
                changes.append(("storage", table.name, wanted, found))
    return changes


def _upgrade(package: str, url: str) -> None:
    config = Config()
    config.set_main_option("script_location", f"{package}:migrations")
    engine = create_engine(url, poolclass=NullPool)
    try:
        with _one_at_a_time, engine.connect() as connection:
            _lock(connection, package)
            config.attributes["connection"] = connection
            alembic.command.upgrade(config, "head")
            _log.info("migrate.done", package=package)
    except OperationalError as error:
        if is_out_of_reach(error.orig):
            raise Unavailable("The database is out of reach; start again when it is up.") from error
        raise


def _lock(connection: Connection, package: str) -> None:
    """Takes a session lock, freed with the connection.

    Tries again and again instead of waiting inside Postgres: a waiting statement holds a snapshot,
    and CREATE INDEX CONCURRENTLY in the replica that has the lock would wait for that for ever.
    """
    key = int.from_bytes(hashlib.sha256(package.encode()).digest()[:8], signed=True)
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": key}):
        connection.rollback()
        time.sleep(_POLL_SECONDS)
    connection.commit()
