"""A/B variants: who is assigned which, and what each gives."""

from collections import Counter
from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2, rules_pb2
from google.protobuf.json_format import ParseDict

from connect_svc.deciding import decide, propose, settle, try_rules
from connect_svc.errors import InvalidRule
from connect_svc.limits import Usage
from connect_svc.rules import Catalogue, Decision, Result, compile_rule
from connect_svc.variants import Assignee, assign, assign_all

SHARES = [{"name": "low", "weight": 1}, {"name": "high", "weight": 3}]


def points(key: str = "points", amount: str = "10", **fields: Any) -> dict[str, Any]:
    return {"key": key, "credit_points": {"unit": "G2A", "amount": amount}, **fields}


def rule(**fields: Any) -> rules_pb2.Rule:
    known = {"rule_id": "r", "version": 1, "event_type": "quest.completed", "variants": SHARES}
    return ParseDict(known | fields, rules_pb2.Rule())


def decided(made: rules_pb2.Rule, variant: str) -> Decision:
    sent = events_pb2.Event(event_id="e", event_type="quest.completed", actor_user_id="ada")
    trial = try_rules(Catalogue(1, [compile_rule(made)]), sent)
    assert trial.assignees == {Assignee("r", "ada"): (("low", 1), ("high", 3))}
    return settle(propose(trial, {Assignee("r", "ada"): variant}), Usage())


def test_a_variant_gives_its_own_and_what_all_give() -> None:
    made = rule(
        actions=[
            points(amount="10", variant="low"),
            points(amount="20", variant="high"),
            points("both", "1"),
        ]
    )
    for variant, amount in (("low", 10), ("high", 20)):
        decision = decided(made, variant)
        assert decision.outcomes[0].variant == variant
        assert [(each.key, each.command["amount"], each.variant) for each in decision.actions] == [
            ("points", amount, variant),
            ("both", 1, variant),
        ]


def test_the_same_key_in_two_variants_is_the_same_reward() -> None:
    made = rule(actions=[points(amount="10", variant="low"), points(amount="20", variant="high")])
    ids = {decided(made, variant).actions[0].action_id for variant in ("low", "high")}
    assert len(ids) == 1


def test_a_control_group_matches_gets_nothing_and_uses_no_budget() -> None:
    once = {"window": "WINDOW_CAMPAIGN", "count": 1}
    made = rule(actions=[points(variant="high")], budgets=[once], caps=[once])
    decision = decided(made, "low")
    assert decision.outcomes[0].result is Result.MATCHED
    assert (decision.actions, decision.charges) == ((), ())


def test_a_rule_without_variants_asks_for_none() -> None:
    plain = compile_rule(rule(variants=[], actions=[points()]))
    sent = events_pb2.Event(event_id="e", event_type="quest.completed", actor_user_id="ada")
    assert try_rules(Catalogue(1, [plain]), sent).assignees == {}
    assert decide(Catalogue(1, [plain]), sent).outcomes[0].variant == ""


def test_shares_follow_the_weights() -> None:
    weights = (("low", 1), ("high", 3))
    found = Counter(assign(Assignee("r", f"user-{n}"), weights) for n in range(20_000))
    assert found["low"] + found["high"] == 20_000
    assert 4_700 < found["low"] < 5_300


def test_assignments_are_pinned() -> None:
    """Replicas of two releases must agree, and simulations foretell; never edit this test."""
    weights = (("a", 1), ("b", 1), ("c", 1))
    found = "".join(assign(Assignee("quest", f"user-{n}"), weights) for n in range(12))
    assert found == "bacabcabcacb"


def test_two_rules_split_the_same_users_differently() -> None:
    weights = (("a", 1), ("b", 1))
    users = [f"user-{n}" for n in range(400)]
    same = sum(
        assign(Assignee("one", user), weights) == assign(Assignee("two", user), weights)
        for user in users
    )
    assert 140 < same < 260


def test_whoever_has_a_variant_keeps_it_while_the_rule_does() -> None:
    ada, bob, cy = (Assignee("r", user) for user in ("ada", "bob", "cy"))
    weights = (("new", 1), ("old", 1_000_000))
    found = assign_all(
        {ada: weights, bob: weights, cy: (("new", 1),)}, {ada: "new", cy: "gone", bob: "old"}
    )
    assert found == {ada: "new", bob: "old", cy: "new"}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"variants": SHARES[:1]}, "rule.variants"),
        ({"variants": [*SHARES, SHARES[0]]}, "rule.variants"),
        ({"actions": [points(variant="hgih")]}, "rule.actions[0].variant"),
        ({"variants": [], "actions": [points(variant="low")]}, "rule.actions[0].variant"),
        ({"actions": [points(variant="low"), points(variant="low")]}, "rule.actions[1].key"),
        ({"actions": [points(), points(variant="low")]}, "rule.actions[1].key"),
        ({"actions": [points(variant="low"), points()]}, "rule.actions[1].key"),
    ],
)
def test_variants_that_make_no_sense(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRule) as wrong:
        compile_rule(rule(**{"actions": [points()]} | fields))
    assert wrong.value.field == field
