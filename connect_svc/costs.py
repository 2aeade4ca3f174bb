"""What an expression may cost at worst, worked out before it is ever used. Pure.

The runtime stops an evaluation after 10,000 turns of loops, but a turn may copy the whole context,
and values that loops build of values may double with each: neither its time nor its memory is
bounded by that. So an expression with a loop is accepted only if, on the largest context there can
be, all that its parts read and make stays below a limit. The expressions of a rule together have a
limit, too, so that an event does not take long, however many of them it meets.

Sizes and costs are in bytes. Within a loop they are sums of multiples of the sizes of elements: the
elements of a list are together no larger than the list, however many there are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from go2asia.connect.v1 import checked_expression_pb2

from connect_svc.normalization import MAX_CONTEXT_BYTES, MAX_ELEMENTS

MAX_COST = 128 * 1024 * 1024
MAX_RULE_COST = 4 * MAX_COST
MAX_TURNS = 10_000  # the runtime's own limit

_Node: TypeAlias = checked_expression_pb2.ExpressionNode
_Loop: TypeAlias = checked_expression_pb2.ExpressionLoop
_Terms: TypeAlias = dict[str, int]
"""Multiples of the sizes of loop variables; the empty name is for what depends on none."""

_LOOPS = re.compile(r"\b(all|exists|exists_one|map|filter)\b")
_EVENT = "event"
_SELF = 256  # what evaluating any node takes besides its operands
_TEXT_FIELD = 512  # the texts of an event have at most 128 characters
_PATTERN = 64  # compiling a byte of a regular expression takes as long as reading so many
_REPEATS = 64 * 1024  # the same for one that repeats parts of itself so many times
_SCALAR = {
    *("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "!_", "@not_strictly_false"),
    *("-_", "_-_", "_*_", "_/_", "_%_", "@in", "size", "contains", "startsWith", "endsWith"),
    *("matches", "int", "uint", "double", "bool", "timestamp", "duration", "type"),
}


@dataclass(frozen=True, slots=True)
class _Bound:
    """How large a node's value is, what it takes, and how many elements any list in it has."""

    size: _Terms
    cost: _Terms
    longest: int = 0


def loops(source: str) -> bool:
    """Whether an expression may hold a loop; those that hold none are cheap whatever they do."""
    return _LOOPS.search(source) is not None


def worst_case(node: _Node) -> int:
    """What evaluating a checked expression costs at most."""
    return _bound(node, {}, 1).cost[""]


def _bound(node: _Node, lengths: Mapping[str, int], turns: int) -> _Bound:
    """`lengths` are those of lists within loop variables, `turns` how often the node is due."""
    match node.WhichOneof("expr_kind"):
        case "const_expr":
            constant = node.const_expr
            size = _SELF + len(constant.string_value.encode()) + len(constant.bytes_value)
            return _Bound({"": size}, {"": size})
        case "ident_expr":
            return _variable(node.ident_expr.name, lengths)
        case "select_expr":
            return _select(node.select_expr, lengths, turns)
        case "call_expr":
            return _call(node.call_expr, lengths, turns)
        case "list_expr":
            elements = [_bound(each, lengths, turns) for each in node.list_expr.elements]
            return _gathered(elements, len(elements))
        case "struct_expr":
            entries = node.struct_expr.entries
            parts = [part for entry in entries for part in (entry.map_key, entry.value)]
            return _gathered([_bound(part, lengths, turns) for part in parts], len(entries))
        case "comprehension_expr":
            return _loop(node.comprehension_expr, lengths, turns)
    return _Bound({"": _SELF}, {"": _SELF})  # the absent key of a message's field


def _variable(name: str, lengths: Mapping[str, int]) -> _Bound:
    if name == _EVENT and name not in lengths:
        return _Bound({"": MAX_CONTEXT_BYTES}, {"": _SELF}, MAX_ELEMENTS)
    if name in lengths:
        return _Bound({"": _SELF, name: 1}, {"": _SELF, name: 1}, lengths[name])
    return _Bound({"": 0}, {"": _SELF})  # what a loop gathered: counted where it is added to


def _select(
    select: checked_expression_pb2.ExpressionSelect, lengths: Mapping[str, int], turns: int
) -> _Bound:
    operand = _bound(select.operand, lengths, turns)
    if select.test_only:
        return _Bound({"": _SELF}, _sum(operand.cost, {"": _SELF}))
    of_event = select.operand.ident_expr.name == _EVENT and _EVENT not in lengths
    if of_event and select.field != "context":
        return _Bound({"": _TEXT_FIELD}, {"": _TEXT_FIELD})
    read = {"": _SELF} if of_event else operand.size  # the context itself is not copied
    return _Bound(operand.size, _sum(operand.cost, read), operand.longest)


def _call(
    call: checked_expression_pb2.ExpressionCall, lengths: Mapping[str, int], turns: int
) -> _Bound:
    nodes = ([call.target] if call.HasField("target") else []) + list(call.args)
    operands = [_bound(each, lengths, turns) for each in nodes]
    taken = _sum(*(each.size for each in operands))
    cost = _sum({"": _SELF}, taken, *(each.cost for each in operands))
    if call.function == "matches":
        pattern = call.args[-1].const_expr.string_value
        repeats = _REPEATS if "{" in pattern else 0
        cost = _sum(cost, _times(_PATTERN, operands[-1].size), {"": repeats})
    if call.function in _SCALAR:
        return _Bound({"": _SELF}, cost)
    lengths_found = [each.longest for each in operands]
    longest = sum(lengths_found) if call.function == "_+_" else max(lengths_found, default=0)
    return _Bound(_sum({"": _SELF}, taken), _sum(cost, taken), longest)


def _gathered(parts: list[_Bound], count: int) -> _Bound:
    size = _sum({"": _SELF * (1 + count)}, *(each.size for each in parts))
    cost = _sum(size, *(each.cost for each in parts))
    return _Bound(size, cost, max([count, *(each.longest for each in parts)]))


def _loop(loop: _Loop, lengths: Mapping[str, int], turns: int) -> _Bound:
    over = _bound(loop.iter_range, lengths, turns)
    count = max(over.longest, 1)
    # What is the same in each turn is bounded by the runtime's limit on turns, too.
    fixed = max(min(count, MAX_TURNS // turns), 1)
    inner = {**lengths, loop.iter_var: over.longest}
    step = _bound(loop.loop_step, inner, turns * fixed)
    condition = _bound(loop.loop_condition, inner, turns * fixed)

    def all_turns(terms: _Terms) -> _Terms:
        outer = {name: count * n for name, n in terms.items() if name not in ("", loop.iter_var)}
        elements = _times(terms.get(loop.iter_var, 0), over.size)
        return _sum(outer, elements, {"": fixed * terms.get("", 0)})

    cost = _sum(over.cost, all_turns(_sum({"": _SELF}, step.cost, condition.cost)))
    if loop.accu_init.WhichOneof("expr_kind") != "list_expr":
        return _Bound({"": _SELF}, cost)
    return _Bound(all_turns(step.size), cost, max(over.longest, step.longest))


def _sum(*terms: _Terms) -> _Terms:
    total: _Terms = {"": 0}
    for each in terms:
        for name, n in each.items():
            total[name] = total.get(name, 0) + n
    return total


def _times(factor: int, terms: _Terms) -> _Terms:
    return {name: factor * n for name, n in terms.items()}
