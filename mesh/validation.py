"""Field rules of the contract (`buf.validate`), enforced on requests and on items of batches."""

from collections.abc import Sequence

import protovalidate
from google.protobuf.message import Message

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

    `prefix` is the message's own path within the request, e.g. `items[3]` when a servicer checks
    the items of a batch one by one.
    """
    found = protovalidate.collect_violations(message)
    if found:
        raise InvalidFields([_describe(violation, prefix) for violation in found[:MAX_VIOLATIONS]])


def _describe(violation: protovalidate.Violation, prefix: str) -> tuple[str, str]:
    proto = violation.proto
    path = prefix
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value!r}]".replace("'", '"')
    return path[:MAX_WORDS], (proto.message or f"breaks {proto.rule_id}")[:MAX_WORDS]
