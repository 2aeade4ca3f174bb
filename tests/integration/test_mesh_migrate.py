"""Replicas that start together migrate once, and indexes may be built concurrently."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Column, Index, Integer, MetaData, Table, Text, create_engine, text

from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.errors import Unavailable
from mesh.migrate import drift, migrate

ENV = """
from mesh.migrate import run_migrations
from sqlalchemy import MetaData

run_migrations(MetaData())
"""

FIRST = """
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table("badges", sa.Column("id", sa.Integer, primary_key=True),
                    sa.Column("name", sa.Text), postgresql_with={"fillfactor": 50})
    op.execute("SELECT pg_sleep(0.3)")
"""

SECOND = """
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade():
    with op.get_context().autocommit_block():
        op.create_index("badges_name", "badges", ["name"], postgresql_concurrently=True)
"""

REPLICA = """
import asyncio, sys
from mesh.migrate import migrate

asyncio.run(migrate("sample_svc", sys.argv[1]))
"""


@pytest.fixture
def sample_svc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A service package with two migrations, importable here and in child processes."""
    versions = tmp_path / "sample_svc" / "migrations" / "versions"
    versions.mkdir(parents=True)
    (tmp_path / "sample_svc" / "__init__.py").touch()
    (versions.parent / "env.py").write_text(ENV)
    (versions / "0001_badges.py").write_text(FIRST)
    (versions / "0002_badges_name.py").write_text(SECOND)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    return tmp_path


@pytest.mark.usefixtures("sample_svc")
def test_concurrent_replicas_migrate_once(
    postgres: Cluster, make_database: Callable[[], str]
) -> None:
    url = postgres.url(make_database())
    replicas = [subprocess.Popen([sys.executable, "-c", REPLICA, url]) for _ in range(2)]
    assert [replica.wait(timeout=30) for replica in replicas] == [0, 0]
    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.scalars(text("SELECT version_num FROM alembic_version")).all() == ["0002"]
        valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'badges_name'::regclass"
        assert connection.scalar(text(valid))
    engine.dispose()


@pytest.mark.usefixtures("sample_svc")
async def test_drift_is_seen(postgres: Cluster, make_database: Callable[[], str]) -> None:
    url = postgres.url(make_database())
    await migrate("sample_svc", url)
    await migrate("sample_svc", url)
    metadata = MetaData()
    badges = Table(
        "badges",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("name", Text),
        Index("badges_name", "name"),
        postgresql_with={"fillfactor": 50},
    )
    assert drift(metadata, url) == []
    badges.append_column(Column("image", Text))
    badges.dialect_options["postgresql"]["with"] = {"fillfactor": 60}
    assert [change[0] for change in drift(metadata, url)] == ["add_column", "storage"]


@pytest.mark.usefixtures("sample_svc")
async def test_no_database_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        await migrate("sample_svc", f"postgresql+psycopg://nobody@127.0.0.1:{free_port()}/none")
