"""A condition falls into the operands of its `&&`, each with its place and its own value."""

from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2, rules_pb2
from google.protobuf.json_format import ParseDict

from connect_svc.conditions import parts
from connect_svc.deciding import decide
from connect_svc.explanations import MAX_FALSE_SHOWN, Value, explain, simulation
from connect_svc.expressions import BOOL, compile_expression
from connect_svc.rules import Catalogue, CompiledRule, Result, compile_rule

POINTS = {"key": "points", "credit_points": {"unit": "G2A", "amount": "10"}}


def rule(condition: str, rule_id: str = "r", **fields: Any) -> CompiledRule:
    known = {"rule_id": rule_id, "version": 3, "event_type": "quest.completed", "actions": [POINTS]}
    return compile_rule(ParseDict(known | {"condition": condition} | fields, rules_pb2.Rule()))


def event(**context: Any) -> events_pb2.Event:
    made = events_pb2.Event(
        event_id="01890a5d-ac96-774b-bcce-b302099a8057",
        event_type="quest.completed",
        actor_user_id="ada",
    )
    made.context.update(context)
    return made


def texts(condition: str) -> list[str]:
    found = parts(compile_expression(condition, "rule.condition", BOOL))
    return [part.expression.source for part in found]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("true", ["true"]),
        ("1 < 2 && (2 < 3 || false) && true", ["1 < 2", "(2 < 3 || false)", "true"]),
        ("((1 < 2 && (2 < 3)) && (true))", ["1 < 2", "(2 < 3)", "(true)"]),
        ("(1 < 2)&&true", ["(1 < 2)", "true"]),
        ("!(true && false)", ["!(true && false)"]),
        ("'é && (' == 'x' && '\\')' == ''", ["'é && (' == 'x'", "'\\')' == ''"]),
        ("[1, 2].all(n, n > 0 && n < 3) && true", ["[1, 2].all(n, n > 0 && n < 3)", "true"]),
    ],
)
def test_parts_are_the_author_s_own_words(condition: str, expected: list[str]) -> None:
    assert texts(condition) == expected


def test_many_parts_keep_their_order() -> None:
    expected = [f"event.context.n > {n}.0" for n in range(40)]
    assert texts(" && ".join(expected)) == expected


def test_parts_know_their_places() -> None:
    [first, second] = parts(
        compile_expression("event.actor_user_id == 'ü' &&\n  (true)", "rule.condition", BOOL)
    )
    assert (first.line, first.column) == (1, 1)
    assert (second.line, second.column) == (2, 3)


def test_the_deepest_expression_that_compiles_can_be_taken_apart() -> None:
    deep = "event.context.n == 0.0" + " + 1.0" * 27
    assert texts(f"{deep} && true") == [deep, "true"]


def test_each_part_has_a_value_of_its_own() -> None:
    condition = "event.context.tier == 'gold' && event.context.none > 1.0 && event.context.n > 2.0"
    explained = explain(rule(condition), event(tier="silver", n=3), None)
    assert explained.outcome.result is Result.CONDITION_FALSE
    assert explained.outcome.detail == ("The condition is false: `event.context.tier == 'gold'`.")
    assert explained.outcome.rule_version == 3
    assert [value.value for value in explained.parts] == [Value.FALSE, Value.ERROR, Value.TRUE]
    assert "none" in explained.parts[1].detail


def test_a_comprehension_can_be_a_part() -> None:
    condition = "event.context.tags.exists(t, t == 'vip') && event.context.n > 2.0"
    explained = explain(rule(condition), event(tags=["new"], n=3), None)
    assert [value.value for value in explained.parts] == [Value.FALSE, Value.TRUE]


def test_a_rule_of_another_type() -> None:
    explained = explain(rule("true", event_type="booking.paid"), event(), None)
    assert explained.outcome.result is Result.OTHER_EVENT_TYPE
    assert explained.parts == ()


def test_outside_its_window_a_false_condition_is_what_counts() -> None:
    closed = {"valid_to": "1969-01-01T00:00:00Z"}
    rules = [rule("false", "false", **closed), rule("true", "true", **closed)]
    catalogue = Catalogue(1, rules)
    told = simulation(catalogue, event(), decide(catalogue, event()))
    assert [each.outcome.result for each in told.explanations] == [
        Result.CONDITION_FALSE,
        Result.OUTSIDE_WINDOW,
    ]


def test_a_simulation_tells_of_every_rule_but_not_of_thousands_of_false_ones() -> None:
    rules = [rule("false", f"r{number:03}") for number in range(MAX_FALSE_SHOWN + 5)]
    catalogue = Catalogue(1, [*rules, rule("true", "z")])
    told = simulation(catalogue, event(), decide(catalogue, event()))
    assert len(told.explanations) == MAX_FALSE_SHOWN + 1
    assert told.omitted == 5
    assert told.explanations[-1].outcome.result is Result.MATCHED
    [action] = told.decision.actions
    assert action.rule_id == "z"
