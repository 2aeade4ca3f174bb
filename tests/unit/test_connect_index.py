"""Which rules an index leaves to be tried."""

import pytest
from go2asia.connect.v1 import events_pb2, rules_pb2

from connect_svc.rules import Catalogue, CompiledRule, compile_rule


def rule(rule_id: str, condition: str) -> CompiledRule:
    made = rules_pb2.Rule(rule_id=rule_id, event_type="visit.paid", condition=condition)
    action = made.actions.add(key="points")
    action.credit_points.unit, action.credit_points.amount = "G2A", "1"
    return compile_rule(made)


def candidates(rules: list[CompiledRule], **context: object) -> list[str]:
    event = events_pb2.Event(event_type="visit.paid", actor_user_id="ada")
    event.context.update(context)
    return [each.rule_id for each in Catalogue(1, rules).candidates(event)]


def test_of_many_rules_one_is_tried() -> None:
    rules = [
        rule(f"r{n:04}", f"event.context.kind == 'paid' && event.context.place == 'p{n}'")
        for n in range(500)
    ]
    assert candidates(rules, kind="paid", place="p77") == ["r0077"]
    assert candidates(rules, kind="paid", place="elsewhere") == []


def test_without_the_field_the_comparison_errs_and_every_rule_is_tried_that_does_not_ask() -> None:
    asks = "has(event.context.place) && event.context.place == 'p1'"
    rules = [rule("asks", asks), rule("trusts", "event.context.place == 'p1'")]
    assert candidates(rules) == ["trusts"]
    assert candidates(rules, place="p1") == ["asks", "trusts"]


def test_what_demands_nothing_is_always_tried_in_its_order() -> None:
    rules = [
        rule("c", "event.context.place == 'p1'"),
        rule("b", "event.context.place == 'p1' || true"),
        rule("a", ""),
        rule("d", "event.context.n > 1.0"),
    ]
    assert candidates(rules, place="p1") == ["a", "b", "c", "d"]
    assert candidates(rules, place="p2") == ["a", "b", "d"]


@pytest.mark.parametrize(
    "condition",
    [
        "event.context.n == 9007199254740993",  # no double holds it
        "event.context.place == event.context.home",
        "!(event.context.place == 'p1')",
        "event.context.place == 'p1' ? true : false",
        "event.context.tags.exists(t, t == 'vip')",
        "event.context == {}",
    ],
)
def test_what_cannot_be_looked_up_is_no_equality(condition: str) -> None:
    assert rule("r", condition).equalities == ()


@pytest.mark.parametrize(
    ("condition", "told"),
    [
        ("event.context.n >= 5.0", True),
        ("event.context.n > 5", False),
        ("5.0 >= event.context.n", True),
        ("event.context.n < 5.0 && event.context.n > 3.0", False),
        ("event.context.place == 'p1' && event.context.n == 5", True),
        ("event.context.place in ['p1', 'p2']", True),
        ("event.context.place in ['p2', 5]", False),
        ("event.actor_user_id == 'bob' && event.context.absent == 1", False),
        ("event.context.absent == 1", None),
        ("event.context.place >= 5.0", None),  # errs: texts and numbers have no order
        ("event.context.n >= 5.0 && size(event.context.place) == 2", None),
        ("event.context.n >= 5.0 || event.context.n < 0.0", None),
        ("event.context.n >= 9007199254740993", None),  # no double holds it
        ("event.context.n >= event.context.n", None),
        ("event.context.place in [event.actor_user_id]", None),
        ("event.context.place in []", None),
    ],
)
def test_what_compares_fields_with_constants_is_told_without_cel(
    condition: str, told: bool | None
) -> None:
    event = events_pb2.Event(event_type="visit.paid", actor_user_id="ada")
    event.context.update({"n": 5, "place": "p1"})
    assert rule("r", condition).foresight.told(event) is told
