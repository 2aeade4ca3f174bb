"""Deciding depends on the rules and the event, on nothing else."""

from go2asia.connect.v1 import events_pb2, rules_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_svc.deciding import decide
from connect_svc.rules import Catalogue, Result, compile_rule

CONDITIONS = ("", "true", "false", "event.context.n > 2.0", "event.context.missing == 1.0")
AMOUNTS = ("1", "int(event.context.n)", "int(event.context.n) - 3", "1 / int(event.context.n)")
TYPES = ("quest.completed", "booking.paid")

names = st.text("abc-", min_size=0, max_size=3).map(lambda rest: "r" + rest)


@st.composite
def rules(draw: st.DrawFn) -> list[rules_pb2.Rule]:
    made = []
    for rule_id in draw(st.lists(names, unique=True, max_size=6)):
        rule = rules_pb2.Rule(
            rule_id=rule_id,
            version=draw(st.integers(1, 3)),
            event_type=draw(st.sampled_from(TYPES)),
            condition=draw(st.sampled_from(CONDITIONS)),
            priority=draw(st.integers(-2, 2)),
        )
        for key in draw(st.lists(names, unique=True, min_size=1, max_size=3)):
            action = rule.actions.add(key=key)
            action.credit_points.unit = "G2A"
            action.credit_points.amount = draw(st.sampled_from(AMOUNTS))
        made.append(rule)
    return made


@st.composite
def events(draw: st.DrawFn) -> events_pb2.Event:
    event = events_pb2.Event(
        event_id=str(draw(st.uuids())),
        event_type=draw(st.sampled_from(TYPES)),
        actor_user_id=draw(st.sampled_from(["ada", "bob"])),
    )
    event.context["n"] = draw(st.integers(-1, 9))
    return event


@given(rules(), events(), st.randoms())
@settings(deadline=None)
def test_the_order_of_the_rules_makes_no_difference(
    made: list[rules_pb2.Rule], event: events_pb2.Event, chance: object
) -> None:
    shuffled = list(made)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert decide(Catalogue(1, map(compile_rule, made)), event) == decide(
        Catalogue(1, map(compile_rule, shuffled)), event
    )


@given(rules(), events())
@settings(deadline=None)
def test_a_decision_is_sound(made: list[rules_pb2.Rule], event: events_pb2.Event) -> None:
    catalogue = Catalogue(1, map(compile_rule, made))
    decision = decide(catalogue, event)
    assert decide(catalogue, event) == decision

    ids = [action.action_id for action in decision.actions]
    assert len(set(ids)) == len(ids)
    assert ids == [each for outcome in decision.outcomes for each in outcome.action_ids]
    assert all(action.command["amount"] > 0 for action in decision.actions)  # type: ignore[operator]
    for outcome in decision.outcomes:
        assert bool(outcome.action_ids) == (outcome.result is Result.MATCHED)
    tried = {rule.rule_id for rule in made if rule.event_type == event.event_type}
    assert {outcome.rule_id for outcome in decision.outcomes} <= tried


@given(rules(), events(), st.data())
@settings(deadline=None)
def test_rules_do_not_disturb_each_other(
    made: list[rules_pb2.Rule], event: events_pb2.Event, data: st.DataObject
) -> None:
    compiled = [compile_rule(rule) for rule in made]
    some = [rule for rule in compiled if data.draw(st.booleans())]
    alone = decide(Catalogue(1, some), event)
    together = decide(Catalogue(1, compiled), event)
    kept = {rule.rule_id for rule in some}
    assert alone.actions == tuple(each for each in together.actions if each.rule_id in kept)
