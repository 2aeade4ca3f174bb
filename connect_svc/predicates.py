"""Equalities that a condition demands, so that most rules need no look at most events. Pure.

`event.context.tier == 'gold' && …` is false of every event with another tier, whatever follows:
such a rule is found through a table instead of being tried. An event without a tier is another
matter: there the comparison errs, which an evaluation records, so the rule has to be tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal, TypeAlias

from go2asia.connect.v1 import events_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.struct_pb2 import Value

from connect_svc.conditions import operands
from connect_svc.expressions import Expression, Node

Path: TypeAlias = tuple[str, ...]
"""Field names below `event`."""
Key: TypeAlias = tuple[str, str | float | bool]
"""A value and its kind: to Python true is 1, to CEL it is not."""


class _Missing(Enum):
    MISSING = auto()


MISSING: Final = _Missing.MISSING

_EQUALS = "_==_"
_CONTEXT = "context"
_OTHER: Key = ("other", "")
_TEXT_FIELDS = {
    field.name
    for field in events_pb2.Event.DESCRIPTOR.fields
    if field.type == FieldDescriptor.TYPE_STRING
}


@dataclass(frozen=True, slots=True)
class Equality:
    """What a field must equal; `guarded` when an event without the field is plainly no match."""

    path: Path
    key: Key
    guarded: bool


def equalities(condition: Expression) -> tuple[Equality, ...]:
    """The equalities among the operands of the condition's outermost `&&`."""
    nodes = list(operands(condition.checked().expr))
    # has(event.context.a) is false of an event without it; has(event.context.a.b) may err.
    asked = {path for node in nodes if (path := _path(node, asked=True)) and len(path) == 2}
    return tuple(
        Equality(path, key, path in asked) for node in nodes for path, key in _equality(node)
    )


def read(event: events_pb2.Event, path: Path) -> Key | Literal[_Missing.MISSING]:
    """The event's value at a path of an `Equality`; MISSING where a comparison would err."""
    if len(path) == 1:
        return "text", getattr(event, path[0])
    fields = event.context.fields
    for name in path[1:-1]:
        # Asked first: looking a name up would add it.
        if name not in fields or not fields[name].HasField("struct_value"):
            return MISSING
        fields = fields[name].struct_value.fields
    return _key(fields[path[-1]]) if path[-1] in fields else MISSING


def _key(value: Value) -> Key:
    match value.WhichOneof("kind"):
        case "string_value":
            return "text", value.string_value
        case "number_value":
            return "number", value.number_value
        case "bool_value":
            return "truth", value.bool_value
    return _OTHER


def _equality(node: Node) -> Iterator[tuple[Path, Key]]:
    if node.WhichOneof("expr_kind") != "call_expr" or node.call_expr.function != _EQUALS:
        return
    left, right = node.call_expr.args
    for field, value in ((left, right), (right, left)):
        path, key = _path(field, asked=False), _constant(value)
        if path is not None and key is not None:
            yield path, key


def _path(node: Node, *, asked: bool) -> Path | None:
    """The path that a node selects, or that it asks for with `has()`, if it can be indexed."""
    names: list[str] = []
    while node.WhichOneof("expr_kind") == "select_expr":
        if node.select_expr.test_only != (asked and not names):
            return None
        names.append(node.select_expr.field)
        node = node.select_expr.operand
    if node.WhichOneof("expr_kind") != "ident_expr" or node.ident_expr.name != "event":
        return None
    path = tuple(reversed(names))
    known = path[:1] == (_CONTEXT,) if len(path) > 1 else path and path[0] in _TEXT_FIELDS
    return path if known else None


def _constant(node: Node) -> Key | None:
    constant = node.const_expr
    match constant.WhichOneof("constant_kind"):
        case "string_value":
            return "text", constant.string_value
        case "bool_value":
            return "truth", constant.bool_value
        case "double_value":
            return "number", constant.double_value
        case "int64_value" if int(float(constant.int64_value)) == constant.int64_value:
            return "number", float(constant.int64_value)
    return None
