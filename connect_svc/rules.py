"""Rules, compiled and found by event; and what deciding with them comes to. Pure."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from go2asia.connect.v1 import events_pb2, rules_pb2

from connect_svc import costs
from connect_svc.conditions import operands
from connect_svc.errors import InvalidExpression, InvalidRule
from connect_svc.expressions import (
    BOOL,
    INT,
    STRING,
    Expression,
    compile_expression,
)
from connect_svc.limits import Charge, Limit, compile_limits
from connect_svc.predicates import Equality, Foresight, equalities, foresight
from connect_svc.rule_index import RuleIndex
from connect_svc.variants import Weights, check_keys, compile_variants
from connect_svc.windows import ALWAYS, Validity, compile_validity

_ACTION_NAMESPACE = b"go2asia.connect.v1.RewardAction"
_UUID_VARIANT = "89ab"  # the bits 10, and two of the hash
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
    STACKED_OUT = "STACKED_OUT"
    CAP_REACHED = "CAP_REACHED"
    BUDGET_SPENT = "BUDGET_SPENT"
    TOO_LATE = "TOO_LATE"


class Action(NamedTuple):
    """A reward that a rule decided; `kind` and `command` are those of `RewardAction.command`.

    If it is `ordered`, it goes to its target behind its recipient's earlier ordered ones.
    """

    action_id: str
    event_id: str
    rule_id: str
    rule_version: int
    key: str
    recipient: str
    kind: str
    command: Mapping[str, str | int]
    variant: str = ""
    ordered: bool = False


class Outcome(NamedTuple):
    """What one rule did with one event, and why; `variant` is that of the actor."""

    rule_id: str
    rule_version: int
    result: Result
    detail: str
    action_ids: tuple[str, ...] = ()
    variant: str = ""


class Decision(NamedTuple):
    """What a catalogue decided about one event: outcomes and actions, in the order of rules.

    `charges` are what the actions count for in caps and budgets.
    """

    catalog_version: int
    outcomes: tuple[Outcome, ...]
    actions: tuple[Action, ...]
    charges: tuple[Charge, ...] = ()


@dataclass(frozen=True, slots=True)
class CompiledAction:
    """One action of a rule; `fixed` are the parts of its command that no event changes.

    `amount` is None for what is given whole. It is a part of one variant of the rule, or of all if
    `variant` is empty.
    """

    key: str
    recipient: Expression
    kind: str
    fixed: Mapping[str, str]
    amount: Expression | None
    variant: str


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One version of a rule, ready to decide.

    With `stop_after` a match stops the later rules of its `stacking_group`. Where its condition
    holds, all `equalities` do; `foresight` often knows without asking it. `fault` says why it
    cannot decide, if so.
    """

    rule_id: str
    version: int
    event_type: str
    priority: int
    validity: Validity
    condition: Expression | None
    actions: tuple[CompiledAction, ...]
    limits: tuple[Limit, ...] = ()
    variants: Weights = ()
    stacking_group: str = ""
    stop_after: bool = False
    equalities: tuple[Equality, ...] = ()
    foresight: Foresight = field(default_factory=Foresight)
    fault: str = ""
    ordered: bool = False

    @property
    def order(self) -> tuple[int, str]:
        """Sort key: higher priorities first, equal ones by rule id."""
        return -self.priority, self.rule_id


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
    check_keys(rule)
    condition, demanded = None, []
    if rule.condition.strip():
        condition = compile_expression(rule.condition, "rule.condition", BOOL)
        demanded = list(operands(condition.checked().expr))
    actions = tuple(_compile_action(action, n) for n, action in enumerate(rule.actions))
    _check_cost(condition, actions)
    return CompiledRule(
        rule.rule_id,
        rule.version,
        rule.event_type,
        rule.priority,
        compile_validity(rule),
        condition,
        actions,
        compile_limits(rule),
        compile_variants(rule),
        rule.stacking.group,
        rule.stacking.stop_after,
        equalities(demanded),
        foresight(demanded),
        ordered=rule.ordered,
    )


def stored_rule(rule: rules_pb2.Rule) -> CompiledRule:
    """Makes ready a rule that was accepted before.

    Should it no longer compile, under another CEL runtime say, it still holds its place and says
    so in every evaluation, instead of stopping all events.
    """
    try:
        return compile_rule(rule)
    except (InvalidRule, InvalidExpression) as error:
        return CompiledRule(
            rule.rule_id,
            rule.version,
            rule.event_type,
            rule.priority,
            ALWAYS,
            None,
            (),
            fault=error.message,
        )


def derive_action_id(event_id: str, rule_id: str, key: str, recipient: str) -> str:
    """The id of the reward for this recipient by this action of this rule on this event.

    A name-based UUIDv8 over SHA-256 (RFC 9562, section 5.8 and appendix B.2). The rule's version
    is no part of it, so that no later version can give the same reward again.
    """
    name = "\0".join((event_id, rule_id, key, recipient)).encode()
    text = hashlib.sha256(_ACTION_NAMESPACE + b"\0" + name).hexdigest()
    variant = _UUID_VARIANT[int(text[16], 16) & 0x3]
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


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
        variant=action.variant,
    )


def _check_cost(condition: Expression | None, actions: Iterable[CompiledAction]) -> None:
    parts = [condition, *(part for each in actions for part in (each.recipient, each.amount))]
    cost = sum(part.cost for part in parts if part is not None)
    if cost > costs.MAX_RULE_COST:
        raise InvalidRule(
            field="rule",
            wrong=f"Its loops together may take {cost >> 20:,} MB of work on a large event, and "
            f"{costs.MAX_RULE_COST >> 20} MB is the most; loop over less, or make two rules of it.",
        )


def _index(rules: Iterable[CompiledRule]) -> RuleIndex[CompiledRule]:
    return RuleIndex(sorted(rules, key=lambda rule: rule.order))
