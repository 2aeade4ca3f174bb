"""Caps, budgets and stacking: which of the rules that match give something."""

from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2, rules_pb2
from google.protobuf.json_format import ParseDict

from connect_svc.deciding import propose, settle, try_rules
from connect_svc.errors import InvalidRule
from connect_svc.limits import Charge, Counter, Usage, released
from connect_svc.rules import Catalogue, Decision, Outcome, Result, compile_rule

POINTS = {"key": "points", "credit_points": {"unit": "G2A", "amount": "10"}}
DAILY = {"window": "WINDOW_DAY", "count": 2}
SATURDAY = "2025-06-07T12:00:00Z"


def rule(rule_id: str = "r", **fields: Any) -> rules_pb2.Rule:
    known = {"rule_id": rule_id, "version": 1, "event_type": "quest.completed", "actions": [POINTS]}
    return ParseDict(known | fields, rules_pb2.Rule())


def event(user: str = "ada", occurred: str = SATURDAY, **fields: Any) -> events_pb2.Event:
    known = {
        "event_id": "01890a5d-ac96-774b-bcce-b302099a8057",
        "event_type": "quest.completed",
        "actor_user_id": user,
        "occurred_time": occurred,
        "received_time": occurred,
    }
    return ParseDict(known | fields, events_pb2.Event())


class Economy:
    """Rules, and counters that remember."""

    def __init__(self, *rules: rules_pb2.Rule) -> None:
        self._catalogue = Catalogue(1, map(compile_rule, rules))
        self.usage = Usage()

    def decide(self, *arguments: Any, **fields: Any) -> Decision:
        trial = try_rules(self._catalogue, event(*arguments, **fields))
        return settle(propose(trial, {}), self.usage)

    def outcome(self, *arguments: Any, **fields: Any) -> Outcome:
        [outcome] = self.decide(*arguments, **fields).outcomes
        return outcome

    def results(self, *arguments: Any, **fields: Any) -> list[Result]:
        return [each.result for each in self.decide(*arguments, **fields).outcomes]


def test_a_cap_is_each_user_s_own_in_each_window() -> None:
    economy = Economy(rule(caps=[DAILY]))
    first = [economy.outcome("ada").result for _ in range(3)]
    assert first == [Result.MATCHED, Result.MATCHED, Result.CAP_REACHED]
    assert economy.outcome("ada").detail == (
        "User ada has 2 of 2 matches of the day 2025-06-07; this event would add 1."
    )
    assert economy.outcome("bob").result is Result.MATCHED
    assert economy.outcome("ada", "2025-06-08T00:00:00Z").result is Result.MATCHED
    assert economy.outcome("ada", "2025-06-06T23:59:59Z").result is Result.MATCHED


def test_a_budget_is_all_users_together() -> None:
    economy = Economy(rule(budgets=[{"window": "WINDOW_CAMPAIGN", "count": 2}]))
    results = [economy.outcome(user).result for user in ("ada", "bob", "cy")]
    assert results == [Result.MATCHED, Result.MATCHED, Result.BUDGET_SPENT]
    assert economy.outcome("cy").detail.startswith("The rule has 2 of 2 matches of the campaign;")


def test_an_amount_is_never_split() -> None:
    amount = {"key": "p", "credit_points": {"unit": "G2A", "amount": "int(event.context.n)"}}
    limit = {"window": "WINDOW_WEEK", "amount": {"unit": "G2A", "value": 100}}
    economy = Economy(rule(actions=[amount], budgets=[limit]))
    results = [economy.outcome(context={"n": n}).result for n in (60, 50, 40, 1)]
    assert results == [Result.MATCHED, Result.BUDGET_SPENT, Result.MATCHED, Result.BUDGET_SPENT]


def test_several_actions_are_one_match_and_the_sum_of_their_points() -> None:
    more = {"key": "more", "credit_points": {"unit": "G2A", "amount": "5"}}
    other = {"key": "xp", "credit_points": {"unit": "XP", "amount": "1000"}}
    fee = {"key": "fee", "debit_points": {"unit": "G2A", "amount": "1000"}}
    badge = {"key": "b", "increment_progress": {"nft_type": "explorer", "counter": "quests"}}
    limits = [DAILY, {"window": "WINDOW_DAY", "amount": {"unit": "G2A", "value": 30}}]
    economy = Economy(rule(actions=[POINTS, more, other, fee, badge], caps=limits))
    assert economy.results() == economy.results() == [Result.MATCHED]
    assert {counter.unit: used for counter, used in economy.usage.added.items()} == {
        "": 2,
        "G2A": 30,
    }
    assert economy.results() == [Result.CAP_REACHED]


def test_every_recipient_has_a_cap_and_one_at_it_stops_the_whole_match() -> None:
    inviter = POINTS | {"key": "inviter", "recipient": "event.primary_subject_user_id"}
    economy = Economy(rule(actions=[inviter, POINTS], caps=[DAILY]))
    for friend in ("ada", "bob"):
        assert economy.results(friend, primary_subject_user_id="eve") == [Result.MATCHED]
    assert economy.results("cy", primary_subject_user_id="eve") == [Result.CAP_REACHED]
    assert economy.results("cy", primary_subject_user_id="dan") == [Result.MATCHED]


def test_a_refused_match_counts_nowhere() -> None:
    economy = Economy(rule(caps=[DAILY], budgets=[{"window": "WINDOW_DAY", "count": 3}]))
    for _ in range(5):
        economy.outcome("ada")
    assert economy.outcome("bob").result is Result.MATCHED
    assert economy.outcome("cy").result is Result.BUDGET_SPENT


def test_the_first_of_a_group_that_stops_keeps_the_later_ones_out() -> None:
    stop = {"group": "quests", "stop_after": True}
    economy = Economy(
        rule("a", priority=3, stacking={"group": "quests"}),
        rule("b", priority=2, stacking=stop),
        rule("c", priority=1, stacking={"group": "quests"}),
        rule("elsewhere", stacking={"group": "others", "stop_after": True}),
        rule("loose"),
    )
    decision = economy.decide()
    assert {each.rule_id: each.result for each in decision.outcomes} == {
        "a": Result.MATCHED,
        "b": Result.MATCHED,
        "c": Result.STACKED_OUT,
        "elsewhere": Result.MATCHED,
        "loose": Result.MATCHED,
    }
    assert decision.outcomes[2].detail == (
        "Rule b matched and stops the others of the group quests."
    )
    assert [each.rule_id for each in decision.actions] == ["a", "b", "elsewhere", "loose"]


@pytest.mark.parametrize(
    ("fields", "result"),
    [
        ({"caps": [DAILY]}, Result.CAP_REACHED),
        ({"budgets": [DAILY]}, Result.BUDGET_SPENT),
        ({"valid_to": "2025-06-07T00:00:00Z"}, Result.OUTSIDE_WINDOW),
        ({"condition": "event.context.nope == 1.0"}, Result.ERROR),
    ],
)
def test_a_rule_that_gives_nothing_leaves_its_place_to_the_next(
    fields: dict[str, Any], result: Result
) -> None:
    stop = {"group": "quests", "stop_after": True}
    economy = Economy(rule("first", priority=1, stacking=stop, **fields), rule("z", stacking=stop))
    for _ in range(2):
        economy.decide()
    assert economy.results() == [result, Result.MATCHED]


def test_a_stacked_out_rule_counts_nowhere() -> None:
    stop = {"group": "quests", "stop_after": True}
    economy = Economy(rule("a", stacking=stop), rule("b", stacking=stop, caps=[DAILY]))
    economy.decide()
    assert economy.usage.added == {}


@pytest.mark.parametrize(
    ("occurred", "received", "late"),
    [
        ("2025-06-07T12:00:00Z", "2025-06-14T17:00:00Z", False),
        ("2025-06-07T12:00:00Z", "2025-06-14T17:00:00.000001Z", True),
        ("2025-06-07T17:00:00Z", "2025-06-15T17:00:00Z", False),
    ],
)
def test_a_window_counts_for_seven_days_after_its_end(
    occurred: str, received: str, late: bool
) -> None:
    economy = Economy(rule(caps=[DAILY], time_zone="Asia/Bangkok"))
    outcome = economy.outcome("ada", occurred, received_time=received)
    assert outcome.result is (Result.TOO_LATE if late else Result.MATCHED)
    if late:
        assert outcome.detail == (
            "It was taken in more than 7 days after the day 2025-06-07 of its limits ended "
            "(Asia/Bangkok)."
        )


def test_only_limits_make_an_event_too_late() -> None:
    years_later = {"received_time": "2031-01-01T00:00:00Z"}
    campaign = [{"window": "WINDOW_CAMPAIGN", "count": 5}]
    assert Economy(rule()).results(**years_later) == [Result.MATCHED]
    assert Economy(rule(budgets=campaign)).results(**years_later) == [Result.MATCHED]
    ended = rule(budgets=campaign, last_date="2025-06-30")
    assert Economy(ended).results(**years_later) == [Result.TOO_LATE]


@pytest.mark.parametrize("occurred", ["0001-01-01T00:00:00Z", "9999-12-31T23:00:00Z"])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Lima"])
@pytest.mark.parametrize("window", ["WINDOW_DAY", "WINDOW_WEEK"])
def test_the_calendar_s_ends_are_no_failure(occurred: str, zone: str, window: str) -> None:
    limited = rule(time_zone=zone, caps=[{"window": window, "count": 1}])
    closed = rule("closed", time_zone=zone, valid_from=SATURDAY, valid_to="2025-06-08T00:00:00Z")
    results = Economy(limited, closed).results("ada", occurred)
    assert results[0] is Result.OUTSIDE_WINDOW
    assert results[1] in (Result.ERROR, Result.MATCHED)


def counter(user: str, unit: str = "") -> Counter:
    return Counter("r", user, "day 2025-06-07", unit)


def test_a_match_stays_counted_while_one_of_its_actions_stands() -> None:
    charges = [
        Charge("1", counter("ada"), 1),
        Charge("1", counter("ada", "G2A"), 10),
        Charge("2", counter("ada"), 1),
        Charge("2", counter("ada", "G2A"), 5),
        Charge("3", counter("bob"), 1),
    ]
    assert released(charges, ["1"]) == {counter("ada", "G2A"): 10}
    assert released(charges[2:], ["2"]) == {counter("ada"): 1, counter("ada", "G2A"): 5}
    assert released(charges, ["1", "2", "3"]) == {
        counter("ada"): 1,
        counter("ada", "G2A"): 15,
        counter("bob"): 1,
    }
    assert released(charges, ["4"]) == {}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"caps": [DAILY, DAILY]}, "rule.caps[1]"),
        ({"budgets": [DAILY, DAILY | {"count": 9}]}, "rule.budgets[1]"),
        ({"caps": [{"count": 1}]}, "rule.caps[0]"),
        ({"budgets": [{"window": "WINDOW_DAY"}]}, "rule.budgets[0]"),
        (
            {"budgets": [{"window": "WINDOW_DAY", "amount": {"unit": "XP", "value": 1}}]},
            "rule.budgets[0].amount.unit",
        ),
    ],
)
def test_a_limit_that_makes_no_sense(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRule) as wrong:
        compile_rule(rule(**fields))
    assert wrong.value.field == field
