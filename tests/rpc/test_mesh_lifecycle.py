"""A server's life: probes, drain, one of two replicas dying."""

import asyncio
import itertools
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from go2asia.nft.v1 import nft_pb2, nft_pb2_grpc
from go2asia.points.v1 import points_pb2, points_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.certificates import Authority
from mesh import health
from mesh.client import open_channel
from mesh.config import ConfigurationError
from mesh.errors import Unavailable
from tests.rpc.mesh_probe import BALANCE, POINTS, WATCH, feed, points, serving

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
EMPTY = points_pb2.GetBalanceResponse()


async def answer(request: object) -> points_pb2.GetBalanceResponse:
    return EMPTY


async def test_a_lost_dependency_flips_health_and_back(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PROBE_EVERY_SECONDS", 0.05)
    monkeypatch.setattr(health, "PROBE_TIMEOUT_SECONDS", 0.1)
    states = itertools.chain(["up"] * 3, ["down"] * 3, ["hangs"] * 2, itertools.repeat("up"))

    async def database() -> None:
        state = next(states)
        if state == "down":
            raise ConnectionError("the database is gone")
        if state == "hangs":
            await asyncio.sleep(10)

    async with (
        serving(authority, points(answer), probes={"database": database}) as address,
        open_channel(address, authority.issue("operator/ops")) as channel,
        asyncio.timeout(5),
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch(
            health_pb2.HealthCheckRequest(service=POINTS)
        )
        seen = [(await watch.read()).status for _ in range(3)]
        watch.cancel()
    assert seen == [SERVING, NOT_SERVING, SERVING]


async def test_a_drain_says_so_and_lets_calls_finish(authority: Authority) -> None:
    begun, may_finish = asyncio.Event(), asyncio.Event()

    async def slow(request: object) -> points_pb2.GetBalanceResponse:
        begun.set()
        await may_finish.wait()
        return EMPTY

    server = serving(authority, points(slow))
    address = await server.__aenter__()
    async with (
        open_channel(address, authority.issue("bff/web")) as channel,
        open_channel(address, authority.issue("operator/ops")) as watching,
        asyncio.timeout(5),
    ):
        watch = health_pb2_grpc.HealthStub(watching).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == SERVING
        call = asyncio.ensure_future(points_pb2_grpc.PointsServiceStub(channel).GetBalance(BALANCE))
        await begun.wait()
        draining = asyncio.create_task(server.__aexit__(None, None, None))
        assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        await asyncio.sleep(0.5)
        assert not draining.done()
        may_finish.set()
        assert await call == EMPTY
        await draining


async def test_a_drain_ends_streams_that_have_no_end(authority: Authority) -> None:
    async def updates() -> AsyncIterator[nft_pb2.WatchMintStatusResponse]:
        yield nft_pb2.WatchMintStatusResponse(resume_token="1")
        await asyncio.sleep(60)

    server = serving(authority, feed(updates), drain_seconds=30)
    address = await server.__aenter__()
    async with (
        open_channel(address, authority.issue("bff/web")) as channel,
        asyncio.timeout(5),
    ):
        stream = aiter(nft_pb2_grpc.NftServiceStub(channel).WatchMintStatus(WATCH))
        assert (await anext(stream)).resume_token == "1"
        draining = asyncio.create_task(server.__aexit__(None, None, None))
        with pytest.raises(Unavailable, match="resume on another"):
            await anext(stream)
        await draining


async def test_one_of_two_replicas_is_killed_and_no_caller_notices(authority: Authority) -> None:
    served = 0

    async def count(request: object) -> points_pb2.GetBalanceResponse:
        nonlocal served
        served += 1
        return EMPTY

    async with (
        _program(authority) as (victim, one),
        serving(authority, points(count)) as two,
        open_channel(f"{one},{two}", authority.issue("bff/web")) as channel,
    ):
        stub = points_pb2_grpc.PointsServiceStub(channel)
        async with asyncio.timeout(5):
            while served == 0:  # connected to both: the program answers from the start
                await stub.GetBalance(BALANCE)
        calls = [asyncio.create_task(_many_calls(stub)) for _ in range(8)]
        await asyncio.sleep(0.1)
        victim.kill()
        before = served
        await asyncio.gather(*calls)
        assert served - before > 400


async def test_sigterm_ends_the_program_in_order(authority: Authority) -> None:
    async with _program(authority) as (program, address):
        async with open_channel(address, authority.issue("bff/web")) as channel:
            await points_pb2_grpc.PointsServiceStub(channel).GetBalance(BALANCE)
        program.send_signal(signal.SIGTERM)
        assert program.stdout is not None
        async with asyncio.timeout(5):
            log = await program.stdout.read()
            assert await program.wait() == 0
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events == ["draining", "stopped"]


async def test_an_unhealthy_replica_gets_no_calls(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "PROBE_EVERY_SECONDS", 0.05)
    served = [0, 0]
    sick = False

    async def database() -> None:
        if sick:
            raise ConnectionError("gone")

    async def count_first(request: object) -> points_pb2.GetBalanceResponse:
        served[0] += 1
        return EMPTY

    async def count_second(request: object) -> points_pb2.GetBalanceResponse:
        served[1] += 1
        return EMPTY

    async with (
        serving(authority, points(count_first), probes={"database": database}) as one,
        serving(authority, points(count_second)) as two,
        open_channel(f"{one},{two}", authority.issue("bff/web")) as channel,
    ):
        stub = points_pb2_grpc.PointsServiceStub(channel)
        await _until_both_serve(stub, served)
        sick = True
        await asyncio.sleep(0.4)
        before = served[0]
        for _ in range(20):
            await stub.GetBalance(BALANCE)
        assert served[0] == before


async def test_a_taken_port_is_explained(authority: Authority) -> None:
    async with serving(authority, points(answer)) as address:
        port = address.rpartition(":")[2]
        with pytest.raises(ConfigurationError, match="Choose a free port"):
            async with serving(authority, points(answer), listen=f"127.0.0.1:{port}"):
                pass


async def _many_calls(stub: points_pb2_grpc.PointsServiceStub) -> None:
    for _ in range(200):
        await stub.GetBalance(BALANCE)


@asynccontextmanager
async def _program(authority: Authority) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.rpc.mesh_probe", str(authority.folder)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        yield process, await _address(process.stdout)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _address(log: asyncio.StreamReader) -> str:
    async with asyncio.timeout(20):
        async for line in log:
            if (entry := json.loads(line))["event"] == "started":
                return f"localhost:{entry['port']}"
    raise AssertionError("The replica ended without serving.")


async def _until_both_serve(stub: points_pb2_grpc.PointsServiceStub, served: list[int]) -> None:
    async with asyncio.timeout(5):
        while 0 in served:
            await stub.GetBalance(BALANCE)
            await asyncio.sleep(0.01)
