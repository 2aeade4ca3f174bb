"""The bus against a real JetStream server over mutual TLS."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from nats.aio.client import Client
from structlog.testing import capture_logs

from devstack.certificates import Authority
from devstack.nats import NatsServer
from devstack.ports import free_port
from devstack.process import Process
from devstack.watchdog import Watchdog
from mesh import telemetry
from mesh.bus import Delivery, Handle, connect_bus, consume, ensure_stream, probe, publish
from mesh.errors import InvalidArgument, Unavailable

IDENTITIES = ("operator/ops",)
EVENTS = "economy.events.test"
DEAD = "economy.dead.test"


class Stack:
    """A NATS server that a test may stop and start again."""

    def __init__(self, folder: Path, watchdog: Watchdog) -> None:
        self.authority = Authority(folder / "certificates")
        for identity in IDENTITIES:
            self.authority.issue(identity)
        self.server = NatsServer(folder / "nats", free_port(), self.authority.issue("nats/nats"))
        self.server.configure(IDENTITIES)
        self.process = Process(self.server.spec("nats"), folder / "nats.log", watchdog)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Client]:
        tls = self.authority.issue("operator/ops")
        client = await connect_bus(self.server.url, tls, "test")
        try:
            yield client
        finally:
            await client.close()


class Inbox:
    """A handler that answers each delivery as told, else with success, and remembers it."""

    def __init__(self, *answers: object) -> None:
        self.answers = list(answers)
        self.seen: list[Delivery] = []
        self.delivered = asyncio.Event()

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[object]:
        self.seen.extend(deliveries)
        self.delivered.set()
        answers = [self.answers.pop(0) if self.answers else None for _ in deliveries]
        for answer in answers:
            if isinstance(answer, RuntimeError):
                raise answer
        return answers

    @property
    def payloads(self) -> list[bytes]:
        return [delivery.payload for delivery in self.seen]


@pytest.fixture(scope="module")
def bus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Watchdog() as watchdog:
        stack = Stack(tmp_path_factory.mktemp("bus"), watchdog)
        stack.process.start_and_wait()
        yield stack
        stack.process.stop()


@pytest.fixture
async def client(bus: Stack) -> AsyncIterator[Client]:
    """A connection to a bus with fresh, empty streams."""
    async with bus.connection() as client:
        for name, subject in (("events", EVENTS), ("dead", DEAD)):
            await ensure_stream(client, name, [subject], keep=timedelta(hours=1))
        yield client
        for name in ("events", "dead"):
            await client.jetstream().delete_stream(name)


@asynccontextmanager
async def reading(client: Client, handle: Handle) -> AsyncIterator[None]:
    task = asyncio.create_task(
        consume(client, "events", durable="intake", dead_letters=DEAD, handle=handle)
    )
    try:
        yield
    finally:
        task.cancel()


async def until(inbox: Inbox, count: int) -> None:
    async with asyncio.timeout(15):
        while len(inbox.seen) < count:
            await inbox.delivered.wait()
            inbox.delivered.clear()


async def pending(client: Client) -> int:
    await asyncio.sleep(0.1)  # acknowledgements travel on their own
    info = await client.jetstream().consumer_info("events", "intake")
    return (info.num_ack_pending or 0) + (info.num_pending or 0)


async def test_a_message_arrives_once_with_its_trace(client: Client) -> None:
    inbox = Inbox()
    with telemetry.continue_trace(f"00-{'ab' * 16}-{'cd' * 8}-01", "test"):
        await publish(client, EVENTS, b"paid", message_id="1")
    await publish(client, EVENTS, b"paid", message_id="1")
    await publish(client, EVENTS, b"joined", message_id="2")
    async with reading(client, inbox):
        await until(inbox, 2)
        assert await pending(client) == 0
    assert inbox.payloads == [b"paid", b"joined"]
    assert (inbox.seen[0].traceparent or "").split("-")[1] == "ab" * 16


async def test_what_fails_for_now_comes_again(client: Client) -> None:
    inbox = Inbox(Unavailable(), None, RuntimeError("defect"))
    await publish(client, EVENTS, b"one", message_id="1")
    async with reading(client, inbox):
        await until(inbox, 2)
        await publish(client, EVENTS, b"two", message_id="2")
        await until(inbox, 4)
        assert await pending(client) == 0
    assert inbox.payloads == [b"one", b"one", b"two", b"two"]
    assert [delivery.attempt for delivery in inbox.seen] == [1, 2, 1, 2]


async def test_a_delivery_that_breaks_us_is_logged(client: Client) -> None:
    inbox = Inbox(None, ValueError("defect"))
    await publish(client, EVENTS, b"one", message_id="1")
    await publish(client, EVENTS, b"two", message_id="2")
    with capture_logs() as lines:
        async with reading(client, inbox):
            await until(inbox, 3)
    [line] = [line for line in lines if line["event"] == "delivery_broke"]
    assert (line["sequence"], line["attempt"], str(line["exc_info"])) == (2, 1, "defect")


async def test_what_can_never_be_accepted_is_put_aside(client: Client) -> None:
    inbox = Inbox(InvalidArgument("No such thing as a dog quest.", field="event_type"))
    await publish(client, EVENTS, b"dog", message_id="1")
    await publish(client, EVENTS, b"cat", message_id="2")
    async with reading(client, inbox):
        await until(inbox, 2)
        assert await pending(client) == 0
    buried = await client.jetstream().get_msg("dead", seq=1)
    assert buried.data == b"dog"
    assert buried.headers is not None
    assert buried.headers["reason"] == "INVALID_ARGUMENT"
    assert buried.headers["subject"] == EVENTS


async def test_a_restart_of_the_server_loses_nothing(bus: Stack, client: Client) -> None:
    inbox = Inbox()
    async with reading(client, inbox):
        await publish(client, EVENTS, b"before", message_id="1")
        await until(inbox, 1)
        bus.process.stop()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(_until_down(client), 10)
        bus.process.start_and_wait()
        async with asyncio.timeout(15):
            while True:
                try:
                    await publish(client, EVENTS, b"after", message_id="2")
                    break
                except Unavailable:
                    await asyncio.sleep(0.1)
        await until(inbox, 2)
    assert inbox.payloads == [b"before", b"after"]


async def _until_down(client: Client) -> None:
    while True:
        await probe(client)
        await asyncio.sleep(0.05)


async def test_what_is_as_large_as_can_be_is_put_aside_without_its_content(client: Client) -> None:
    refusal = InvalidArgument("No.", field="context." + "x\r\n" * 5_000)
    inbox = Inbox(refusal)
    large = b"x" * (client.max_payload - 100)
    await publish(client, EVENTS, large, message_id="1")
    async with reading(client, inbox):
        letters = await client.jetstream().pull_subscribe(DEAD)
        [buried] = await letters.fetch(1, timeout=10)
        assert await pending(client) == 0
    assert buried.data == b""
    assert buried.headers is not None
    assert buried.headers["left_out"] == str(len(large))
    assert buried.headers["field"].startswith("context.x x")


async def test_a_reader_whose_client_is_closed_says_so(bus: Stack, client: Client) -> None:
    async with bus.connection() as doomed:
        consuming = consume(doomed, "events", durable="intake", dead_letters=DEAD, handle=Inbox())
        task = asyncio.create_task(consuming)
        await asyncio.sleep(0.2)
        await doomed.close()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(task, 10)


async def test_a_stream_keeps_what_an_operator_set(client: Client) -> None:
    stream = client.jetstream()
    config = (await stream.stream_info("events")).config
    await stream.update_stream(config.evolve(max_msgs=1_234))
    await ensure_stream(client, "events", [EVENTS], keep=timedelta(hours=2))
    kept = (await stream.stream_info("events")).config
    assert (kept.max_msgs, kept.max_age) == (1_234, 7_200)
    with pytest.raises(Unavailable, match="replicas"):  # a single server keeps one copy
        await ensure_stream(client, "events", [EVENTS], keep=timedelta(hours=2), replicas=3)
