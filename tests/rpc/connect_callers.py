"""Connect's three services over mutual TLS on a real Postgres, and stubs that call them."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from go2asia.connect.v1 import (
    backfills_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    reward_actions_pb2_grpc,
    rules_pb2,
    rules_pb2_grpc,
)

from connect_svc.catalog import CatalogCache
from connect_svc.intake import Intake
from connect_svc.servicer import (
    BackfillServicer,
    EventServicer,
    RewardActionServicer,
    RuleServicer,
)
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.client import open_channel
from mesh.db import Database
from mesh.migrate import migrate
from mesh.testing import LoopServer

QUEST = "domain-service/quest"
BOOKING = "domain-service/booking"
MANAGER = "economy-manager/ann"
OPERATOR = "operator/ops"

_numbers = count(1)


@dataclass(frozen=True)
class Caller:
    """Stubs of one identity; the generated async stubs are known to type checkers only."""

    events: Any
    rules: Any
    actions: Any
    backfills: Any

    async def create(self, made: rules_pb2.Rule) -> rules_pb2.Rule:
        request = rules_pb2.CreateRuleRequest(request_id=f"create-{next(_numbers)}", rule=made)
        return (await self.rules.CreateRule(request)).rule

    async def submit(self, sent: events_pb2.Event) -> events_pb2.EventReceipt:
        return (await self.events.SubmitEvent(events_pb2.SubmitEventRequest(event=sent))).receipt


def add_services(services: tuple[Any, ...], server: LoopServer) -> None:
    """What pytest-grpc's `grpc_add_to_server` is to be."""
    events, rules, actions, backfills = services
    backfills_pb2_grpc.add_BackfillServiceServicer_to_server(backfills, server)
    events_pb2_grpc.add_EventServiceServicer_to_server(events, server)
    rules_pb2_grpc.add_RuleServiceServicer_to_server(rules, server)
    reward_actions_pb2_grpc.add_RewardActionServiceServicer_to_server(actions, server)


@contextmanager
def services_on(server: LoopServer, cluster: Cluster, name: str) -> Iterator[tuple[Any, ...]]:
    """The servicers on a new database of this name, without workers."""
    asyncio.run(migrate("connect_svc", cluster.url(name)))
    running = AsyncExitStack()

    async def start() -> tuple[Any, ...]:
        url = cluster.url(name, "connect_app")
        database = await running.enter_async_context(Database(url, application_name="connect"))
        catalog = CatalogCache()
        intake = Intake(database, catalog, wake=lambda: None)
        await running.enter_async_context(intake)
        return (
            EventServicer(intake, database, wake=lambda: None),
            RuleServicer(database, catalog),
            RewardActionServicer(database, wake=lambda: None),
            BackfillServicer(database, wake=lambda: None),
        )

    yield server.run(start())
    server.run(running.aclose())


@asynccontextmanager
async def callers(address: str, authority: Authority) -> AsyncIterator[Callable[[str], Caller]]:
    """Stubs that call as QUEST, BOOKING, MANAGER or OPERATOR."""
    async with AsyncExitStack() as channels:
        opened: dict[str, Caller] = {}
        for identity in (QUEST, BOOKING, MANAGER, OPERATOR):
            tls = authority.issue(identity)
            channel = await channels.enter_async_context(open_channel(address, tls))
            opened[identity] = Caller(
                events_pb2_grpc.EventServiceStub(channel),
                rules_pb2_grpc.RuleServiceStub(channel),
                reward_actions_pb2_grpc.RewardActionServiceStub(channel),
                backfills_pb2_grpc.BackfillServiceStub(channel),
            )
        yield opened.__getitem__
