"""The reward story over real processes: Connect, Points and NFT, some late, some killed."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from go2asia.connect.v1 import (
    events_pb2,
    events_pb2_grpc,
    reward_actions_pb2,
    reward_actions_pb2_grpc,
    rules_pb2,
    rules_pb2_grpc,
)
from go2asia.nft.v1 import catalog_pb2, catalog_pb2_grpc, nft_pb2, nft_pb2_grpc
from go2asia.points.v1 import points_pb2, points_pb2_grpc
from google.protobuf.json_format import ParseDict

from devstack.certificates import Authority
from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.client import open_channel
from mesh.errors import MeshError
from tests.integration.connect_replica import POINTS, event, rule

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30
MODULES = {"connect": "connect_svc", "points": "points_svc", "nft": "nft_svc"}
RewardAction = reward_actions_pb2.RewardAction


class Services:
    """The three services, each a process that a test starts, stops or kills when it likes."""

    def __init__(
        self, postgres: Cluster, make_database: Callable[[], str], authority: Authority
    ) -> None:
        self._authority = authority
        self._ports = {name: free_port() for name in (*MODULES, "nats", "gateway")}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            "CONNECT_POINTS_ADDRESS": self.address("points"),
            "CONNECT_NFT_ADDRESS": self.address("nft"),
            "CONNECT_NATS_URL": f"tls://127.0.0.1:{self._ports['nats']}",  # never there
            "NFT_GATEWAY_ADDRESS": self.address("gateway"),  # never there
        }
        for name in MODULES:
            database, files = make_database(), authority.issue(f"{name}/{name}")
            values = {
                "LISTEN": self.address(name),
                "DATABASE_URL": postgres.url(database, f"{name}_app"),
                "MIGRATION_URL": postgres.url(database),
                "TLS_CERT": str(files.cert),
                "TLS_KEY": str(files.key),
                "TLS_CA": str(files.ca),
            }
            self._environment |= {f"{name.upper()}_{key}": each for key, each in values.items()}

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    def start(self, name: str) -> None:
        self._running[name] = subprocess.Popen(
            [sys.executable, "-m", MODULES[name]],
            cwd=ROOT,
            env={**os.environ, **self._environment},
            stdout=subprocess.DEVNULL,
        )

    def end(self, name: str, how: signal.Signals) -> int:
        process = self._running.pop(name)
        process.send_signal(how)
        return process.wait(PATIENCE_SECONDS)

    def end_all(self) -> None:
        for name in list(self._running):
            self.end(name, signal.SIGKILL)


@pytest.fixture
def services(
    postgres: Cluster, make_database: Callable[[], str], authority: Authority
) -> Iterator[Services]:
    services = Services(postgres, make_database, authority)
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


async def eventually(ask: Callable[[], Awaitable[Any]], wanted: Callable[[Any], object]) -> Any:
    """Asks until the answer is as wanted; services may be out of reach meanwhile."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer: object
        try:
            answer = await ask()
            if wanted(answer):
                return answer
        except MeshError as error:
            answer = error
        assert time.monotonic() < deadline, f"still {answer}"
        await asyncio.sleep(0.1)


async def test_rewards_outlive_outages_and_kills(
    services: Services, channel: Callable[..., Any]
) -> None:
    for name in ("connect", "nft"):
        services.start(name)
    manager = await channel("connect", "economy-manager/ann")
    quest = events_pb2_grpc.EventServiceStub(await channel("connect", "domain-service/quest"))
    actions = reward_actions_pb2_grpc.RewardActionServiceStub(
        await channel("connect", "operator/ops")
    )
    points = points_pb2_grpc.PointsServiceStub(await channel("points", "operator/ops"))
    nft = await channel("nft", "economy-manager/ann")

    badge = {"key": "badge", "increment_progress": {"nft_type": "explorer", "counter": "quests"}}
    fee = {"key": "fee", "debit_points": {"unit": "XP", "amount": "5"}}
    await create_rule(manager, rule("quest-reward", actions=[POINTS, badge]))
    await create_rule(manager, rule("entry-fee", event_type="arena.entered", actions=[fee]))
    await create_badge(nft)

    # Points is not there: the event is taken in all the same, and only its points wait.
    sent = [event(external_id=f"quest-{number}") for number in range(30)]
    request = events_pb2.BatchSubmitEventsRequest(events=sent)
    results = (await quest.BatchSubmitEvents(request)).results
    assert all(result.HasField("receipt") for result in results)
    await eventually(lambda: count(actions), lambda c: (c.completed, c.failed) == (30, 0))
    [waiting] = await eventually(
        lambda: pending(actions, 1), lambda found: [a for a in found if a.last_error]
    )
    assert waiting.attempts >= 1
    assert "UNAVAILABLE" in waiting.last_error

    # Points comes up, and dies with rewards on their way.
    services.start("points")
    more = [event(external_id=f"more-{number}") for number in range(200)]
    await quest.BatchSubmitEvents(events_pb2.BatchSubmitEventsRequest(events=more))
    await eventually(lambda: count(actions), lambda c: c.completed > 240)
    services.end("points", signal.SIGKILL)
    services.start("points")
    await eventually(lambda: count(actions), lambda c: (c.completed, c.failed) == (460, 0))
    assert (await balance(points, "G2A")).posted == 2300

    # Connect dies too, and still knows what it did.
    services.end("connect", signal.SIGKILL)
    services.start("connect")
    repeated = await eventually(lambda: quest.BatchSubmitEvents(request), bool)
    assert all(result.receipt.duplicate for result in repeated.results)
    told = await quest.GetEvent(events_pb2.GetEventRequest(event_id=results[0].receipt.event_id))
    booked, progressed = told.actions
    transaction = await points.GetTransaction(
        points_pb2.GetTransactionRequest(transaction_id=booked.result)
    )
    assert transaction.transaction.request_id == booked.action_id
    reader = nft_pb2_grpc.NftServiceStub(await channel("nft", "bff/web"))
    instance = (await reader.GetNft(nft_pb2.GetNftRequest(nft_id=progressed.result))).nft
    assert (instance.user_id, instance.level) == ("ada", 1)

    # What the target refuses is given up, with the reason.
    receipt = (
        await quest.SubmitEvent(
            events_pb2.SubmitEventRequest(event=event(event_type="arena.entered"))
        )
    ).receipt
    refused = await eventually(
        lambda: get(actions, receipt.action_ids[0]),
        lambda action: action.state == RewardAction.STATE_FAILED,
    )
    assert refused.last_error.startswith("INSUFFICIENT_FUNDS: ")
    assert (await balance(points, "XP")).posted == 0

    assert services.end("connect", signal.SIGTERM) == 0


async def create_rule(channel: Any, made: rules_pb2.Rule) -> None:
    stub = rules_pb2_grpc.RuleServiceStub(channel)
    request = rules_pb2.CreateRuleRequest(request_id=made.rule_id, rule=made)
    await eventually(lambda: stub.CreateRule(request), bool)


async def create_badge(channel: Any) -> None:
    """The badge `explorer`, whose first level one quest reaches."""
    request = ParseDict(
        {
            "request_id": "explorer",
            "nft_type": {
                "code": "explorer",
                "display_name": "Explorer",
                "onchain_policy": "ONCHAIN_POLICY_NONE",
                "token_standard": "TOKEN_STANDARD_NFT",
                "counters": ["quests"],
                "levels": [{"level": 1, "thresholds": {"quests": 1}}],
            },
        },
        catalog_pb2.CreateNftTypeRequest(),
    )
    stub = catalog_pb2_grpc.NftCatalogServiceStub(channel)
    await eventually(lambda: stub.CreateNftType(request), bool)


async def count(actions: Any) -> Any:
    return await actions.CountRewardActions(reward_actions_pb2.CountRewardActionsRequest())


async def pending(actions: Any, size: int) -> Any:
    request = reward_actions_pb2.ListRewardActionsRequest(
        state=RewardAction.STATE_PENDING, page_size=size
    )
    return (await actions.ListRewardActions(request)).actions


async def get(actions: Any, action_id: str) -> Any:
    request = reward_actions_pb2.GetRewardActionRequest(action_id=action_id)
    return (await actions.GetRewardAction(request)).action


async def balance(points: Any, unit: str) -> Any:
    request = points_pb2.GetBalanceRequest(user_id="ada", unit=unit)
    return (await points.GetBalance(request)).balance
