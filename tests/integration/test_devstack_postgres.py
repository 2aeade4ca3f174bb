"""The embedded Postgres: durable through SIGKILL, closed by default, startable as any user."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from devstack import confinement
from devstack.ports import LOOPBACK, free_port
from devstack.postgres import Cluster

BUSY = "SELECT count(*) FROM generate_series(1, 1e12)"
WAYS = (
    [way for way in (confinement.user_namespace(), confinement.nobody()) if way.reaches()]
    if os.geteuid() == 0
    else [confinement.plain()]
)


def connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url.replace("+psycopg", ""), autocommit=True)


def runs(pid: int) -> bool:
    """Whether the process lives; one that only waits for its parent to notice its end does not."""
    command = Path(f"/proc/{pid}/cmdline")
    return command.exists() and command.read_bytes() != b""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster that the test may break."""
    cluster = Cluster(tmp_path / "cluster", free_port())
    cluster.start()
    yield cluster
    cluster.stop()


def test_database_url_is_an_empty_database(database_url: str) -> None:
    with connect(database_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert tables.fetchone() == (0,)


def test_made_databases_are_separate(postgres: Cluster, make_database: Callable[[], str]) -> None:
    first, second = make_database(), make_database()
    with connect(postgres.url(first)) as connection:
        connection.execute("CREATE TABLE mine (id int)")
    with connect(postgres.url(second)) as connection:
        assert connection.execute("SELECT to_regclass('mine')").fetchone() == (None,)


def test_settings_are_durable_and_uuidv7_is_there(postgres: Cluster) -> None:
    with postgres.connect() as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute(f"SHOW {setting}").fetchone() == ("on",)
        assert connection.execute("SELECT uuid_extract_version(uuidv7())").fetchone() == (7,)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: (*way.prefix, "plain")[0])
def test_runs_below_a_folder_closed_to_others(tmp_path: Path, way: confinement.Confinement) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    cluster = Cluster(closed / "cluster", free_port(), way=way)
    try:
        cluster.start()
        cluster.stop()
        cluster.start()
        assert cluster.answers()
        assert cluster.data.stat().st_uid == way.uid
    finally:
        cluster.stop()


def test_a_state_folder_can_change_hands(tmp_path: Path) -> None:
    """A folder made as `nobody` must start in a user namespace later, and the other way round."""
    for way in (*WAYS, *reversed(WAYS)):
        cluster = Cluster(tmp_path / "cluster", 0, way=way)
        cluster.port = free_port()
        try:
            cluster.start()
            assert cluster.answers()
        finally:
            cluster.stop()


def test_sigkill_keeps_what_was_committed_and_nothing_else(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        connection.execute("CREATE TABLE entries (id int PRIMARY KEY)")
        connection.execute("INSERT INTO entries SELECT generate_series(1, 1000)")
    in_flight = cluster.connect()
    in_flight.autocommit = False
    in_flight.execute("INSERT INTO entries SELECT generate_series(1001, 2000)")
    cluster.kill()
    cluster.start()
    with cluster.connect() as connection:
        assert connection.execute("SELECT count(*), max(id) FROM entries").fetchone() == (
            1000,
            1000,
        )


def test_comes_back_although_an_orphan_holds_the_shared_memory(cluster: Cluster) -> None:
    busy = cluster.connect()
    pid = busy.info.backend_pid
    with ThreadPoolExecutor() as pool:
        statement = pool.submit(busy.execute, BUSY)
        with cluster.connect() as connection:
            while connection.execute(
                "SELECT state FROM pg_stat_activity WHERE pid = %s", (pid,)
            ).fetchone() != ("active",):
                pass
        cluster.kill()
        assert runs(pid)  # the backend outlived its postmaster
        cluster.start()
        assert isinstance(statement.exception(timeout=5), psycopg.OperationalError)
    assert not runs(pid)
    assert cluster.answers()


def test_comes_back_although_its_process_id_is_now_somebody_elses(cluster: Cluster) -> None:
    cluster.kill()
    record = cluster.data / "postmaster.pid"
    somebody, *rest = str(os.getpid()), *record.read_text().splitlines()[1:]
    record.write_text("\n".join([somebody, *rest]) + "\n")
    cluster.start()
    assert cluster.answers()


def test_without_the_password_nobody_gets_in(postgres: Cluster) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(
            host=LOOPBACK, port=postgres.port, user="postgres", password="wrong", dbname="postgres"
        )


def test_password_files_are_closed_to_others(postgres: Cluster) -> None:
    files = list(postgres.folder.glob("*.password"))
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert {file.stem for file in files} >= {"postgres", "points_owner", "points_app"}


def test_the_app_role_can_do_only_what_it_was_granted(cluster: Cluster) -> None:
    urls = cluster.provision("points")
    with connect(urls.owner_url) as owner:
        owner.execute("CREATE TABLE granted (id int)")
        owner.execute("CREATE TABLE kept (id int)")
        owner.execute("GRANT INSERT, SELECT ON granted TO points_app")
    with connect(urls.app_url) as app:
        app.execute("INSERT INTO granted VALUES (1)")
        for forbidden in (
            "CREATE TABLE mine (id int)",
            "CREATE TEMPORARY TABLE mine (id int)",
            "CREATE SCHEMA mine",
            "DELETE FROM granted",
            "SELECT * FROM kept",
            "ALTER TABLE granted ADD COLUMN more int",
        ):
            with pytest.raises(InsufficientPrivilege):
                app.execute(forbidden)


def test_a_role_cannot_enter_another_services_database(cluster: Cluster) -> None:
    cluster.provision("points")
    cluster.provision("nft")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        connect(cluster.url("points", "nft_app"))


def test_provisioning_again_changes_nothing(cluster: Cluster) -> None:
    first = cluster.provision("nft")
    with connect(first.owner_url) as owner:
        owner.execute("CREATE TABLE kept (id int)")
    assert cluster.provision("nft") == first
    with connect(first.owner_url) as owner:
        assert owner.execute("SELECT count(*) FROM kept").fetchone() == (0,)
