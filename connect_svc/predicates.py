"""What a condition demands in plain sight, so that most rules need no look at most events. Pure.

`event.context.tier == 'gold' && …` is false of every event with another tier, whatever follows:
such a rule is found through a table instead of being tried. What compares fields with constants is
told in a tenth of the time that CEL takes; most conditions are nothing else. An event without a
tier is another matter: there the comparison errs, which an evaluation records, so CEL is asked.
"""

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
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
_IN = "@in"
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
class Predicate:
    """An operand that compares one field with constants: what CEL would say needs no CEL."""

    path: Path
    compare: Callable[[Key], bool | None]

    def told(self, event: events_pb2.Event) -> bool | None:
        """Whether it holds of the event; None where CEL has to be asked, or would err."""
        key = read(event, self.path)
        return None if key is MISSING else self.compare(key)


@dataclass(frozen=True, slots=True)
class Foresight:
    """What can be told of a condition without CEL, from those operands of its outermost `&&`.

    `complete` if it has no others.
    """

    predicates: tuple[Predicate, ...] = ()
    complete: bool = False

    def told(self, event: events_pb2.Event) -> bool | None:
        """Whether the condition holds of the event; None where CEL has to be asked."""
        sure = self.complete
        for predicate in self.predicates:
            told = predicate.told(event)
            if told is False:
                return False
            if told is None:
                sure = False
        return True if sure else None


def foresight(operands: Sequence[Node]) -> Foresight:
    """The predicates among the operands of a condition's outermost `&&`."""
    found = tuple(each for node in operands if (each := _predicate(node)) is not None)
    return Foresight(found, complete=bool(found) and len(found) == len(operands))


def equalities(operands: Sequence[Node]) -> tuple[Equality, ...]:
    """The equalities among the operands of a condition's outermost `&&`."""
    # has(event.context.a) is false of an event without it; has(event.context.a.b) may err.
    asked = {path for node in operands if (path := _path(node, asked=True)) and len(path) == 2}
    return tuple(
        Equality(path, key, path in asked) for node in operands for path, key in _equality(node)
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


def _predicate(node: Node) -> Predicate | None:
    if node.WhichOneof("expr_kind") != "call_expr":
        return None
    for path, wanted in _equality(node):
        return Predicate(path, wanted.__eq__)
    return _bound(node) or _membership(node)


def _bound(node: Node) -> Predicate | None:
    """`amount >= 100`, also the other way round."""
    function = node.call_expr.function
    if function not in _ORDERS:
        return None
    left, right = node.call_expr.args
    for field, value, order in ((left, right, function), (right, left, _MIRRORED[function])):
        path, key = _path(field, asked=False), _constant(value)
        if path is not None and key is not None and isinstance(key[1], float):
            return Predicate(path, partial(_ordered, _ORDERS[order], key[1]))
    return None


def _ordered(order: Callable[[float, float], bool], number: float, key: Key) -> bool | None:
    return order(key[1], number) if isinstance(key[1], float) else None


def _membership(node: Node) -> Predicate | None:
    """`channel in ['app', 'web']`."""
    if node.call_expr.function != _IN:
        return None
    field, listed = node.call_expr.args
    path, keys = _path(field, asked=False), [_constant(each) for each in listed.list_expr.elements]
    known = frozenset(key for key in keys if key is not None)
    if path is None or not keys or len(known) != len(set(keys)):
        return None
    return Predicate(path, known.__contains__)


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
