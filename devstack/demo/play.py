"""Sends a file's events, half by RPC and half over the event bus, and waits for the answers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import grpc
from go2asia.connect.v1 import events_pb2 as pb
from go2asia.connect.v1.events_pb2_grpc import EventServiceStub
from google.protobuf import json_format
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, DeliverPolicy
from tenacity import (
    retry,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

from cli.documents import Document, Mistake
from mesh.errors import MeshError
from mesh.status import from_item_error

if TYPE_CHECKING:
    from go2asia.connect.v1.events_pb2_grpc import EventServiceAsyncStub

Line = Document[pb.Event]
Key = tuple[str, str]

RPC_BATCH = 20
ASK_AT_ONCE = 16
AGAIN_SECONDS = 0.2
DEAD_LETTERS = "economy.dead_letter.*"


@dataclass
class Played:
    """What became of the lines so far."""

    started: datetime
    sent: int = 0
    rejected: list[Mistake] = field(default_factory=list)
    accepted: int = 0
    """Distinct events that Connect took in during this run."""
    duplicates: int = 0
    """Lines whose event was there before, from this run or an earlier one."""


def key_of(event: pb.Event) -> Key:
    """Return the event's idempotency key."""
    return event.source, event.external_id


async def send_by_rpc(
    lines: Sequence[Line], channel_of: Callable[[str], grpc.aio.Channel], played: Played
) -> None:
    """Send lines as batches in the order of the file, each source with its own certificate."""
    for start in range(0, len(lines), RPC_BATCH):
        chunk = lines[start : start + RPC_BATCH]
        for source in dict.fromkeys(line.message.source for line in chunk):
            own = [line for line in chunk if line.message.source == source]
            await _submit(own, EventServiceStub(channel_of(source)), played)
            played.sent += len(own)


async def _submit(lines: list[Line], events: "EventServiceAsyncStub", played: Played) -> None:
    """Send one batch, and again those of its events that failed for a passing reason."""
    while lines:
        response = await events.BatchSubmitEvents(
            pb.BatchSubmitEventsRequest(events=[line.message for line in lines])
        )
        again = []
        for index, (line, result) in enumerate(zip(lines, response.results, strict=True)):
            if not result.HasField("error"):
                continue
            error = from_item_error(result.error)
            if error.transient:
                again.append(line)
            else:
                played.rejected.append(line.refusal(error, f"events[{index}]"))
        lines = again
        if lines:
            await asyncio.sleep(AGAIN_SECONDS)


async def send_by_bus(
    lines: Sequence[Line], connection_of: Callable[[str], Awaitable[Client]], played: Played
) -> None:
    """Publish lines in the order of the file, each source with its own certificate.

    Returns when the bus has every one on disk.
    """
    for line in lines:
        source = line.message.source
        body = json_format.MessageToJson(line.message, indent=None).encode()
        await _publish(await connection_of(source), f"economy.events.{source}", body)
        played.sent += 1


@retry(
    retry=retry_if_exception_type((NatsError, TimeoutError)),
    wait=wait_random_exponential(multiplier=0.1, max=2),
    stop=stop_after_delay(60),
    reraise=True,
)
async def _publish(connection: Client, subject: str, body: bytes) -> None:
    """Publish until the bus says that it is on disk; twice is harmless, the event has its key."""
    await connection.jetstream().publish(subject, body, timeout=2)


async def await_answers(
    lines: Sequence[Line], bus: JetStreamContext, events: "EventServiceAsyncStub", played: Played
) -> None:
    """Wait until Connect knows every line's event or has dead-lettered it."""
    letters = await bus.pull_subscribe(
        DEAD_LETTERS,
        stream="ECONOMY_DEAD_LETTER",
        config=ConsumerConfig(
            deliver_policy=DeliverPolicy.BY_START_TIME,
            opt_start_time=played.started,
        ),
    )
    refused = {mistake.line for mistake in played.rejected}
    waiting: dict[Key, list[Line]] = {}
    for line in lines:
        if line.line not in refused:
            waiting.setdefault(key_of(line.message), []).append(line)
    while waiting:
        keys = list(waiting)
        for start in range(0, len(keys), ASK_AT_ONCE):
            some = keys[start : start + ASK_AT_ONCE]
            known = await asyncio.gather(*(_received_time(key, events) for key in some))
            for key, received in zip(some, known, strict=True):
                if received is not None:
                    fresh = int(received >= played.started)
                    played.accepted += fresh
                    played.duplicates += len(waiting.pop(key)) - fresh
        try:
            for letter in await letters.fetch(100, timeout=0.5):
                headers = letter.headers or {}
                event = json_format.Parse(letter.data, pb.Event(), ignore_unknown_fields=True)
                for line in waiting.pop(key_of(event), []):
                    wrong = Mistake(
                        line.file, line.line, headers.get("field", ""), headers.get("message", "")
                    )
                    played.rejected.append(wrong)
                await letter.ack()
        except TimeoutError:
            continue


async def _received_time(key: Key, events: "EventServiceAsyncStub") -> datetime | None:
    external = pb.ExternalKey(source=key[0], external_id=key[1])
    try:
        story: pb.GetEventResponse = await events.GetEvent(
            pb.GetEventRequest(external_key=external)
        )
    except MeshError as error:
        if error.reason == "EVENT_NOT_FOUND":
            return None
        raise
    return story.event.received_time.ToDatetime(UTC)
