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
    ("condition", "tried_at"),
    [
        ("event.context.n >= 5.0 && event.context.place == 'p1'", [5, 6]),
        ("event.context.n > 5", [6]),
        ("5.0 >= event.context.n", [4, 5]),
        ("event.context.n < 5.0 && event.context.n > 3.0", [4]),
        ("event.context.n >= 5.0 || event.context.n < 0.0", [4, 5, 6]),
        ("event.context.n >= 9007199254740993", [4, 5, 6]),  # no double holds it
        ("event.context.n >= event.context.m", [4, 5, 6]),
    ],
)
def test_a_number_out_of_bounds_is_not_tried(condition: str, tried_at: list[int]) -> None:
    rules = [rule("r", condition)]
    assert [n for n in (4, 5, 6) if candidates(rules, n=n, place="p1")] == tried_at


def test_a_bound_on_what_is_no_number_errs_and_is_tried() -> None:
    rules = [rule("r", "event.context.n >= 5.0")]
    assert candidates(rules) == ["r"]
    assert candidates(rules, n="4") == ["r"]
