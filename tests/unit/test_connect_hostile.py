"""Hostile expressions and contexts: refused with a reason, or harmless; in little time and memory.

Bounds are generous, for slow machines; without the checks these take gigabytes or minutes.
"""

import resource
import time
from collections.abc import Iterator
from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2, rules_pb2
from google.protobuf.json_format import ParseDict

from connect_svc.deciding import decide
from connect_svc.errors import ContextTooLarge, InvalidExpression, InvalidRule
from connect_svc.expressions import BOOL, STRING, EvaluationError, Facts, compile_expression
from connect_svc.normalization import MAX_CONTEXT_BYTES, MAX_ELEMENTS, normalize
from connect_svc.rules import Catalogue, Result, compile_rule
from mesh import validation
from mesh.errors import MeshError

TEXT = "ab" * 7_000
MANY = 250
MOST_SECONDS = 5.0
MOST_BYTES = 400 * 1024 * 1024
LIST = "event.context.list"
SLOW = "event.context.text.matches('(a|b)*c$')"

REFUSED_FOR_DEPTH = {
    "parentheses": "(" * 900 + "true" + ")" * 900,
    "lists": "[" * 900 + "]" * 900 + " == []",
    "fields": "event.context" + ".a" * 900 + " == 1.0",
    "sums": " + ".join(["event.context.text"] * 90) + " == ''",
}
REFUSED_FOR_COST = {
    "texts that double": "[event.context.text]" + ".map(x, x + x)" * 20 + ".exists(x, x == 'a')",
    "lists that double": "[[1, 2]]" + ".map(x, x + x)" * 24 + ".exists(x, size(x) > 5)",
    "nested copies": "[[1]]" + ".map(x, [x, x, x, x])" * 12 + ".exists(x, x == x)",
    "nested maps": "[{'a': 1}]" + ".map(x, {'a': x, 'b': x})" * 20 + ".exists(x, x == x)",
    "texts by the thousand": f"{LIST}.map(a, {LIST}.map(b, event.context.text)).size() > 3",
    "copies by the thousand": f"{LIST}.map(a, {LIST}.map(b, bytes(event.context.text))) == []",
    "patterns by the thousand": f"{LIST}.exists(a, {LIST}.exists(b, {SLOW}))",
    "contexts compared": f"{LIST}.exists(a, {LIST}.exists(b, event.context != event.context))",
    "patterns out of the context": f"{LIST}.exists(a, a.matches(event.context.text))",
    "repeated patterns": f"{LIST}.exists(a, {LIST}.exists(b, a.matches('((a{{1,30}}){{1,30}})')))",
    "loops in loops": f"{LIST}.all(a, {LIST}.all(b, {LIST}.all(c, a == b || b == c)))",
}
HARMLESS = {
    "a long list": "[" + "1," * 900 + "1].exists(x, x == 2)",
    "many negations": "!" * 1_900 + "false",
    "a text that is searched again and again": f"{LIST}.exists(a, {SLOW} || {SLOW})",
    "texts that are gathered": f"{LIST}.map(a, event.context.text).size() == 3",
    "every pair": f"{LIST}.exists(a, {LIST}.exists(b, a + b == 7.0))",
    "a huge pattern": "event.context.text.matches('((a{1,30}){1,30})') && false",
    "a pattern out of the context": "'b'.matches(event.context.pattern)",
}


@pytest.fixture(autouse=True)
def little_time_and_memory() -> Iterator[None]:
    memory, started = _most_memory(), time.process_time()
    yield
    assert time.process_time() - started < MOST_SECONDS
    assert _most_memory() - memory < MOST_BYTES


def _most_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def event(**context: Any) -> events_pb2.Event:
    made = events_pb2.Event(event_type="quest.completed", actor_user_id="ada")
    made.context.update(context)
    made.occurred_time.FromJsonString("2025-06-07T12:00:00Z")
    return made


@pytest.mark.parametrize("source", REFUSED_FOR_DEPTH.values(), ids=REFUSED_FOR_DEPTH)
def test_deep_nesting_is_refused(source: str) -> None:
    with pytest.raises(InvalidExpression, match="recursion"):
        compile_expression(source, "rule.condition", BOOL)


@pytest.mark.parametrize("source", REFUSED_FOR_COST.values(), ids=REFUSED_FOR_COST)
def test_loops_that_could_explode_are_refused(source: str) -> None:
    assert len(source) <= 2_000
    with pytest.raises(InvalidExpression, match=r"loops may take .* MB .* loop over less"):
        compile_expression(source, "rule.condition", BOOL)


@pytest.mark.parametrize("source", HARMLESS.values(), ids=HARMLESS)
def test_what_is_accepted_is_bearable(source: str) -> None:
    half = TEXT[: len(TEXT) // 2]
    known = Facts(event(text=half, pattern="(a|b)*" * 999 + "c", list=[1] * 90))
    assert compile_expression(source, "rule.condition", BOOL).holds(known) is False


def test_the_worst_that_is_accepted_is_bearable() -> None:
    def looped(times: int) -> str:
        return f"{LIST}.exists(a, {' || '.join([SLOW] * times)})"

    most = max(n for n in range(1, 40) if _accepted(looped(n)))
    assert most > 5
    known = Facts(event(text=TEXT, list=[1] * MANY))
    assert compile_expression(looped(most), "rule.condition", BOOL).holds(known) is False


def test_the_loops_of_a_rule_are_bounded_together() -> None:
    amount = f"{LIST}.filter(a, {SLOW} || {SLOW}).size()"
    credit = {"credit_points": {"unit": "G2A", "amount": amount}}
    assert _accepted(f"{amount} > 0")
    rule = {
        "rule_id": "busy",
        "event_type": "quest.completed",
        "actions": [{"key": f"points-{n}", **credit} for n in range(20)],
    }
    with pytest.raises(InvalidRule, match=r"loops together may take .* MB .* loop over less"):
        compile_rule(ParseDict(rule, rules_pb2.Rule()))


def test_whom_a_reward_goes_to_cannot_be_made_huge() -> None:
    source = "[event.context.text]" + ".map(x, x + x)" * 14 + "[0]"
    with pytest.raises(InvalidExpression, match="loops may take"):
        compile_expression(source, "recipient", STRING)


def test_too_many_turns_end_in_an_error_that_the_evaluation_tells() -> None:
    rule = ParseDict(
        {
            "rule_id": "slow",
            "event_type": "quest.completed",
            "condition": f"{LIST}.all(a, {LIST}.all(b, a + b >= 0.0))",
            "actions": [{"key": "points", "credit_points": {"unit": "G2A", "amount": "1"}}],
        },
        rules_pb2.Rule(),
    )
    decision = decide(Catalogue(1, [compile_rule(rule)]), event(list=list(range(MANY))))
    [outcome] = decision.outcomes
    assert outcome.result is Result.ERROR
    assert outcome.detail.startswith("It did not match, because ")
    assert "Iteration budget exceeded" in outcome.detail
    assert decision.actions == ()


def test_an_error_in_a_loop_is_told_too() -> None:
    known = Facts(event(list=["a", 1]))
    with pytest.raises(EvaluationError, match="No matching overloads"):
        compile_expression(f"{LIST}.all(x, x < 2.0)", "rule.condition", BOOL).holds(known)


def test_long_expressions_are_refused_by_the_contract() -> None:
    rule = rules_pb2.Rule(rule_id="long", event_type="a", condition="true || " * 300 + "true")
    with pytest.raises(MeshError, match=r"rule\.condition: must be at most 2000 characters"):
        validation.check(rule, "rule")


@pytest.mark.parametrize(
    ("context", "what"),
    [
        ({"text": "x" * MAX_CONTEXT_BYTES}, "bytes"),
        ({"list": [0] * (MAX_ELEMENTS + 1)}, "elements"),
        ({f"k{n}": 0 for n in range(MAX_ELEMENTS + 1)}, "names"),
        ({"deep": {f"k{n}": 0 for n in range(MAX_ELEMENTS + 1)}}, "names"),
    ],
)
def test_oversize_contexts_are_refused(context: dict[str, Any], what: str) -> None:
    with pytest.raises(ContextTooLarge, match=what):
        normalize(event(**context), "event")


def _accepted(source: str) -> bool:
    try:
        compile_expression(source, "rule.condition", BOOL)
    except InvalidExpression:
        return False
    return True
