"""What a condition is made of, read from its checked form: the operands of its `&&`. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from connect_svc.expressions import Expression, Node

_AND = "_&&_"
# Quoted text is skipped, so that a parenthesis in it does not count.
_PARENTHESES = re.compile(r"(\"\"\"|'''|\"|')(?:\\.|(?!\1).)*\1|[()]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Part:
    """An operand of a condition's outermost `&&`; line and column count from 1."""

    line: int
    column: int
    expression: Expression


def parts(condition: Expression) -> list[Part]:
    """The operands of the outermost `&&`, in the order of the text; the whole if there is none."""
    checked = condition.checked()
    nodes = list(operands(checked.expr))
    places = checked.source_info.positions
    text = condition.source
    borders = [places[node.id] for node in _conjunctions(checked.expr)]
    starts = [0, *(border + len("&&") for border in borders)]
    found = []
    for node, start, end in zip(nodes, starts, [*borders, len(text)], strict=True):
        first, last = _trim(text, start, end)
        line = text.count("\n", 0, first) + 1
        column = first - (text.rfind("\n", 0, first) + 1) + 1
        found.append(Part(line, column, condition.part(checked, node, text[first:last])))
    return found


def operands(node: Node) -> Iterator[Node]:
    """The operands of a node's outermost `&&`, left to right; the node itself if it is none."""
    if not _is_conjunction(node):
        yield node
        return
    for operand in node.call_expr.args:
        yield from operands(operand)


def _conjunctions(node: Node) -> Iterator[Node]:
    """The `&&` between those operands, left to right."""
    if not _is_conjunction(node):
        return
    left, right = node.call_expr.args
    yield from _conjunctions(left)
    yield node
    yield from _conjunctions(right)


def _is_conjunction(node: Node) -> bool:
    return node.WhichOneof("expr_kind") == "call_expr" and node.call_expr.function == _AND


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    """Without space around it, and without parentheses that are closed or opened elsewhere."""
    opened: list[int] = []
    for match in _PARENTHESES.finditer(text, start, end):
        if match.group() == "(":
            opened.append(match.end())
        elif match.group() == ")" and opened:
            opened.pop()
        elif match.group() == ")":
            end = match.start()
            break
    if opened:
        start = opened[-1]
    start += len(text[start:end]) - len(text[start:end].lstrip())
    return start, start + len(text[start:end].rstrip())
