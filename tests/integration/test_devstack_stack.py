"""A stack with a real service in it, through Python and through the command line."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from devstack.composition import OPERATOR
from devstack.health import serving
from devstack.ports import LOOPBACK
from devstack.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    state = tmp_path_factory.mktemp("stack")
    with Stack.running(state, services=("points",)) as stack:
        yield stack


def test_the_service_serves_over_mtls(stack: Stack) -> None:
    assert serving(stack.address("points"), stack.tls(OPERATOR))


def test_it_migrated_its_database_and_works_with_less(stack: Stack) -> None:
    cluster = stack.cluster("points")
    tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tableowner = :owner"
    engine = create_engine(cluster.url("points", "points_app"))
    with engine.connect() as connection:
        assert connection.execute(text(tables), {"owner": "points_owner"}).scalar_one() > 0
        assert connection.execute(text(tables), {"owner": "points_app"}).scalar_one() == 0
    engine.dispose()


@pytest.mark.parametrize("name", ["points", "postgres-points"])
def test_a_killed_part_comes_back_and_the_service_serves_again(stack: Stack, name: str) -> None:
    before = stack.restarts(name)
    stack.kill(name)
    stack.wait_healthy(name)
    stack.wait_healthy("points")
    assert stack.restarts(name) == before + 1
    assert serving(stack.address("points"), stack.tls(OPERATOR))


def test_any_identity_gets_a_certificate(stack: Stack) -> None:
    assert serving(stack.address("points"), stack.tls("domain-service/newcomer"))


def devstack(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "devstack", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_command_line_starts_shows_and_stops_a_stack(tmp_path: Path) -> None:
    where = ("--state", str(tmp_path))
    command = [sys.executable, "-m", "devstack", "up", *where, "--only", "points"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        guide = ""
        while "Ctrl-C stops everything" not in guide:
            guide += up.stdout.readline()
        assert f"{LOOPBACK}:" in guide
        shown = devstack("status", *where)
        assert [line.split()[:2] for line in shown.stdout.splitlines()[1:]] == [
            ["postgres-points", "healthy"],
            ["points", "healthy"],
        ]
        second = devstack("up", *where)
        assert second.returncode == 1
        assert f"A stack already runs in {tmp_path}" in second.stderr
        assert devstack("down", *where).returncode == 0
        assert "Stopped." in up.stdout.read()
    assert up.returncode == 0
    assert devstack("status", *where).returncode == 1


def test_a_start_is_broken_off_when_the_process_that_asked_for_it_dies(tmp_path: Path) -> None:
    command = f"{sys.executable} -m devstack up --state {tmp_path} --only points & wait"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True) as shell:
        assert shell.stdout is not None
        while "postgres-points" not in shell.stdout.readline():
            pass
        os.kill(shell.pid, signal.SIGKILL)
        assert "Stopped." in shell.stdout.read()  # read to its end: nobody holds the pipe any more
