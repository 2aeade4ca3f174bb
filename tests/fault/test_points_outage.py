"""Points is down for a while, under load: nothing is refused, nothing is lost, and metrics tell.

`OUTAGE_SECONDS=60 make test TESTS=tests/fault/test_points_outage.py` makes the outage longer.
"""

import asyncio
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any
from urllib.request import urlopen

import pytest
from go2asia.connect.v1 import events_pb2, events_pb2_grpc, reward_actions_pb2_grpc
from go2asia.points.v1 import points_pb2_grpc

from devstack.certificates import Authority
from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.client import open_channel
from tests.integration.connect_replica import POINTS, event, rule
from tests.rpc.reward_processes import (
    Services,
    balance,
    count,
    create_badge,
    create_rule,
    eventually,
)

OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "16"))
IN_A_CALL = 10
BADGE = {"key": "badge", "increment_progress": {"nft_type": "explorer", "counter": "quests"}}
_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)


class Metrics:
    """Connect's Prometheus endpoint, read now and then; `seen` remembers the breakers' states."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"
        self.seen: dict[str, list[str]] = {"points": [], "nft": []}
        self.oldest = 0.0

    async def read(self) -> dict[tuple[str, ...], float]:
        """Samples by name and label values, in the order of the labels' names."""
        with await asyncio.to_thread(urlopen, self._url, timeout=5) as answer:
            text = answer.read().decode()
        samples = {}
        for name, labels, value in _SAMPLE.findall(text):
            values = [each for key, each in sorted(re.findall(r'(\w+)="(.*?)"', labels))
                      if not key.startswith("otel_")]  # fmt: skip
            samples[(name, *values)] = float(value)
        return samples

    async def watch(self) -> None:
        """Reads for ever."""
        while True:
            samples = await self.read()
            for lane, states in self.seen.items():
                for state in ("closed", "open", "half_open"):
                    current = samples.get(("mesh_breaker_state", lane, state)) == 1
                    if current and states[-1:] != [state]:
                        states.append(state)
            self.oldest = max(self.oldest, samples[("mesh_queue_oldest_seconds", "points")])
            await asyncio.sleep(0.2)


class Load:
    """Events in batches, one after the other; each must be accepted."""

    def __init__(self, stub: Any) -> None:
        self._stub = stub
        self.accepted = 0
        self.slowest = 0.0
        self.enough = False

    async def run(self) -> None:
        """Sends until there was enough; never broken off, which would leave it unknown."""
        while not self.enough:
            events = [event() for _ in range(IN_A_CALL)]
            request = events_pb2.BatchSubmitEventsRequest(events=events)
            started = time.monotonic()
            results = (await self._stub.BatchSubmitEvents(request)).results
            self.slowest = max(self.slowest, time.monotonic() - started)
            assert [len(result.receipt.action_ids) for result in results] == [2] * IN_A_CALL
            self.accepted += IN_A_CALL
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> Metrics:
    """Connect's, whenever it is started."""
    port = free_port()
    monkeypatch.setenv("CONNECT_METRICS_PORT", str(port))
    return Metrics(port)


@pytest.fixture
def services(
    metrics: Metrics, postgres: Cluster, make_database: Callable[[], str], authority: Authority
) -> Iterator[Services]:
    services = Services(postgres, make_database, authority)
    for name in ("connect", "points", "nft"):
        services.start(name)
    yield services
    services.end_all()


@pytest.fixture
async def channel(services: Services, authority: Authority) -> AsyncIterator[Callable[..., Any]]:
    """Opens a channel to a service as an identity."""
    async with AsyncExitStack() as channels:

        async def channel(name: str, identity: str) -> Any:
            opened = open_channel(services.address(name), authority.issue(identity))
            return await channels.enter_async_context(opened)

        yield channel


async def test_points_is_down_under_load(
    services: Services, metrics: Metrics, channel: Callable[..., Any]
) -> None:
    await create_rule(
        await channel("connect", "economy-manager/ann"), rule("quest", actions=[POINTS, BADGE])
    )
    await create_badge(await channel("nft", "economy-manager/ann"))
    points = points_pb2_grpc.PointsServiceStub(await channel("points", "operator/ops"))
    operator = await channel("connect", "operator/ops")
    actions = reward_actions_pb2_grpc.RewardActionServiceStub(operator)
    load = Load(events_pb2_grpc.EventServiceStub(await channel("connect", "domain-service/quest")))

    async with asyncio.TaskGroup() as tasks:
        sending, watching = tasks.create_task(load.run()), tasks.create_task(metrics.watch())
        await asyncio.sleep(2)
        services.end("points", signal.SIGKILL)
        before = load.accepted
        await asyncio.sleep(OUTAGE_SECONDS)
        during = load.accepted - before
        services.start("points")
        back = time.monotonic()
        await asyncio.sleep(3)
        load.enough = True
        await sending
        wanted = 2 * load.accepted
        await eventually(lambda: count(actions), lambda c: c.completed == wanted)
        drained = time.monotonic() - back
        samples = await eventually(
            metrics.read, lambda now: now[("mesh_queue_depth", "ready", "points")] == 0
        )
        watching.cancel()

    print(
        f"down {OUTAGE_SECONDS:g} s: {during} events accepted meanwhile, slowest call "
        f"{load.slowest:.2f} s, oldest action {metrics.oldest:.1f} s, all done {drained:.1f} s "
        f"after the return; breakers {metrics.seen}"
    )
    assert during > OUTAGE_SECONDS * IN_A_CALL
    assert metrics.seen["nft"] == ["closed"]
    assert metrics.seen["points"][:2] == ["closed", "open"]
    assert metrics.seen["points"][-1] == "closed"
    assert metrics.oldest > OUTAGE_SECONDS / 2
    assert (await count(actions)).failed == 0
    assert (await balance(points, "G2A")).posted == 10 * load.accepted
    for condition in ("ready", "leased", "delayed", "dead"):
        assert samples[("mesh_queue_depth", condition, "points")] == 0
    assert samples[("mesh_queue_settled_total", "points", "done")] == load.accepted
    assert samples[("mesh_queue_settled_total", "points", "retry")] > 0
    assert samples[("mesh_queue_attempts_count", "points", "done")] == load.accepted
    assert samples[("mesh_queue_attempts_sum", "points", "done")] > load.accepted
