"""What an event must be before anything is decided about it, and its one normal form. Pure."""

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any

from go2asia.connect.v1 import events_pb2
from google.protobuf.struct_pb2 import Struct, Value

from connect_svc.errors import ContextTooLarge, SourceNotOwned
from mesh import validation
from mesh.errors import InvalidArgument
from mesh.identity import Identity

# With the length of expressions these bound what an evaluation costs; see `costs`.
MAX_CONTEXT_BYTES = 16 * 1024
MAX_ELEMENTS = 256
MAX_DEPTH = 10

DOMAIN_SERVICE = "domain-service"

_FINGERPRINT_VERSION = b"\x01"
_NANOS_PER_MICRO = 1_000


@dataclass(frozen=True, slots=True)
class Submission:
    """An event in normal form, the versioned hash of its content, and its context as JSON.

    `path` is the event's place in its request, for errors.
    """

    event: events_pb2.Event
    fingerprint: bytes
    context: str
    path: str

    @property
    def key(self) -> tuple[str, str]:
        """(source, external id): the event's idempotency key."""
        return self.event.source, self.event.external_id

    def field(self, name: str) -> str:
        """The path of one of the event's fields within the request."""
        return _join(self.path, name)


def admit(event: events_pb2.Event, reporter: Identity, path: str) -> Submission:
    """Checks an event that `reporter` sent and brings it into normal form; see `normalize`.

    Raises `InvalidFields` for what breaks the contract's rules, `SourceNotOwned` when a domain
    service reports for another, and what `normalize` raises.
    """
    validation.check(event, path)
    if reporter.role == DOMAIN_SERVICE and event.source != reporter.name:
        raise SourceNotOwned(field=_join(path, "source"), source=event.source, caller=str(reporter))
    return normalize(event, path)


def normalize(event: events_pb2.Event, path: str) -> Submission:
    """The event as it is compared, decided upon and stored; the argument stays as it is.

    Without fields that Connect gives, without fields that this version does not know, without an
    empty context, and with its time in whole microseconds, which is what the database keeps.

    Raises `ContextTooLarge`, and `InvalidArgument` for what cannot be stored: times out of range,
    numbers that are not finite, values that are unset, NUL characters.
    """
    normal = events_pb2.Event()
    normal.CopyFrom(event)
    normal.DiscardUnknownFields()
    normal.ClearField("event_id")
    normal.ClearField("received_time")
    if not normal.context.fields:
        normal.ClearField("context")
    _check_time(normal, _join(path, "occurred_time"))
    normal.occurred_time.nanos -= normal.occurred_time.nanos % _NANOS_PER_MICRO
    for field in ("actor_user_id", "primary_subject_user_id"):
        _text(getattr(normal, field), _join(path, field))
    return Submission(normal, _fingerprint(normal), _context(normal, path), path)


def _fingerprint(event: events_pb2.Event) -> bytes:
    """One version byte, then SHA-256 over the deterministic serialisation."""
    digest = hashlib.sha256(event.SerializeToString(deterministic=True)).digest()
    return _FINGERPRINT_VERSION + digest


def _check_time(event: events_pb2.Event, path: str) -> None:
    try:
        event.occurred_time.ToJsonString()
    except ValueError as error:
        raise InvalidArgument(
            "The time is out of range; send a time in the years 1 to 9999.", field=path
        ) from error


def _context(event: events_pb2.Event, path: str) -> str:
    """The context as JSON."""
    path = _join(path, "context")
    size = event.context.ByteSize()
    if size > MAX_CONTEXT_BYTES:
        raise ContextTooLarge(field=path, what="bytes", limit=MAX_CONTEXT_BYTES, actual=size)
    facts = _plain_struct(event.context, path, depth=1)
    return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))


def _plain_struct(struct: Struct, path: str, depth: int) -> dict[str, Any]:
    _check_depth(depth, path)
    if len(struct.fields) > MAX_ELEMENTS:
        raise ContextTooLarge(
            field=path, what="names", limit=MAX_ELEMENTS, actual=len(struct.fields)
        )
    return {
        _text(name, path): _plain(value, _join(path, name), depth)
        for name, value in struct.fields.items()
    }


def _plain(value: Value, path: str, depth: int) -> Any:
    match value.WhichOneof("kind"):
        case "struct_value":
            return _plain_struct(value.struct_value, path, depth + 1)
        case "list_value":
            _check_depth(depth + 1, path)
            elements = value.list_value.values
            if len(elements) > MAX_ELEMENTS:
                raise ContextTooLarge(
                    field=path, what="elements", limit=MAX_ELEMENTS, actual=len(elements)
                )
            return [_plain(element, path, depth + 1) for element in elements]
        case "number_value":
            return _finite(value.number_value, path)
        case "string_value":
            return _text(value.string_value, path)
        case "bool_value":
            return value.bool_value
        case "null_value":
            return None
    raise InvalidArgument("A value is unset; give it a value or leave its name out.", field=path)


def _check_depth(depth: int, path: str) -> None:
    if depth > MAX_DEPTH:
        raise ContextTooLarge(field=path, what="levels above it", limit=MAX_DEPTH, actual=depth)


def _finite(number: float, path: str) -> float:
    if not math.isfinite(number):
        raise InvalidArgument("A number is not finite; send finite numbers only.", field=path)
    return number


def _text(text: str, path: str) -> str:
    if "\0" in text:
        raise InvalidArgument("A text holds a NUL character; leave it out.", field=path)
    return text


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
