"""Events from the bus: the same intake as the RPCs, acknowledged only after the commit.

A domain service publishes an `Event` on `economy.events.<source>`, in binary form or in its JSON
form. What can never be accepted is kept under `economy.dead_letter.<source>` with the reason.
"""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from types import TracebackType
from typing import Self

import nats.errors
from go2asia.connect.v1 import events_pb2
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from nats.aio.client import Client
from opentelemetry.metrics import CallbackOptions, Observation

from connect_svc.config import ConnectSettings
from connect_svc.intake import Intake
from connect_svc.normalization import DOMAIN_SERVICE, Submission, admit
from mesh.bus import Delivery, bury, connect_bus, consume, ensure_stream
from mesh.errors import InvalidArgument, Kind, MeshError, Unavailable
from mesh.identity import Identity
from mesh.telemetry import continue_trace, logger, meter

EVENT_STREAM = "ECONOMY_EVENTS"
_SUBJECT_PREFIX = "economy.events."
DEAD_LETTER_STREAM = "ECONOMY_DEAD_LETTER"
DEAD_LETTERS = "economy.dead_letter"
# What broke in here again and again; its publisher is not to blame.
DEFECTS = f"{DEAD_LETTERS}.connect"
DURABLE = "connect-intake"
# The server lets nobody but Connect listen under it: deliveries carry the events of all sources.
INBOX = "_INBOX.connect"

_STREAMS = (
    (EVENT_STREAM, f"{_SUBJECT_PREFIX}>", timedelta(days=7)),
    (DEAD_LETTER_STREAM, f"{DEAD_LETTERS}.*", timedelta(days=90)),
)
_RESTART_SECONDS = 1.0
_LONGEST_LOGGED = 500

_log = logger("connect.bus")
_buried = meter.create_counter(
    "connect.bus.dead_letters", unit="{event}", description="Events that can never be accepted."
)


class EventBus:
    """Reads events from the bus within the context, whenever there is a bus.

    Connects in the background and for ever anew, so that the RPCs are served meanwhile.
    """

    def __init__(self, settings: ConnectSettings, intake: Intake) -> None:
        self._settings = settings
        self._intake = intake
        self._client: Client | None = None
        meter.create_observable_gauge(
            "connect.bus.connected",
            callbacks=[self._observe],
            description="1 while the event bus is within reach, else 0.",
        )

    async def __aenter__(self) -> Self:
        self._reading = asyncio.create_task(self._read_for_ever(), name="event bus")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        with suppress(asyncio.CancelledError):
            await self._reading

    async def _read_for_ever(self) -> None:
        while True:
            try:
                await self._read()
            except MeshError as error:
                _log.warning("bus.interrupted", error=error.message)
            except Exception:
                _log.exception("bus.failed")
            await asyncio.sleep(_RESTART_SECONDS)

    async def _read(self) -> None:
        settings = self._settings
        client = await connect_bus(settings.nats_url, settings.tls, "connect", inbox=INBOX)
        self._client = client
        try:
            for name, subject, keep in _STREAMS:
                await ensure_stream(
                    client, name, [subject], keep=keep, replicas=settings.nats_replicas
                )
            _log.info("bus.reading", stream=EVENT_STREAM)
            letters = DeadLetters(client)
            inbound = Inbound(self._intake, letters)
            await consume(
                client, EVENT_STREAM, durable=DURABLE, dead_letters=DEFECTS, handle=inbound
            )
        finally:
            self._client = None
            await client.close()

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        client = self._client
        return [Observation(int(client is not None and client.is_connected))]


class DeadLetters:
    """The stream of what can never be accepted, for its publishers to look into."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def bury(self, delivery: Delivery, error: MeshError) -> None:
        """Keeps a message with the reason why; raises `Unavailable` if that is not certain."""
        why = {"reason": error.reason, "field": error.field or "", "message": error.message}
        subject = f"{DEAD_LETTERS}.{source_of(delivery.subject)}"
        try:
            await bury(self._client, EVENT_STREAM, subject, delivery, why)
        except (nats.errors.Error, OSError, TimeoutError) as failure:
            raise Unavailable(f"The dead letter was not stored: {failure!r}") from failure
        _buried.add(1, {"reason": error.reason})
        said = error.message[:_LONGEST_LOGGED]
        _log.warning("bus.dead_letter", subject=subject, reason=error.reason, error=said)


class Inbound:
    """Hands a batch of deliveries to the intake as one unit; one outcome each, in order."""

    def __init__(self, intake: Intake, letters: DeadLetters) -> None:
        self._intake = intake
        self._letters = letters

    async def __call__(self, deliveries: Sequence[Delivery]) -> Sequence[object]:
        """A delivery that is answered or buried is done; an exception brings it back later."""
        admitted = [_admit(delivery) for delivery in deliveries]
        sound = [
            (each, delivery.traceparent)
            for each, delivery in zip(admitted, deliveries, strict=True)
            if isinstance(each, Submission)
        ]
        with continue_trace(deliveries[0].traceparent, "read events"):
            answers = iter(await self._intake.take(sound))
        outcomes = [next(answers) if isinstance(each, Submission) else each for each in admitted]
        return [
            await self._conclude(delivery, outcome)
            for delivery, outcome in zip(deliveries, outcomes, strict=True)
        ]

    async def _conclude(self, delivery: Delivery, outcome: object) -> object:
        if not isinstance(outcome, MeshError) or outcome.transient:
            return outcome
        if outcome.kind is Kind.INTERNAL:
            return outcome
        try:
            await self._letters.bury(delivery, outcome)
        except Unavailable as error:
            return error
        return None


def source_of(subject: str) -> str:
    """The source that published under `economy.events.<source>` or below it.

    Not the last word: the server lets a source choose what comes behind its own name.
    """
    return subject.removeprefix(_SUBJECT_PREFIX).partition(".")[0]


def parse(payload: bytes) -> events_pb2.Event:
    """The event in a message, of either form; raises `InvalidArgument` for anything else.

    The first byte tells the forms apart: a brace opens JSON, and cannot open a binary Event.
    """
    try:
        if payload.lstrip().startswith(b"{"):
            return json_format.Parse(payload, events_pb2.Event())
        return events_pb2.Event.FromString(payload)
    except (json_format.ParseError, DecodeError, ValueError, RecursionError) as error:
        said = str(error).partition("\n")[0]
        raise InvalidArgument(
            f"The message is no go2asia.connect.v1.Event ({said}); publish its JSON or binary form."
        ) from error


def _admit(delivery: Delivery) -> Submission | MeshError:
    try:
        # The server lets a domain service publish under its own name alone.
        publisher = Identity(DOMAIN_SERVICE, source_of(delivery.subject))
        return admit(parse(delivery.payload), publisher, path="")
    except MeshError as error:
        return error
