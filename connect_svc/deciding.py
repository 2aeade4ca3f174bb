"""Deciding: a catalogue and one event in, outcomes and actions out. Pure.

In three steps, because what each needs to know follows from the one before: which conditions hold
(`try_rules`); with the variants of their actors, what the rules would give (`propose`); with what
the counters of their limits stand at, what they do give (`settle`).
"""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import NamedTuple

from go2asia.connect.v1 import events_pb2

from connect_svc.expressions import EvaluationError, Facts
from connect_svc.limits import MATCHES, Charge, Counter, Demand, Gift, Usage, demands, too_late
from connect_svc.rules import (
    Action,
    Catalogue,
    CompiledAction,
    CompiledRule,
    Decision,
    Outcome,
    Result,
    derive_action_id,
)
from connect_svc.variants import Assignee, Weights, assign_all


class Trial(NamedTuple):
    """The rules that concern an event: those whose condition holds, and why others do nothing."""

    catalog_version: int
    facts: Facts
    findings: Sequence[Outcome | CompiledRule]

    @property
    def event_id(self) -> str:
        """The id of the event that was tried."""
        return self.facts.event.event_id

    @property
    def assignees(self) -> dict[Assignee, Weights]:
        """Whose variants must be known to propose."""
        return {
            _assignee(rule, self.facts): rule.variants
            for rule in self.findings
            if isinstance(rule, CompiledRule) and rule.variants
        }


class Match(NamedTuple):
    """What a rule gives unless other rules or limits stand against it."""

    rule: CompiledRule
    variant: str
    actions: Sequence[Action]
    demands: Sequence[Demand] = ()
    charges: Sequence[Charge] = ()


class Proposal(NamedTuple):
    """What the rules would give for an event, in the order of trying."""

    catalog_version: int
    findings: Sequence[Outcome | Match]

    @property
    def counters(self) -> list[Counter]:
        """Which counters must be known to settle."""
        matches = (each for each in self.findings if isinstance(each, Match))
        return [demand.counter for match in matches for demand in match.demands]


def try_rules(catalogue: Catalogue, event: events_pb2.Event) -> Trial:
    """Tries the rules that the event may concern; the event must have its id. Raises nothing."""
    facts = Facts(event)
    findings = [
        found for rule in catalogue.candidates(event) if (found := _try(rule, facts)) is not None
    ]
    return Trial(catalogue.version, facts, findings)


def untried(catalogue: Catalogue, event: events_pb2.Event) -> Trial:
    """An event that no rule is to be tried on, because it was taken back before it came."""
    return Trial(catalogue.version, Facts(event), ())


def propose(trial: Trial, variants: Mapping[Assignee, str]) -> Proposal:
    """Evaluates what the rules give; `variants` are those of the trial's assignees."""
    findings = [
        each if isinstance(each, Outcome) else _match(each, trial.facts, variants)
        for each in trial.findings
    ]
    return Proposal(trial.catalog_version, findings)


def settle(proposal: Proposal, usage: Usage) -> Decision:
    """Decides between the rules and counts what they give in `usage`."""
    outcomes: list[Outcome] = []
    actions: list[Action] = []
    charges: list[Charge] = []
    stopped_by: dict[str, str] = {}
    for each in proposal.findings:
        if isinstance(each, Outcome):
            outcomes.append(each)
            continue
        outcome = _grant(each, stopped_by, usage)
        outcomes.append(outcome)
        if outcome.result is Result.MATCHED:
            actions += each.actions
            charges += each.charges
    return Decision(proposal.catalog_version, tuple(outcomes), tuple(actions), tuple(charges))


def decide(catalogue: Catalogue, event: events_pb2.Event) -> Decision:
    """Decides an event where no limit was used and no variant assigned before. Raises nothing.

    The same event, id included, and the same rules give the same decision with the same ids.
    """
    trial = try_rules(catalogue, event)
    return settle(propose(trial, assign_all(trial.assignees, {})), Usage())


def _try(rule: CompiledRule, facts: Facts) -> Outcome | CompiledRule | None:
    """The rule itself if its condition holds; None if it is plainly false."""
    if rule.fault:
        return _outcome(rule, Result.ERROR, f"The rule cannot be used: {rule.fault}")
    told = rule.foresight.told(facts.event)
    if told is False:
        return None
    if not rule.validity.holds(facts.event.occurred_time):
        if told is None and _plainly_false(rule, facts):
            return None
        return _outcome(rule, Result.OUTSIDE_WINDOW, _outside(rule, facts.event))
    if told is True or rule.condition is None:
        return rule
    try:
        return rule if rule.condition.holds(facts) else None
    except EvaluationError as error:
        return _outcome(rule, Result.ERROR, _erred(error))


def _plainly_false(rule: CompiledRule, facts: Facts) -> bool:
    try:
        return rule.condition is not None and not rule.condition.holds(facts)
    except EvaluationError:
        return False


def _match(rule: CompiledRule, facts: Facts, variants: Mapping[Assignee, str]) -> Outcome | Match:
    variant = variants[_assignee(rule, facts)] if rule.variants else ""
    try:
        actions = [
            _reward(rule, action, facts, variant)
            for action in rule.actions
            if action.variant in ("", variant)
        ]
        if rule.limits:
            return _limited(rule, facts, variant, actions)
    except EvaluationError as error:
        return _outcome(rule, Result.ERROR, _erred(error), variant)
    return Match(rule, variant, actions)


def _limited(
    rule: CompiledRule, facts: Facts, variant: str, actions: Sequence[Action]
) -> Outcome | Match:
    occurred = facts.event.occurred_time
    received = facts.event.received_time.ToDatetime(UTC)
    try:
        if late := too_late(rule.limits, rule.validity, occurred, received):
            return _outcome(rule, Result.TOO_LATE, late, variant)
        gifts = [_gift(action) for action in actions]
        wanted, charges = demands(rule.rule_id, rule.limits, rule.validity, occurred, gifts)
    except OverflowError as error:
        zone = rule.validity.zone.key
        raise EvaluationError(f"no day of {zone} can be told so far from today") from error
    return Match(rule, variant, actions, wanted, charges)


def _grant(match: Match, stopped_by: dict[str, str], usage: Usage) -> Outcome:
    """Whether the rule gives what it would; notes if it stops others of its group."""
    rule, variant = match.rule, match.variant
    group = rule.stacking_group
    if group in stopped_by:
        detail = f"Rule {stopped_by[group]} matched and stops the others of the group {group}."
        return _outcome(rule, Result.STACKED_OUT, detail, variant)
    if match.demands:
        if (refusal := usage.refusal(match.demands)) is not None:
            result = Result.CAP_REACHED if refusal.capped else Result.BUDGET_SPENT
            return _outcome(rule, result, refusal.detail, variant)
        usage.add(match.demands)
    if rule.stop_after:
        stopped_by[group] = rule.rule_id
    detail = "The condition holds." if rule.condition else "It matches every event of this type."
    if variant:
        detail += f" The actor's variant is {variant}."
    ids = tuple(action.action_id for action in match.actions)
    return Outcome(rule.rule_id, rule.version, Result.MATCHED, detail, ids, variant)


def _reward(rule: CompiledRule, action: CompiledAction, facts: Facts, variant: str) -> Action:
    event_id = facts.event.event_id
    recipient = action.recipient.user(facts)
    command: dict[str, str | int] = {**action.fixed}
    if action.amount is not None:
        command["amount"] = action.amount.amount(facts)
    return Action(
        derive_action_id(event_id, rule.rule_id, action.key, recipient),
        event_id,
        rule.rule_id,
        rule.version,
        action.key,
        recipient,
        action.kind,
        command,
        variant=variant,
        ordered=rule.ordered,
    )


def _gift(action: Action) -> Gift:
    if action.kind != "credit_points":
        return Gift(action.action_id, action.recipient, MATCHES, 0)
    unit, amount = action.command["unit"], action.command["amount"]
    return Gift(action.action_id, action.recipient, str(unit), int(amount))


def _assignee(rule: CompiledRule, facts: Facts) -> Assignee:
    return Assignee(rule.rule_id, facts.event.actor_user_id)


def _outcome(rule: CompiledRule, result: Result, detail: str, variant: str = "") -> Outcome:
    return Outcome(rule.rule_id, rule.version, result, detail, (), variant)


def _erred(error: EvaluationError) -> str:
    return f"It did not match, because {error}."


def _outside(rule: CompiledRule, event: events_pb2.Event) -> str:
    occurred = rule.validity.told(event.occurred_time)
    return f"The event occurred at {occurred}; the rule is valid {rule.validity}."
