"""Why a rule did what it did, down to the part of its condition that was false. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from go2asia.connect.v1 import events_pb2

from connect_svc.conditions import Part, parts
from connect_svc.expressions import EvaluationError, Facts
from connect_svc.rules import Catalogue, CompiledRule, Decision, Outcome, Result

MAX_FALSE_SHOWN = 200


class Value(StrEnum):
    """What a part came to; values are those of `ConditionPart.Value`, less the prefix."""

    TRUE = "TRUE"
    FALSE = "FALSE"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class PartValue:
    """A part of a condition and what it came to; `detail` says why it could not be evaluated."""

    part: Part
    value: Value
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a rule did with an event, and what each part of its condition came to."""

    outcome: Outcome
    parts: tuple[PartValue, ...] = ()


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a catalogue would decide; `omitted` counts false conditions that are not explained."""

    decision: Decision
    explanations: tuple[Explanation, ...]
    omitted: int


def explain(rule: CompiledRule, event: events_pb2.Event, recorded: Outcome | None) -> Explanation:
    """Explains what an enabled rule did with an event; `recorded` is its outcome, if it left one.

    A rule for events of the type that left none had a false condition.
    """
    if rule.event_type != event.event_type:
        detail = f"The rule is for {rule.event_type}, the event is a {event.event_type}."
        return Explanation(_outcome(rule, Result.OTHER_EVENT_TYPE, detail))
    values = _values(rule, Facts(event))
    if recorded is None:
        recorded = _outcome(rule, Result.CONDITION_FALSE, _why_false(values))
    return Explanation(recorded, values)


def not_enabled(rule_id: str, version: int, detail: str) -> Explanation:
    """A rule that took no part; `version` is 0 when it was not written yet."""
    return Explanation(Outcome(rule_id, version, Result.NOT_ENABLED, detail))


def reversed_before_arrival(rule_id: str) -> Explanation:
    """Any rule, for an event that was taken back before it came."""
    detail = "The event was taken back before it arrived; no rule was tried."
    return Explanation(Outcome(rule_id, 0, Result.EVENT_REVERSED, detail))


def simulation(catalogue: Catalogue, event: events_pb2.Event, decision: Decision) -> Simulation:
    """Explains what every rule for the event's type would do, the event being decided so."""
    recorded = {outcome.rule_id: outcome for outcome in decision.outcomes}
    explanations: list[Explanation] = []
    false = 0
    for rule in catalogue.rules_for(event.event_type):
        outcome = recorded.get(rule.rule_id)
        false += outcome is None
        if outcome is not None or false <= MAX_FALSE_SHOWN:
            explanations.append(explain(rule, event, outcome))
    return Simulation(decision, tuple(explanations), max(false - MAX_FALSE_SHOWN, 0))


def _values(rule: CompiledRule, facts: Facts) -> tuple[PartValue, ...]:
    if rule.condition is None:
        return ()
    return tuple(_value(part, facts) for part in parts(rule.condition))


def _value(part: Part, facts: Facts) -> PartValue:
    try:
        return PartValue(part, Value.TRUE if part.expression.holds(facts) else Value.FALSE)
    except EvaluationError as error:
        return PartValue(part, Value.ERROR, str(error))


def _why_false(values: Sequence[PartValue]) -> str:
    false = [value.part.expression.source for value in values if value.value is Value.FALSE]
    return f"The condition is false: {' and '.join(f'`{text}`' for text in false)}."


def _outcome(rule: CompiledRule, result: Result, detail: str) -> Outcome:
    return Outcome(rule.rule_id, rule.version, result, detail)
