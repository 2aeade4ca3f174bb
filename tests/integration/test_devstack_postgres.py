"""The embedded Postgres: durable through SIGKILL, closed by default, startable as any user."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from devstack import confinement
from devstack.ports import free_port
from devstack.postgres import Cluster


def test_fixture_database_is_empty_and_ours(database_url: str) -> None:
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        assert tables.fetchone() == (0,)
