"""The service as a process: configured by its environment, migrating, serving, draining."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from go2asia.points.v1 import points_pb2, points_pb2_grpc

from devstack.certificates import Authority
from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.client import open_channel
from mesh.errors import Unavailable

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 20
AWARD = points_pb2.AwardRequest(
    request_id="across-restarts",
    posting=points_pb2.PostingDetails(user_id="ada", unit="G2A", amount=5, reason="test"),
)


@pytest.fixture(scope="module")
def environment(
    postgres: Cluster, make_database: Callable[[], str], authority: Authority
) -> dict[str, str]:
    name, files = make_database(), authority.issue("points/points")
    return {
        "POINTS_LISTEN": f"127.0.0.1:{free_port()}",
        "POINTS_DATABASE_URL": postgres.url(name, "points_app"),
        "POINTS_MIGRATION_URL": postgres.url(name),
        "POINTS_TLS_CERT": str(files.cert),
        "POINTS_TLS_KEY": str(files.key),
        "POINTS_TLS_CA": str(files.ca),
    }


@contextmanager
def service(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "points_svc"],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


async def award(address: str, authority: Authority) -> points_pb2.Transaction:
    """Awards once the service answers."""
    async with open_channel(address, authority.issue("connect/connect")) as channel:
        stub = points_pb2_grpc.PointsServiceStub(channel)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    return (await stub.Award(AWARD)).transaction
                except Unavailable:
                    await asyncio.sleep(0.1)


async def test_it_migrates_serves_and_remembers_across_a_kill_and_a_drain(
    environment: dict[str, str], authority: Authority
) -> None:
    address = environment["POINTS_LISTEN"]
    with service(environment) as process:
        first = await award(address, authority)
        process.kill()
    with service(environment) as process:
        assert await award(address, authority) == first
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0


def test_a_missing_setting_is_named(environment: dict[str, str]) -> None:
    incomplete = {k: v for k, v in environment.items() if k != "POINTS_DATABASE_URL"}
    with service(incomplete) as process:
        said, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode != 0
    assert "POINTS_DATABASE_URL" in said
    assert "Traceback" not in said
