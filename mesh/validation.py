"""Field rules of the contract (`buf.validate`), enforced on requests and on items of batches."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import protovalidate
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct

from mesh.errors import InvalidArgument

# Violations travel in trailers, which peers bound to some kilobytes; paths may quote long map keys.
MAX_VIOLATIONS = 8
MAX_WORDS = 120


class InvalidFields(InvalidArgument):
    """One or more fields break their rules; `violations` holds (field path, what is wrong) pairs.

    On the wire it is the same INVALID_ARGUMENT as its parent, with every pair in
    `google.rpc.BadRequest`. Lists the first `MAX_VIOLATIONS`.
    """

    def __init__(self, violations: Sequence[tuple[str, str]]) -> None:
        listed = "; ".join(f"{field or 'request'}: {wrong}" for field, wrong in violations)
        super().__init__(f"Correct these fields and send again: {listed}.", field=violations[0][0])
        self.violations = tuple(violations)


def check(message: Message, prefix: str = "") -> None:
    """Raises `InvalidFields` with all violations of the message's rules.

    `prefix` is the message's own path within the request.
    """
    found = protovalidate.collect_violations(message)
    if found:
        raise InvalidFields([_describe(violation, prefix) for violation in found[:MAX_VIOLATIONS]])


def unstorable_field(message: Message) -> str | None:
    """The path of the first field with a text that holds a NUL, or a number that is not finite.

    Few rules of the contract forbid these; to look at every text would cost every request.
    """
    for name, value in _fields(message):
        if isinstance(value, Message):
            if (inner := unstorable_field(value)) is not None:
                # What a Struct holds are no fields of the contract.
                return name if isinstance(value, Struct) else f"{name}.{inner}"
        elif (isinstance(value, str) and "\0" in value) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            return name
    return None


def _fields(message: Message) -> Iterator[tuple[str, Any]]:
    """The path and value of what is set in a message, elements one by one, and keys of maps."""
    for field, value in message.ListFields():
        if isinstance(value, Message | str | bytes):
            yield field.name, value
        elif isinstance(value, Mapping):
            for key, element in value.items():
                name = f"{field.name}[{key!r}]".replace("'", '"')[:MAX_WORDS]
                yield name, key
                yield name, element
        elif isinstance(value, Sequence):
            for number, element in enumerate(value):
                yield f"{field.name}[{number}]", element
        else:
            yield field.name, value


def _describe(violation: protovalidate.Violation, prefix: str) -> tuple[str, str]:
    proto = violation.proto
    path = prefix
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value!r}]".replace("'", '"')
    return path[:MAX_WORDS], (proto.message or f"breaks {proto.rule_id}")[:MAX_WORDS]
