"""No limit is overshot, no room is withheld, and refunds are exact, whatever the batches."""

from collections import Counter as Tally
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo

from go2asia.connect.v1 import events_pb2, rules_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from connect_svc.deciding import propose, settle, try_rules
from connect_svc.limits import Charge, Counter, Usage, released
from connect_svc.rules import Action, Catalogue, Result, compile_rule

ZONE = "Europe/Berlin"
# Clocks go back in the night from the 25th to the 26th.
START = datetime(2025, 10, 25, 12, tzinfo=ZoneInfo("UTC"))
WINDOWS = ("DAY", "WEEK", "CAMPAIGN")


@st.composite
def limited_rules(draw: st.DrawFn) -> rules_pb2.Rule:
    rule = rules_pb2.Rule(rule_id="r", event_type="quest.completed", time_zone=ZONE)
    own = rule.actions.add(key="own")
    own.credit_points.unit, own.credit_points.amount = "G2A", "int(event.context.n)"
    inviter = rule.actions.add(key="inviter", recipient="event.primary_subject_user_id")
    inviter.credit_points.unit, inviter.credit_points.amount = "G2A", "3"
    for limits in (rule.caps, rule.budgets):
        kinds = st.tuples(st.sampled_from(WINDOWS), st.booleans())
        for window, by_amount in draw(st.lists(kinds, unique=True, max_size=3)):
            limit = limits.add(window=f"WINDOW_{window}")
            if by_amount:
                limit.amount.unit, limit.amount.value = "G2A", draw(st.integers(1, 40))
            else:
                limit.count = draw(st.integers(1, 4))
    return rule


@st.composite
def quests(draw: st.DrawFn) -> events_pb2.Event:
    event = events_pb2.Event(
        event_id=str(draw(st.uuids())),
        event_type="quest.completed",
        actor_user_id=draw(st.sampled_from(["ada", "bob"])),
        primary_subject_user_id=draw(st.sampled_from(["ada", "eve"])),
    )
    event.context["n"] = draw(st.integers(1, 12))
    event.occurred_time.FromDatetime(START + timedelta(hours=draw(st.integers(0, 48))))
    event.received_time.CopyFrom(event.occurred_time)
    return event


@dataclass
class Model:
    """Counts rewards that stand anew for each question, by a calendar of its own."""

    rule: rules_pb2.Rule
    given: list[tuple[events_pb2.Event, Action]] = field(default_factory=list)

    def used(self, limit: rules_pb2.Limit, user: str, at: events_pb2.Event) -> int:
        same = [
            (event, action)
            for event, action in self.given
            if self._window(limit, event) == self._window(limit, at)
            and user in ("", action.recipient)
        ]
        if limit.HasField("amount"):
            return sum(int(action.command["amount"]) for _, action in same)
        return len({event.event_id for event, _ in same})

    def exceeded(self) -> bool:
        return any(
            self.used(limit, user, event) > (limit.amount.value or limit.count)
            for event, _ in self.given
            for limits, users in ((self.rule.caps, ("ada", "bob", "eve")), (self.rule.budgets, "_"))
            for limit in limits
            for user in (("",) if users == "_" else users)
        )

    def _window(self, limit: rules_pb2.Limit, event: events_pb2.Event) -> str:
        local = event.occurred_time.ToDatetime(ZoneInfo("UTC")).astimezone(ZoneInfo(ZONE))
        forms = {1: "%Y-%m-%d", 2: "%G-%V", 3: "all"}
        return local.strftime(forms[limit.window])


batches = st.lists(st.lists(quests(), max_size=6), max_size=5)


@given(limited_rules(), batches, st.data())
@settings(deadline=None)
def test_limits_hold_and_withhold_nothing(
    rule: rules_pb2.Rule, batches: list[list[events_pb2.Event]], data: st.DataObject
) -> None:
    catalogue = Catalogue(1, [compile_rule(rule)])
    stored: dict[Counter, int] = {}
    charged: dict[str, list[Charge]] = {}
    model = Model(rule)
    seen: set[UUID] = set()
    for batch in batches:
        new = [event for event in batch if UUID(event.event_id) not in seen]
        new = list({event.event_id: event for event in new}.values())
        seen |= {UUID(event.event_id) for event in new}
        proposals = [propose(try_rules(catalogue, event), {}) for event in new]
        keys = {key for proposal in proposals for key in proposal.counters}
        usage = Usage({key: stored.get(key, 0) for key in keys})
        for event, proposal in zip(new, proposals, strict=True):
            decision = settle(proposal, usage)
            [outcome] = decision.outcomes
            given = [
                (event, action)
                for match in proposal.findings
                for action in match.actions  # type: ignore[union-attr]
            ]
            fits = not Model(rule, [*model.given, *given]).exceeded()
            assert (outcome.result is Result.MATCHED) == fits
            assert bool(decision.actions) == fits
            if fits:
                model.given += given
                charged[event.event_id] = list(decision.charges)
        assert set(usage.added) <= keys
        stored = dict(Tally(stored) + Tally(usage.added))

        standing = sorted({action.action_id for _, action in model.given})
        taken_back = data.draw(st.sets(st.sampled_from(standing)) if standing else st.just(set()))
        for event_id, charges in charged.items():
            freed = released(charges, taken_back)
            assert all(amount > 0 for amount in freed.values())
            stored = {key: used - freed.get(key, 0) for key, used in stored.items()}
            charged[event_id] = [each for each in charges if each.action_id not in taken_back]
        model.given = [each for each in model.given if each[1].action_id not in taken_back]
        assert not model.exceeded()
        assert min(stored.values(), default=0) >= 0
    everything = {action.action_id for _, action in model.given}
    for charges in charged.values():
        for key, amount in released(charges, everything).items():
            stored[key] -= amount
    assert set(stored.values()) <= {0}
