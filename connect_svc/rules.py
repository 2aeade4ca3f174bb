"""Deciding: a catalogue of compiled rules and one event in, outcomes and actions out. Pure."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from go2asia.connect.v1 import events_pb2, rules_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from connect_svc.errors import InvalidExpression, InvalidRule
from connect_svc.expressions import (
    BOOL,
    INT,
    STRING,
    EvaluationError,
    Expression,
    Facts,
    compile_expression,
)
from connect_svc.predicates import Equality, equalities
from connect_svc.rule_index import RuleIndex

_ACTION_NAMESPACE = b"go2asia.connect.v1.RewardAction"
_ACTOR = "event.actor_user_id"
_ONE = "1"


class Result(StrEnum):
    """What a rule did with an event; values are those of `RuleOutcome.Result`, less the prefix."""

    MATCHED = "MATCHED"
    OUTSIDE_WINDOW = "OUTSIDE_WINDOW"
    ERROR = "ERROR"
    CONDITION_FALSE = "CONDITION_FALSE"
    OTHER_EVENT_TYPE = "OTHER_EVENT_TYPE"
    NOT_ENABLED = "NOT_ENABLED"
    EVENT_REVERSED = "EVENT_REVERSED"


@dataclass(frozen=True, slots=True)
class Action:
    """A reward that a rule decided; `kind` and `command` are those of `RewardAction.command`."""

    action_id: str
    event_id: str
    rule_id: str
    rule_version: int
    key: str
    recipient: str
    kind: str
    command: Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one rule did with one event, and why."""

    rule_id: str
    rule_version: int
    result: Result
    detail: str
    action_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What a catalogue decided about one event: outcomes and actions, in the order of rules."""

    catalog_version: int
    outcomes: tuple[Outcome, ...]
    actions: tuple[Action, ...]


@dataclass(frozen=True, slots=True)
class CompiledAction:
    """One action of a rule; `fixed` are the parts of its command that no event changes.

    `amount` is None for what is given whole.
    """

    key: str
    recipient: Expression
    kind: str
    fixed: Mapping[str, str]
    amount: Expression | None


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One version of a rule, ready to decide.

    Where its condition holds, all `equalities` do. `fault` says why it cannot decide, if so.
    """

    rule_id: str
    version: int
    event_type: str
    priority: int
    valid_from: Timestamp | None
    valid_to: Timestamp | None
    condition: Expression | None
    actions: tuple[CompiledAction, ...]
    equalities: tuple[Equality, ...] = ()
    fault: str = ""

    @property
    def order(self) -> tuple[int, str]:
        """Sort key: higher priorities first, equal ones by rule id."""
        return -self.priority, self.rule_id

    def applies_at(self, time: Timestamp) -> bool:
        """Whether `time` lies in the rule's validity, which includes its start and not its end."""
        moment = _instant(time)
        if self.valid_from is not None and moment < _instant(self.valid_from):
            return False
        return self.valid_to is None or moment < _instant(self.valid_to)


class Catalogue:
    """The enabled rules of one catalogue version, found by event type and demanded equalities."""

    def __init__(self, version: int, rules: Iterable[CompiledRule]) -> None:
        by_type: dict[str, list[CompiledRule]] = defaultdict(list)
        for rule in rules:
            by_type[rule.event_type].append(rule)
        self.version = version
        self._indexes = {name: _index(of_type) for name, of_type in by_type.items()}

    def rules_for(self, event_type: str) -> Sequence[CompiledRule]:
        """The rules for events of this type, in the order of trying."""
        index = self._indexes.get(event_type)
        return index.rules if index else ()

    def candidates(self, event: events_pb2.Event) -> Sequence[CompiledRule]:
        """Those to try on this event, in order; of the others the condition is plainly false."""
        index = self._indexes.get(event.event_type)
        return index.candidates(event) if index else ()

    def changed(self, version: int, changes: Mapping[str, CompiledRule | None]) -> "Catalogue":
        """The catalogue after these rules took another form; None: it is no longer enabled."""
        came = [rule for rule in changes.values() if rule is not None]
        touched = {rule.event_type for rule in came}
        touched |= {
            name
            for name, index in self._indexes.items()
            if any(rule.rule_id in changes for rule in index.rules)
        }
        kept = [
            rule for name in touched for rule in self.rules_for(name) if rule.rule_id not in changes
        ]
        catalogue = Catalogue(version, [*kept, *came])
        untouched = {name: i for name, i in self._indexes.items() if name not in touched}
        catalogue._indexes |= untouched
        return catalogue


def compile_rule(rule: rules_pb2.Rule) -> CompiledRule:
    """Checks a rule and makes it ready; raises `InvalidRule` or `InvalidExpression`."""
    valid_from = _bound(rule, "valid_from")
    valid_to = _bound(rule, "valid_to")
    if valid_from and valid_to and _instant(valid_from) >= _instant(valid_to):
        raise InvalidRule(
            field="rule.valid_to",
            wrong="The validity ends before it begins; set valid_to later than valid_from.",
        )
    keys = [action.key for action in rule.actions]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            raise InvalidRule(
                field=f"rule.actions[{number}].key",
                wrong=f"Two actions have the key {key}; give each its own.",
            )
    condition = None
    if rule.condition.strip():
        condition = compile_expression(rule.condition, "rule.condition", BOOL)
    actions = tuple(_compile_action(action, n) for n, action in enumerate(rule.actions))
    return _compiled(rule, valid_from, valid_to, condition, actions)


def stored_rule(rule: rules_pb2.Rule) -> CompiledRule:
    """Makes ready a rule that was accepted before.

    Should it no longer compile, under another CEL runtime say, it still holds its place and says
    so in every evaluation, instead of stopping all events.
    """
    try:
        return compile_rule(rule)
    except (InvalidRule, InvalidExpression) as error:
        return _compiled(rule, None, None, None, (), fault=error.message)


def decide(catalogue: Catalogue, event: events_pb2.Event) -> Decision:
    """Tries the rules that the event may concern; the event must have its id. Raises nothing.

    The same event, id included, and the same rules give the same decision with the same ids.
    """
    facts = Facts(event)
    outcomes: list[Outcome] = []
    actions: list[Action] = []
    for rule in catalogue.candidates(event):
        outcome, rewards = _try(rule, facts)
        if outcome is not None:
            outcomes.append(outcome)
        actions.extend(rewards)
    return Decision(catalogue.version, tuple(outcomes), tuple(actions))


def derive_action_id(event_id: str, rule_id: str, key: str, recipient: str) -> str:
    """The id of the reward for this recipient by this action of this rule on this event.

    A name-based UUIDv8 over SHA-256 (RFC 9562, section 5.8 and appendix B.2). The rule's version
    is no part of it, so that no later version can give the same reward again.
    """
    name = "\0".join((event_id, rule_id, key, recipient)).encode()
    digest = hashlib.sha256(_ACTION_NAMESPACE + b"\0" + name).digest()
    value = int.from_bytes(digest[:16])
    value = value & ~(0xF << 76) | 0x8 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    text = f"{value:032x}"
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def _try(rule: CompiledRule, facts: Facts) -> tuple[Outcome | None, Sequence[Action]]:
    """What the rule does with the event; no outcome if its condition is plainly false."""
    if rule.fault:
        return _outcome(rule, Result.ERROR, f"The rule cannot be used: {rule.fault}"), ()
    if not rule.applies_at(facts.event.occurred_time):
        if _plainly_false(rule, facts):
            return None, ()
        return _outcome(rule, Result.OUTSIDE_WINDOW, _window(rule, facts.event)), ()
    try:
        if rule.condition is not None and not rule.condition.holds(facts):
            return None, ()
        actions = [_reward(rule, action, facts) for action in rule.actions]
    except EvaluationError as error:
        return _outcome(rule, Result.ERROR, f"It did not match, because {error}."), ()
    detail = "The condition holds." if rule.condition else "It matches every event of this type."
    ids = tuple(action.action_id for action in actions)
    return _outcome(rule, Result.MATCHED, detail, ids), actions


def _plainly_false(rule: CompiledRule, facts: Facts) -> bool:
    try:
        return rule.condition is not None and not rule.condition.holds(facts)
    except EvaluationError:
        return False


def _reward(rule: CompiledRule, action: CompiledAction, facts: Facts) -> Action:
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
    )


def _outcome(rule: CompiledRule, result: Result, detail: str, ids: tuple[str, ...] = ()) -> Outcome:
    return Outcome(rule.rule_id, rule.version, result, detail, ids)


def _window(rule: CompiledRule, event: events_pb2.Event) -> str:
    start = rule.valid_from.ToJsonString() if rule.valid_from else "always"
    end = rule.valid_to.ToJsonString() if rule.valid_to else "for ever"
    return (
        f"The event occurred at {event.occurred_time.ToJsonString()}; "
        f"the rule is valid from {start} until {end}."
    )


def _compile_action(action: rules_pb2.RuleAction, number: int) -> CompiledAction:
    field = f"rule.actions[{number}]"
    kind = action.WhichOneof("kind")
    if kind is None:
        raise InvalidRule(field=field, wrong="The action gives nothing; set one of its kinds.")
    what = getattr(action, kind)
    amount = None
    if "amount" in what.DESCRIPTOR.fields_by_name:
        amount = compile_expression(what.amount or _ONE, f"{field}.{kind}.amount", INT)
    return CompiledAction(
        key=action.key,
        recipient=compile_expression(action.recipient or _ACTOR, f"{field}.recipient", STRING),
        kind=kind,
        fixed={part.name: value for part, value in what.ListFields() if part.name != "amount"},
        amount=amount,
    )


def _bound(rule: rules_pb2.Rule, name: str) -> Timestamp | None:
    if not rule.HasField(name):  # type: ignore[arg-type]
        return None
    bound: Timestamp = getattr(rule, name)
    try:
        bound.ToJsonString()
    except ValueError as error:
        raise InvalidRule(
            field=f"rule.{name}", wrong=f"{name} is out of range; give a time in years 1 to 9999."
        ) from error
    return bound


def _compiled(
    rule: rules_pb2.Rule,
    valid_from: Timestamp | None,
    valid_to: Timestamp | None,
    condition: Expression | None,
    actions: tuple[CompiledAction, ...],
    fault: str = "",
) -> CompiledRule:
    return CompiledRule(
        rule.rule_id,
        rule.version,
        rule.event_type,
        rule.priority,
        valid_from,
        valid_to,
        condition,
        actions,
        () if condition is None else equalities(condition),
        fault,
    )


def _index(rules: Iterable[CompiledRule]) -> RuleIndex[CompiledRule]:
    return RuleIndex(sorted(rules, key=lambda rule: rule.order))


def _instant(time: Timestamp) -> tuple[int, int]:
    return time.seconds, time.nanos
