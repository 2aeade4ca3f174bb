"""The event bus (NATS JetStream): at least once in, acknowledged only after the work is durable.

Publishers name each message, so that a repeated publish within the stream's window is dropped; what
slips through is caught by the reader's own idempotency. Readers share a durable pull consumer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, StorageType, StreamConfig
from nats.js.client import JetStreamContext

from mesh import telemetry
from mesh.config import TlsFiles
from mesh.errors import Kind, MeshError, Unavailable
from mesh.tls import client_context

PUBLISH_TIMEOUT_SECONDS = 5.0
FETCH_WAIT_SECONDS = 5.0
# Longer than any batch takes; a reader that dies leaves its messages to others after this.
ACK_WAIT_SECONDS = 60.0
# A defect of ours is tried this often before the message is put aside; outages are outwaited.
MAX_DEFECT_ATTEMPTS = 20
_LONGEST_DELAY_SECONDS = 60.0
_RECONNECT_EVERY_SECONDS = 0.5
_LONGEST_HEADER = 500
# A few headers of that many characters, in UTF-8.
_ROOM_FOR_HEADERS = 16 * 1024

_log = telemetry.logger("bus")
_FAULTS = (nats.errors.Error, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as its handler sees it; `attempt` counts from 1."""

    subject: str
    payload: bytes
    sequence: int
    attempt: int
    traceparent: str | None


# One outcome per delivery, in order: an exception, or anything else for "done, durably".
Handle = Callable[[Sequence[Delivery]], Awaitable[Sequence[object]]]


async def connect_bus(url: str, tls: TlsFiles, name: str, *, inbox: str = "_INBOX") -> Client:
    """A connection that reconnects for ever; waits for as long as no server is there.

    `url` may list servers, separated by commas. `inbox` is the prefix under which this identity is
    allowed to receive replies.
    """

    async def note(error: Exception) -> None:
        _log.warning("bus_fault", error=f"{type(error).__name__}: {error}")

    return await nats.connect(
        servers=url.split(","),
        name=name,
        tls=client_context(tls),
        inbox_prefix=inbox,
        max_reconnect_attempts=-1,
        reconnect_time_wait=_RECONNECT_EVERY_SECONDS,
        error_cb=note,
    )


async def ensure_stream(
    client: Client,
    name: str,
    subjects: Sequence[str],
    *,
    keep: timedelta,
    replicas: int | None = None,
) -> None:
    """Creates or updates a stream on disk that holds its messages for `keep`.

    What else an operator has set on a stream that exists stays, also on how many `replicas` it is
    kept unless they are given. Raises `Unavailable` if the bus does not answer or refuses.
    """
    wanted: dict[str, Any] = {"subjects": list(subjects), "max_age": keep.total_seconds()}
    if replicas is not None:
        wanted["num_replicas"] = replicas
    stream = client.jetstream(timeout=PUBLISH_TIMEOUT_SECONDS)
    try:
        try:
            known = await stream.stream_info(name)
        except nats.js.errors.NotFoundError:
            await stream.add_stream(StreamConfig(name=name, storage=StorageType.FILE, **wanted))
        else:
            await stream.update_stream(known.config.evolve(**wanted))
    except _FAULTS as error:
        raise _unavailable(error) from error


async def publish(client: Client, subject: str, payload: bytes, *, message_id: str) -> None:
    """Returns when the stream has stored the message; the trace goes along.

    Raises `Unavailable` if that is not certain: publish again with the same `message_id`.
    """
    headers = {"Nats-Msg-Id": message_id}
    if (parent := telemetry.traceparent()) is not None:
        headers["traceparent"] = parent
    try:
        await client.jetstream().publish(
            subject, payload, timeout=PUBLISH_TIMEOUT_SECONDS, headers=headers
        )
    except _FAULTS as error:
        raise _unavailable(error) from error


async def probe(client: Client) -> None:
    """For health: raises `Unavailable` while the connection is down."""
    if not client.is_connected:
        raise Unavailable("The event bus is out of reach; check that it runs and where.")


async def consume(
    client: Client,
    stream: str,
    *,
    durable: str,
    dead_letters: str,
    handle: Handle,
    batch: int = 200,
) -> None:
    """Reads a stream for ever, in batches, together with all replicas under the same durable name.

    A delivery that `handle` is done with is acknowledged. One with a transient error comes again
    after a growing delay, and so do all if `handle` raises. One that can never be accepted (any
    other `MeshError`) is stored under the subject `dead_letters` with its reason, then terminated;
    a defect gets there after `MAX_DEFECT_ATTEMPTS`. Raises `Unavailable` when the client is closed,
    as it is for good after a protocol error: connect anew.
    """
    reader = _Reader(client, stream, dead_letters, handle)
    config = ConsumerConfig(
        ack_wait=ACK_WAIT_SECONDS, max_deliver=-1, max_ack_pending=max(1000, 4 * batch)
    )
    while True:
        try:
            subscription = await client.jetstream().pull_subscribe(
                "", durable=durable, stream=stream, config=config
            )
            while True:
                await reader.take(subscription, batch)
        except _FAULTS as error:
            _log.warning("bus_unreadable", stream=stream, error=f"{type(error).__name__}: {error}")
            if client.is_closed:
                raise _unavailable(error) from error
            await asyncio.sleep(_RECONNECT_EVERY_SECONDS)


async def bury(
    client: Client, stream: str, subject: str, delivery: Delivery, why: Mapping[str, str]
) -> None:
    """Stores a delivery of `stream` under `subject`, once, with the headers `why`, cut to size.

    The server counts headers as part of a message, so one that was as large as a message may be
    does not fit with them: it is kept without its content, and the header `left_out` tells how many
    bytes that had. Raises what the client raises.
    """
    headers = {name: " ".join(text.split())[:_LONGEST_HEADER] for name, text in why.items()}
    headers = {name: text for name, text in headers.items() if text}
    headers["Nats-Msg-Id"] = f"{stream}:{delivery.sequence}"
    payload = delivery.payload
    if len(payload) > client.max_payload - _ROOM_FOR_HEADERS:
        headers["left_out"] = str(len(payload))
        payload = b""
    await client.jetstream().publish(
        subject, payload, timeout=PUBLISH_TIMEOUT_SECONDS, headers=headers
    )


class _Reader:
    def __init__(self, client: Client, stream: str, dead_letters: str, handle: Handle) -> None:
        self._client = client
        self._stream = stream
        self._dead_letters = dead_letters
        self._handle = handle

    async def take(self, subscription: JetStreamContext.PullSubscription, batch: int) -> None:
        try:
            messages = await subscription.fetch(batch, timeout=FETCH_WAIT_SECONDS)
        except nats.errors.TimeoutError:
            return
        if not messages:  # the server may answer an expired request with nothing
            return
        deliveries = [_delivery(message) for message in messages]
        try:
            outcomes = await self._handle(deliveries)
        except Exception as error:
            _log.error("batch_broke", stream=self._stream, size=len(deliveries), exc_info=error)
            outcomes = [error] * len(deliveries)
        else:
            self._note_defects(deliveries, outcomes)
        for message, delivery, outcome in zip(messages, deliveries, outcomes, strict=True):
            await self._settle(message, delivery, outcome)

    def _note_defects(self, deliveries: Sequence[Delivery], outcomes: Sequence[object]) -> None:
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            if isinstance(outcome, Exception) and _is_defect(outcome):
                _log.error(
                    "delivery_broke",
                    stream=self._stream,
                    sequence=delivery.sequence,
                    attempt=delivery.attempt,
                    exc_info=outcome,
                )

    async def _settle(self, message: Msg, delivery: Delivery, outcome: object) -> None:
        if not isinstance(outcome, Exception):
            await message.ack()
        elif _comes_again(outcome, delivery.attempt):
            await message.nak(delay=min(_LONGEST_DELAY_SECONDS, 0.25 * 2**delivery.attempt))
        else:
            await self._bury(delivery, outcome)
            await message.term()

    async def _bury(self, delivery: Delivery, error: Exception) -> None:
        reason = error.reason if isinstance(error, MeshError) else type(error).__name__
        _log.error(
            "delivery_buried",
            stream=self._stream,
            sequence=delivery.sequence,
            reason=reason,
            error=str(error),
        )
        why = {
            "subject": delivery.subject,
            "reason": reason,
            "field": (error.field or "") if isinstance(error, MeshError) else "",
            "error": str(error),
        }
        await bury(self._client, self._stream, self._dead_letters, delivery, why)


def _comes_again(error: Exception, attempt: int) -> bool:
    if isinstance(error, MeshError) and not _is_defect(error):
        return error.transient
    return attempt < MAX_DEFECT_ATTEMPTS


def _is_defect(error: Exception) -> bool:
    return not isinstance(error, MeshError) or error.kind is Kind.INTERNAL


def _delivery(message: Msg) -> Delivery:
    return Delivery(
        subject=message.subject,
        payload=message.data,
        sequence=message.metadata.sequence.stream,
        attempt=message.metadata.num_delivered or 1,
        traceparent=(message.headers or {}).get("traceparent"),
    )


def _unavailable(error: BaseException) -> Unavailable:
    return Unavailable(
        f"The event bus did not confirm ({type(error).__name__}: {error}); try again with the "
        "same message id."
    )
