"""Connect, Points and NFT as processes that a test starts, stops or kills when it likes."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from go2asia.connect.v1 import reward_actions_pb2, rules_pb2, rules_pb2_grpc
from go2asia.nft.v1 import catalog_pb2, catalog_pb2_grpc
from go2asia.points.v1 import points_pb2
from google.protobuf.json_format import ParseDict

from devstack.certificates import Authority
from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.errors import MeshError

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 30
MODULES = {"connect": "connect_svc", "points": "points_svc", "nft": "nft_svc"}
RewardAction = reward_actions_pb2.RewardAction


class Services:
    """The three services, each a process, and where they are to be found."""

    def __init__(
        self,
        postgres: Cluster,
        make_database: Callable[[], str],
        authority: Authority,
        *,
        gateway_port: int | None = None,
    ) -> None:
        self._authority = authority
        self._ports = {name: free_port() for name in (*MODULES, "nats")}
        self._ports["gateway"] = gateway_port or free_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            "CONNECT_POINTS_ADDRESS": self.address("points"),
            "CONNECT_NFT_ADDRESS": self.address("nft"),
            "CONNECT_GATEWAY_ADDRESS": self.address("gateway"),  # there if its port was given
            "CONNECT_NATS_URL": f"tls://127.0.0.1:{self._ports['nats']}",  # never there
            "NFT_GATEWAY_ADDRESS": self.address("gateway"),
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


async def eventually(
    ask: Callable[[], Awaitable[Any]],
    wanted: Callable[[Any], object],
    patience: float = PATIENCE_SECONDS,
) -> Any:
    """Asks until the answer is as wanted; services may be out of reach meanwhile."""
    deadline = time.monotonic() + patience
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


async def create_rule(channel: Any, made: rules_pb2.Rule) -> None:
    stub = rules_pb2_grpc.RuleServiceStub(channel)
    request = rules_pb2.CreateRuleRequest(request_id=made.rule_id, rule=made)
    await eventually(lambda: stub.CreateRule(request), bool)


async def create_badge(channel: Any, code: str = "explorer", policy: str = "NONE") -> None:
    """A badge whose first level one quest reaches."""
    request = ParseDict(
        {
            "request_id": code,
            "nft_type": {
                "code": code,
                "display_name": "Explorer",
                "onchain_policy": f"ONCHAIN_POLICY_{policy}",
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


async def balance(points: Any, unit: str, user_id: str = "ada") -> Any:
    request = points_pb2.GetBalanceRequest(user_id=user_id, unit=unit)
    return (await points.GetBalance(request)).balance
