"""Fixtures that every kind of test shares: a real Postgres."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack.composition import PORT_SHIFT
from devstack.ports import free_port
from devstack.postgres import Cluster

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
os.environ[PORT_SHIFT] = str(1000 * int(WORKER))

SERVICES = ("connect", "points", "nft", "gateway")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster with every service's database and roles; migrations may grant to them."""
    cluster = Cluster(Path(tmp_path_factory.mktemp("postgres")), free_port())
    try:
        cluster.start()
        for service in SERVICES:
            cluster.provision(service)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def make_database(postgres: Cluster) -> Iterator[Callable[[], str]]:
    """Creates an empty database on each call and returns its name; `postgres.url(name)` opens it.

    Use it instead of `database_url` for several databases, or for a fresh one per test.
    """
    names = (f"test_{number}" for number in itertools.count(1))
    made: list[str] = []

    def make() -> str:
        made.append(next(names))
        postgres.create_database(made[-1])
        return made[-1]

    yield make
    for name in made:
        postgres.drop_database(name)


@pytest.fixture(scope="module")
def database_url(postgres: Cluster, make_database: Callable[[], str]) -> str:
    """A database of its own, empty at the start of the module; the URL is the superuser's."""
    return postgres.url(make_database())
