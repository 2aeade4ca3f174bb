"""Rules: what compiles, in which order rules are tried, and what they decide."""

from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2, rules_pb2
from google.protobuf.json_format import ParseDict

from connect_svc.deciding import decide
from connect_svc.errors import InvalidExpression, InvalidRule
from connect_svc.rules import (
    Catalogue,
    Decision,
    Result,
    compile_rule,
    derive_action_id,
    stored_rule,
)

POINTS = {"key": "points", "credit_points": {"unit": "G2A", "amount": "10"}}


def rule(rule_id: str = "r", **fields: Any) -> rules_pb2.Rule:
    known = {"rule_id": rule_id, "version": 1, "event_type": "quest.completed", "actions": [POINTS]}
    return ParseDict(known | fields, rules_pb2.Rule())


def event(**fields: Any) -> events_pb2.Event:
    known = {
        "event_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "event_type": "quest.completed",
        "actor_user_id": "ada",
        "occurred_time": "2025-06-07T12:00:00Z",
    }
    return ParseDict(known | fields, events_pb2.Event())


def decided(*rules: rules_pb2.Rule, **fields: Any) -> Decision:
    return decide(Catalogue(7, map(compile_rule, rules)), event(**fields))


def test_higher_priorities_come_first_then_rule_ids() -> None:
    rules = [rule("b"), rule("low", priority=-1), rule("a"), rule("high", priority=5)]
    decision = decided(*rules)
    assert [outcome.rule_id for outcome in decision.outcomes] == ["high", "a", "b", "low"]
    assert [action.rule_id for action in decision.actions] == ["high", "a", "b", "low"]
    assert decision.catalog_version == 7


def test_only_rules_of_the_type_are_tried() -> None:
    assert decided(rule(event_type="booking.paid")).outcomes == ()


def test_a_plainly_false_condition_leaves_no_outcome() -> None:
    decision = decided(rule(condition="event.actor_user_id == 'bob'"))
    assert (decision.outcomes, decision.actions) == ((), ())


@pytest.mark.parametrize(
    ("time", "applies"),
    [
        ("2025-06-06T23:59:59.999999Z", False),
        ("2025-06-07T00:00:00Z", True),
        ("2025-06-08T23:59:59.999999Z", True),
        ("2025-06-09T00:00:00Z", False),
    ],
)
def test_the_window_is_on_the_event_s_own_time(time: str, applies: bool) -> None:
    weekend = rule(valid_from="2025-06-07T00:00:00Z", valid_to="2025-06-09T00:00:00Z")
    [outcome] = decided(weekend, occurred_time=time).outcomes
    assert outcome.result is (Result.MATCHED if applies else Result.OUTSIDE_WINDOW)
    if not applies:
        assert "valid from 2025-06-07T00:00:00Z until 2025-06-09T00:00:00Z" in outcome.detail


def test_an_error_in_the_condition_means_not_matched() -> None:
    broken = rule("broken", condition="event.context.missing == 1.0", priority=1)
    decision = decided(broken, rule("sound"))
    assert [outcome.result for outcome in decision.outcomes] == [Result.ERROR, Result.MATCHED]
    assert decision.outcomes[0].detail.startswith("It did not match, because rule.condition: ")
    assert [action.rule_id for action in decision.actions] == ["sound"]


def test_an_error_in_one_action_takes_the_whole_rule_back() -> None:
    second = {"key": "more", "credit_points": {"unit": "G2A", "amount": "int(event.context.nope)"}}
    decision = decided(rule(actions=[POINTS, second]))
    assert [outcome.result for outcome in decision.outcomes] == [Result.ERROR]
    assert "rule.actions[1].credit_points.amount" in decision.outcomes[0].detail
    assert decision.actions == ()


def test_actions_carry_their_typed_commands() -> None:
    decision = decided(
        rule(
            actions=[
                POINTS,
                {"key": "fee", "debit_points": {"unit": "XP", "amount": "int(event.context.n)"}},
                {
                    "key": "badge",
                    "recipient": "event.primary_subject_user_id",
                    "increment_progress": {"nft_type": "explorer", "counter": "quests"},
                },
                {"key": "medal", "grant_nft": {"nft_type": "medal"}},
                {"key": "token", "mint_onchain": {"nft_type": "medal"}},
                {"key": "ton", "send_ton": {"amount": "5000 * 1000", "comment": "Well done"}},
            ]
        ),
        context={"n": 3},
        primary_subject_user_id="bob",
    )
    [outcome] = decision.outcomes
    assert outcome.action_ids == tuple(action.action_id for action in decision.actions)
    assert [(a.key, a.recipient, a.kind, a.command) for a in decision.actions] == [
        ("points", "ada", "credit_points", {"unit": "G2A", "amount": 10}),
        ("fee", "ada", "debit_points", {"unit": "XP", "amount": 3}),
        (
            "badge",
            "bob",
            "increment_progress",
            {"nft_type": "explorer", "counter": "quests", "amount": 1},
        ),
        ("medal", "ada", "grant_nft", {"nft_type": "medal"}),
        ("token", "ada", "mint_onchain", {"nft_type": "medal"}),
        ("ton", "ada", "send_ton", {"amount": 5_000_000, "comment": "Well done"}),
    ]


def test_the_rule_s_version_is_recorded_but_no_part_of_the_id() -> None:
    [first] = decided(rule(version=1)).actions
    [second] = decided(rule(version=2, priority=9)).actions
    assert (first.rule_version, second.rule_version) == (1, 2)
    assert first.action_id == second.action_id


def test_ids_are_pinned_for_ever() -> None:
    """A changed derivation would give every reward again; this test must never be edited."""
    found = derive_action_id("01890a5d-ac96-774b-bcce-b302099a8057", "quest", "points", "ada")
    assert found == "7a6285e4-fba2-8e49-b225-a52a93a25860"


def test_ids_depend_on_every_part_and_on_their_borders() -> None:
    parts = [("e", "r", "k", "u"), ("f", "r", "k", "u"), ("e", "s", "k", "u"), ("e", "r", "l", "u")]
    parts += [("e", "r", "k", "v"), ("e", "rk", "", "u"), ("er", "k", "", "u")]
    assert len({derive_action_id(*each) for each in parts}) == len(parts)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"actions": [POINTS, POINTS]}, "rule.actions[1].key"),
        ({"actions": [{"key": "nothing"}]}, "rule.actions[0]"),
        (
            {"valid_from": "2025-06-07T00:00:00Z", "valid_to": "2025-06-07T00:00:00Z"},
            "rule.valid_to",
        ),
    ],
)
def test_a_rule_that_contradicts_itself(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRule) as wrong:
        compile_rule(rule(**fields))
    assert wrong.value.field == field


def test_a_validity_out_of_range() -> None:
    wrong = rule()
    wrong.valid_from.seconds = 2**60
    with pytest.raises(InvalidRule, match="out of range"):
        compile_rule(wrong)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"condition": "1 +"}, "rule.condition"),
        ({"actions": [POINTS | {"recipient": "1"}]}, "rule.actions[0].recipient"),
        (
            {"actions": [{"key": "x", "debit_points": {"unit": "G2A", "amount": "1.5"}}]},
            "rule.actions[0].debit_points.amount",
        ),
    ],
)
def test_the_field_at_fault_is_named(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidExpression) as wrong:
        compile_rule(rule(**fields))
    assert wrong.value.field == field


def test_a_stored_rule_that_no_longer_compiles_says_so_and_stops_nothing() -> None:
    broken = stored_rule(rule("broken", condition="event.gone == 1", priority=1))
    decision = decide(Catalogue(1, [broken, compile_rule(rule("sound"))]), event())
    assert [outcome.result for outcome in decision.outcomes] == [Result.ERROR, Result.MATCHED]
    assert "undefined field 'gone'" in decision.outcomes[0].detail


def test_a_catalogue_changes_rule_by_rule() -> None:
    old = Catalogue(1, [compile_rule(rule("a")), compile_rule(rule("b"))])
    new = old.changed(2, {"a": None, "c": compile_rule(rule("c", priority=1))})
    assert [each.rule_id for each in new.rules_for("quest.completed")] == ["c", "b"]
    assert [each.rule_id for each in old.rules_for("quest.completed")] == ["a", "b"]
    assert new.version == 2
