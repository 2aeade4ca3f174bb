"""What a condition demands in plain sight, so that most rules need no look at most events. Pure.

`event.context.tier == 'gold' && …` is false of every event with another tier, whatever follows:
such a rule is found through a table instead of being tried. `event.context.amount >= 100 && …` is
false of every smaller amount, and seeing so takes a tenth of what CEL takes to say it. An event
without a tier or an amount is another matter: there the comparison errs, which an evaluation
records, so the rule has to be tried.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Literal, TypeAlias

from go2asia.connect.v1 import events_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.struct_pb2 import Value

from connect_svc.expressions import Node

Path: TypeAlias = tuple[str, ...]
"""Field names below `event`."""
Key: TypeAlias = tuple[str, str | float | bool]
"""A value and its kind: to Python true is 1, to CEL it is not."""


class _Missing(Enum):
    MISSING = auto()


MISSING: Final = _Missing.MISSING

_EQUALS = "_==_"
_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    "_<_": operator.lt,
    "_<=_": operator.le,
    "_>_": operator.gt,
    "_>=_": operator.ge,
}
_MIRRORED = {"_<_": "_>_", "_<=_": "_>=_", "_>_": "_<_", "_>=_": "_<=_"}
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


@dataclass(frozen=True, slots=True)
class Bound:
    """What a number of the context must keep, as in `amount >= 100`."""

    path: Path
    order: Callable[[float, float], bool]
    number: float

    def refuted(self, event: events_pb2.Event) -> bool:
        """Whether the event plainly breaks it; False where a comparison would err."""
        key = read(event, self.path)
        if key is MISSING or not isinstance(key[1], float):
            return False
        return not self.order(key[1], self.number)


def bounds(operands: Iterable[Node]) -> tuple[Bound, ...]:
    """The bounds among the operands of a condition's outermost `&&`."""
    return tuple(bound for node in operands if (bound := _bound(node)) is not None)


def equalities(operands: Iterable[Node]) -> tuple[Equality, ...]:
    """The equalities among the operands of a condition's outermost `&&`."""
    nodes = list(operands)
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
    name = path[-1]
    return _key(fields[name]) if name in fields else MISSING


def _key(value: Value) -> Key:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return "text", value.string_value
    if kind == "number_value":
        return "number", value.number_value
    if kind == "bool_value":
        return "truth", value.bool_value
    return _OTHER


def _bound(node: Node) -> Bound | None:
    function = node.call_expr.function
    if node.WhichOneof("expr_kind") != "call_expr" or function not in _ORDERS:
        return None
    left, right = node.call_expr.args
    sides = ((left, right, function), (right, left, _MIRRORED[function]))
    for field, value, order in sides:
        path, key = _path(field, asked=False), _constant(value)
        if path is not None and path[0] == _CONTEXT and key is not None and key[0] == "number":
            return Bound(path, _ORDERS[order], float(key[1]))
    return None


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
