"""The embedded bus: certificates become users, and users can do no more than their role needs."""

import asyncio
import signal
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from devstack.certificates import Authority
from devstack.nats import CONNECT_INBOX, NatsServer
from devstack.ports import free_port
from devstack.process import Process
from devstack.watchdog import Watchdog

IDENTITIES = ("connect/connect", "domain-service/quest", "operator/ops", "bff/bff")


class Bus:
    """A running server with its authority; `connection` opens one as an identity."""

    def __init__(self, folder: Path, watchdog: Watchdog) -> None:
        self.authority = Authority(folder / "certificates")
        for identity in IDENTITIES:
            self.authority.issue(identity)
        self.server = NatsServer(folder / "nats", free_port(), self.authority.issue("nats/nats"))
        self.server.configure(IDENTITIES)
        self.process = Process(self.server.spec("nats"), folder / "nats.log", watchdog)

    @asynccontextmanager
    async def connection(
        self, identity: str | None, errors: asyncio.Queue[str] | None = None
    ) -> AsyncIterator[Client]:
        context = ssl.create_default_context(cafile=self.authority.issue("nats/nats").ca)
        if identity is not None:
            files = self.authority.issue(identity)
            context.load_cert_chain(files.cert, files.key)

        async def note(error: Exception) -> None:
            if errors is not None:
                await errors.put(str(error).lower())

        client = await nats.connect(
            self.server.url,
            tls=context,
            error_cb=note,
            allow_reconnect=False,
            connect_timeout=3,
            inbox_prefix=CONNECT_INBOX if identity == "connect/connect" else "_INBOX",
        )
        try:
            yield client
        finally:
            await client.close()


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bus]:
    with Watchdog() as watchdog:
        running = Bus(tmp_path_factory.mktemp("bus"), watchdog)
        running.process.start_and_wait()
        yield running
        running.process.stop()


async def publish(bus: Bus, identity: str, subject: str, body: bytes) -> None:
    async with bus.connection(identity) as client:
        await client.jetstream(timeout=2).publish(subject, body)


async def create_stream(bus: Bus, identity: str) -> None:
    async with bus.connection(identity) as client:
        await client.jetstream(timeout=2).add_stream(name="events", subjects=["economy.events.>"])


async def refusal(errors: asyncio.Queue[str]) -> str:
    """The server's complaint, which arrives on its own, after the offending call."""
    async with asyncio.timeout(3):
        return await errors.get()


async def test_domain_service_publishes_and_connect_consumes(bus: Bus) -> None:
    await create_stream(bus, "connect/connect")
    await publish(bus, "domain-service/quest", "economy.events.quest", b"completed")
    async with bus.connection("connect/connect") as client:
        consumer = await client.jetstream().pull_subscribe("economy.events.>", durable="intake")
        [message] = await consumer.fetch(1, timeout=3)
        assert message.data == b"completed"
        await message.ack_sync()


@pytest.mark.parametrize(
    ("identity", "subject"),
    [
        ("domain-service/quest", "economy.rewards.points"),
        ("domain-service/quest", "$JS.API.STREAM.DELETE.events"),
        ("domain-service/quest", "economy.events.booking"),
        ("connect/connect", "economy.events.quest"),
    ],
)
async def test_publishing_elsewhere_is_refused(bus: Bus, identity: str, subject: str) -> None:
    errors: asyncio.Queue[str] = asyncio.Queue()
    async with bus.connection(identity, errors) as client:
        await client.publish(subject, b"")
        assert "permissions violation for publish" in await refusal(errors)


@pytest.mark.parametrize("subject", ["economy.events.>", f"{CONNECT_INBOX}.>", ">"])
async def test_domain_service_cannot_listen_to_others(bus: Bus, subject: str) -> None:
    errors: asyncio.Queue[str] = asyncio.Queue()
    async with bus.connection("domain-service/quest", errors) as client:
        await client.subscribe(subject)
        assert "permissions violation for subscription" in await refusal(errors)


async def test_a_wider_inbox_subscription_hears_no_deliveries(bus: Bus) -> None:
    async with (
        bus.connection("domain-service/quest") as spy,
        bus.connection("operator/ops") as operator,
    ):
        heard: asyncio.Queue[bytes] = asyncio.Queue()

        async def hear(message: Msg) -> None:
            await heard.put(message.data)

        await spy.subscribe("_INBOX.>", cb=hear)
        deadline = time.monotonic() + 5
        # Again and again: the client's flush() may overtake its subscription.
        while heard.empty():
            assert time.monotonic() < deadline
            await operator.publish(f"{CONNECT_INBOX}.1", b"secret")
            await operator.publish("_INBOX.other", b"after it")
            await asyncio.sleep(0.02)
        assert await heard.get() == b"after it"


async def test_without_a_certificate_nobody_connects(bus: Bus) -> None:
    with pytest.raises((NatsError, OSError, TimeoutError)):
        async with bus.connection(None):
            pass


async def test_an_identity_without_business_on_the_bus_is_refused(bus: Bus) -> None:
    with pytest.raises(NatsError, match="Authorization Violation"):
        async with bus.connection("bff/bff"):
            pass


async def test_a_new_identity_is_let_in_by_a_reload(bus: Bus) -> None:
    late = bus.authority.issue("domain-service/late")
    assert not bus.server.admits(late)
    bus.server.configure(bus.authority.identities())
    bus.process.send(signal.SIGHUP)
    deadline = time.monotonic() + 5
    while not bus.server.admits(late):
        assert time.monotonic() < deadline
    await publish(bus, "domain-service/late", "economy.events.late", b"")


async def test_acknowledged_events_survive_sigkill(bus: Bus) -> None:
    await create_stream(bus, "connect/connect")
    for number in range(20):
        await publish(
            bus, "domain-service/quest", "economy.events.quest.kept", str(number).encode()
        )
    bus.process.send(signal.SIGKILL)
    bus.process.wait()
    bus.process.start_and_wait()
    async with bus.connection("operator/ops") as client:
        stream = client.jetstream()
        last = await stream.get_last_msg("events", "economy.events.quest.kept")
        assert last.data == b"19"
