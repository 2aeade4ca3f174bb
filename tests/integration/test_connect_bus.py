"""The bus as a way in: a real JetStream server, real certificates, a real database."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from go2asia.connect.v1 import events_pb2
from google.protobuf.json_format import MessageToJson
from nats.aio.client import Client
from nats.aio.msg import Msg

from connect_svc.bus import DURABLE, EVENT_STREAM, DeadLetters, EventBus, Inbound
from connect_svc.config import ConnectSettings
from connect_svc.normalization import normalize
from devstack.certificates import Authority
from devstack.nats import NatsServer
from devstack.ports import free_port
from devstack.postgres import Cluster
from devstack.process import Process
from devstack.watchdog import Watchdog
from mesh.bus import Delivery, connect_bus, publish
from mesh.errors import Unavailable
from tests.integration.connect_replica import (
    ConnectDatabase,
    Replica,
    event,
    migrated,
    replica,
    rule,
    submission,
)

IDENTITIES = ("connect/connect", "domain-service/quest", "operator/ops")
PATIENCE_SECONDS = 15


class Bus:
    """A NATS server that a test may stop and start again."""

    def __init__(self, folder: Path, watchdog: Watchdog) -> None:
        self.authority = Authority(folder / "certificates")
        for identity in IDENTITIES:
            self.authority.issue(identity)
        self.server = NatsServer(folder / "nats", free_port(), self.authority.issue("nats/nats"))
        self.server.configure(IDENTITIES)
        self.process = Process(self.server.spec("nats"), folder / "nats.log", watchdog)

    @asynccontextmanager
    async def connection(self, identity: str) -> AsyncIterator[Client]:
        client = await connect_bus(self.server.url, self.authority.issue(identity), "test")
        try:
            yield client
        finally:
            await client.close()

    def settings(self, connect: ConnectDatabase) -> ConnectSettings:
        tls = self.authority.issue("connect/connect")
        return ConnectSettings.model_validate(
            {
                "listen": "127.0.0.1:0",
                "database_url": connect.app_url,
                "tls_cert": tls.cert,
                "tls_key": tls.key,
                "tls_ca": tls.ca,
                "points_address": "127.0.0.1:1",
                "nft_address": "127.0.0.1:1",
                "gateway_address": "127.0.0.1:1",
                "nats_url": self.server.url,
            }
        )


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    with Watchdog() as watchdog:
        bus = Bus(tmp_path_factory.mktemp("bus"), watchdog)
        bus.process.start_and_wait()
        yield bus
        bus.process.stop()


@pytest.fixture
async def connect(postgres: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    return await migrated(postgres, make_database)


@pytest.fixture
async def reading(bus: Bus, connect: ConnectDatabase) -> AsyncIterator[Replica]:
    """A replica that reads the bus; its streams are empty at the start."""
    async with bus.connection("operator/ops") as operator, AsyncExitStack() as stack:
        for stream in await operator.jetstream().streams_info():
            await operator.jetstream().delete_stream(str(stream.config.name))
        one = await stack.enter_async_context(replica(connect))
        await stack.enter_async_context(EventBus(bus.settings(connect), one.intake))
        await eventually(lambda: streams(operator), 2)
        yield one


@pytest.fixture
async def quest(bus: Bus) -> AsyncIterator[Client]:
    async with bus.connection("domain-service/quest") as client:
        yield client


async def streams(client: Client) -> int:
    return len(await client.jetstream().streams_info())


async def eventually(ask: Callable[[], object], wanted: object) -> None:
    """Asks until the answer is the wanted one."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = ask()
        found = await answer if asyncio.iscoroutine(answer) else answer
        if found == wanted:
            return
        assert time.monotonic() < deadline, f"still {found}, not {wanted}"
        await asyncio.sleep(0.05)


async def send(client: Client, sent: events_pb2.Event, message_id: str = "") -> None:
    payload = MessageToJson(sent).encode()
    await publish(
        client, "economy.events.quest", payload, message_id=message_id or sent.external_id
    )


async def unread(bus: Bus) -> int:
    """Messages not acknowledged yet, delivered or not."""
    async with bus.connection("operator/ops") as operator:
        info = await operator.jetstream().consumer_info(EVENT_STREAM, DURABLE)
        return (info.num_ack_pending or 0) + (info.num_pending or 0)


async def dead_letters(bus: Bus, count: int) -> Sequence[Msg]:
    async with bus.connection("operator/ops") as operator:
        letters = await operator.jetstream().pull_subscribe("economy.dead_letter.*")
        found: list[Msg] = []
        while len(found) < count:
            found += await letters.fetch(count, timeout=PATIENCE_SECONDS)
        return found


async def test_both_forms_arrive_and_are_acknowledged(
    bus: Bus, connect: ConnectDatabase, reading: Replica, quest: Client
) -> None:
    await reading.create(rule("quest-reward"))
    json_form, binary_form = event(context={"n": 1}), event()
    await send(quest, json_form)
    payload = binary_form.SerializeToString()
    await publish(quest, "economy.events.quest", payload, message_id=binary_form.external_id)
    await eventually(lambda: connect.count("events"), 2)
    await eventually(lambda: unread(bus), 0)
    assert connect.count("reward_actions") == connect.count("reward_queue") == 2


async def test_the_same_event_by_both_ways_is_one(
    bus: Bus, connect: ConnectDatabase, reading: Replica, quest: Client
) -> None:
    sent = event()
    receipt = await reading.intake.submit(normalize(sent, "event"))
    await send(quest, sent, "first")
    await send(quest, sent, "second")
    await eventually(lambda: unread(bus), 0)
    assert connect.query("SELECT event_id::text FROM events") == [(receipt.event_id,)]


async def test_each_reward_goes_on_in_the_trace_of_its_own_event(connect: ConnectDatabase) -> None:
    traces = ["a" * 32, "b" * 32]
    deliveries = [
        Delivery(
            "economy.events.quest", event().SerializeToString(), 1, 1, f"00-{trace}-{1:016}-01"
        )
        for trace in traces
    ]
    async with replica(connect) as one:
        await one.create(rule("quest-reward"))
        await Inbound(one.intake, DeadLetters(Client()))(deliveries)
    found = connect.query("SELECT traceparent FROM reward_queue ORDER BY sequence")
    assert [parent.split("-")[1] for (parent,) in found] == traces


async def test_what_can_never_be_accepted_becomes_a_dead_letter(
    bus: Bus, connect: ConnectDatabase, reading: Replica, quest: Client
) -> None:
    await send(quest, event(external_id="x"))
    await eventually(lambda: connect.count("events"), 1)
    await send(quest, event(actor_user_id=""))
    await send(quest, event(source="booking"))
    await send(quest, event(external_id="x", actor_user_id="mallory"), "reused")
    await publish(quest, "economy.events.quest", b"{not json", message_id="garbage")
    await publish(
        quest,
        "economy.events.quest.booking",
        MessageToJson(event(source="booking")).encode(),
        message_id="disguised",
    )
    await send(quest, event())

    letters = await dead_letters(bus, 5)
    found = [
        (letter.subject, (letter.headers or {})["reason"], (letter.headers or {}).get("field"))
        for letter in letters
    ]
    subject = "economy.dead_letter.quest"
    assert sorted(found, key=str) == sorted(
        [
            (subject, "INVALID_ARGUMENT", "actor_user_id"),
            (subject, "SOURCE_NOT_OWNED", "source"),
            (subject, "EXTERNAL_ID_REUSED", "external_id"),
            (subject, "INVALID_ARGUMENT", None),
            (subject, "SOURCE_NOT_OWNED", "source"),
        ],
        key=str,
    )
    assert all((letter.headers or {})["message"] for letter in letters)
    assert b"{not json" in [letter.data for letter in letters]
    await eventually(lambda: connect.count("events"), 2)
    await eventually(lambda: unread(bus), 0)


async def test_a_bus_that_goes_away_loses_nothing(
    bus: Bus, connect: ConnectDatabase, reading: Replica, quest: Client
) -> None:
    await send(quest, event())
    await eventually(lambda: connect.count("events"), 1)
    bus.process.stop()
    await reading.intake.submit(submission())  # the other way in stays open
    bus.process.start_and_wait()
    sent = event()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await send(quest, sent)
                break
            except Unavailable:
                await asyncio.sleep(0.1)
    await eventually(lambda: connect.count("events"), 3)
