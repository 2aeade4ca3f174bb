"""The index changes what deciding costs, never what is decided."""

from dataclasses import replace
from typing import Any

from go2asia.connect.v1 import events_pb2, rules_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_svc.deciding import decide
from connect_svc.predicates import Foresight
from connect_svc.rules import Catalogue, CompiledRule, compile_rule

TIER, NESTED = "event.context.tier", "event.context.home.country"
CONSTANTS = ("'gold'", "'1'", "''", "1", "1.0", "-0.0", "0", "true", "false", "null")
# A number beyond what a double holds exactly must not be filed under its neighbour.
LARGE = ("9007199254740993", "9007199254740992.0")
values = st.sampled_from(
    ["gold", "1", "", 1, 0, -0.0, 2.5, True, False, None, [], {}, 2**53, {"country": "gold"}]
)
equal = st.builds(
    lambda path, value, turned: f"{value} == {path}" if turned else f"{path} == {value}",
    st.sampled_from([TIER, NESTED, "event.context.home"]),
    st.sampled_from(CONSTANTS + LARGE),
    st.booleans(),
)
bounded = st.builds(
    lambda path, order, value, turned: (
        f"{value} {order} {path}" if turned else f"{path} {order} {value}"
    ),
    st.sampled_from([TIER, NESTED, "event.context.n"]),
    st.sampled_from(["<", "<=", ">", ">="]),
    st.sampled_from(["1", "1.0", "-0.0", "0", "2.5", "-1.0", "'gold'", *LARGE]),
    st.booleans(),
)
among = st.builds(
    lambda path, listed: f"{path} in [{', '.join(listed)}]",
    st.sampled_from([TIER, NESTED, "event.context.n"]),
    st.lists(st.sampled_from([*CONSTANTS, *LARGE, "event.context.n"]), max_size=3),
)
operands = st.one_of(
    equal,
    bounded,
    among,
    st.sampled_from(
        [
            "event.actor_user_id == 'ada'",
            "event.actor_user_id in ['ada', 'eve']",
            "event.primary_subject_user_id == ''",
            f"has({TIER})",
            f"has({NESTED})",
            "has(event.context.home)",
            "event.context.n > 2.0",
            f"({TIER} == 'gold' || true)",
            f"!({TIER} == 'gold')",
            f"{TIER} == {NESTED}",
            "event.context.tags.exists(t, t == 'vip')",
            "event.occurred_time == timestamp('1970-01-01T00:00:00Z')",
        ]
    ),
)
conditions = st.lists(operands, max_size=4).map(" && ".join)


@st.composite
def rules(draw: st.DrawFn) -> CompiledRule:
    made = rules_pb2.Rule(
        rule_id=draw(st.text("abcdefgh", min_size=1, max_size=4)),
        version=1,
        event_type="quest.completed",
        condition=draw(conditions),
        priority=draw(st.integers(-1, 1)),
    )
    if draw(st.booleans()):
        made.valid_from.seconds = draw(st.integers(-1, 1))
    action = made.actions.add(key="points")
    action.credit_points.unit, action.credit_points.amount = "G2A", "1"
    return compile_rule(made)


@st.composite
def events(draw: st.DrawFn) -> events_pb2.Event:
    event = events_pb2.Event(
        event_id=str(draw(st.uuids())),
        event_type="quest.completed",
        actor_user_id=draw(st.sampled_from(["ada", "bob"])),
    )
    home: Any = st.one_of(values, st.fixed_dictionaries({}, optional={"country": values}))
    event.context.update(
        draw(
            st.fixed_dictionaries(
                {}, optional={"tier": values, "home": home, "n": values, "tags": st.just(["vip"])}
            )
        )
    )
    event.occurred_time.GetCurrentTime()
    if draw(st.booleans()):
        event.occurred_time.FromSeconds(0)
    return event


catalogues = st.lists(rules(), unique_by=lambda rule: rule.rule_id, max_size=12)


@given(catalogues, events())
@settings(deadline=None, max_examples=400)
def test_an_index_decides_as_trying_every_rule_does(
    made: list[CompiledRule], event: events_pb2.Event
) -> None:
    linear = Catalogue(1, [replace(rule, equalities=(), foresight=Foresight()) for rule in made])
    before = event.SerializeToString(deterministic=True)
    assert decide(Catalogue(1, made), event) == decide(linear, event)
    assert event.SerializeToString(deterministic=True) == before


@given(catalogues, catalogues, events())
@settings(deadline=None)
def test_a_changed_catalogue_is_as_good_as_a_new_one(
    old: list[CompiledRule], new: list[CompiledRule], event: events_pb2.Event
) -> None:
    before = {rule.rule_id: rule for rule in old}
    after = {rule.rule_id: rule for rule in new}
    changes = {rule_id: after.get(rule_id) for rule_id in before | after}
    changed = Catalogue(1, old).changed(2, changes)
    assert decide(changed, event) == decide(Catalogue(2, new), event)
