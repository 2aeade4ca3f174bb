"""Caps and budgets: what a match would count for, and whether there is room for it. Pure.

A limit has one counter for each window and, as a cap, for each user. A match counts once in a
counter of matches, whatever number of rewards it gives, and with the sum of its amounts in one of
points.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from go2asia.connect.v1 import rules_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from connect_svc.errors import InvalidRule
from connect_svc.windows import Validity, Window

LATENESS = timedelta(days=7)
"""How long after its end a window still counts."""

MATCHES = ""
"""The unit of counters of matches."""


class Counter(NamedTuple):
    """What a counter is found by; their order is the order in which they are locked."""

    rule_id: str
    user_id: str
    """Empty for the rule as a whole."""
    window: str
    unit: str


class Charge(NamedTuple):
    """What one action counts for in one counter."""

    action_id: str
    counter: Counter
    amount: int


class Gift(NamedTuple):
    """What limits see of an action: who gets how much; the unit is empty unless it gives points."""

    action_id: str
    user_id: str
    unit: str
    amount: int


@dataclass(frozen=True, slots=True)
class Limit:
    """At most `maximum` of a unit in each window: for each user, or altogether."""

    per_user: bool
    window: Window
    unit: str
    maximum: int


class Refusal(NamedTuple):
    """Why there is no room; `capped` if a user's share is spent, not the rule's."""

    capped: bool
    detail: str


class Demand(NamedTuple):
    """What a match would count for in one counter, and the most that this may come to."""

    counter: Counter
    amount: int
    limit: Limit


class Usage:
    """What counters stand at, and what the events decided since add to them."""

    __slots__ = ("_used", "added")

    def __init__(self, used: Mapping[Counter, int] | None = None) -> None:
        self._used = dict(used or {})
        self.added: dict[Counter, int] = defaultdict(int)

    def refusal(self, demands: Iterable[Demand]) -> Refusal | None:
        """The first of the demands for which there is no room."""
        for demand in demands:
            used = self._used.get(demand.counter, 0)
            if used + demand.amount > demand.limit.maximum:
                return Refusal(demand.limit.per_user, _no_room(demand, used))
        return None

    def add(self, demands: Iterable[Demand]) -> None:
        """Counts a match for which there is room."""
        for demand in demands:
            self._used[demand.counter] = self._used.get(demand.counter, 0) + demand.amount
            self.added[demand.counter] += demand.amount


def compile_limits(rule: rules_pb2.Rule) -> tuple[Limit, ...]:
    """A rule's caps, then its budgets; raises `InvalidRule`."""
    given = {action.credit_points.unit for action in rule.actions} - {""}
    limits: dict[tuple[bool, Window, str], Limit] = {}
    for name, messages in (("caps", rule.caps), ("budgets", rule.budgets)):
        for number, message in enumerate(messages):
            limit = _limit(message, f"rule.{name}[{number}]", per_user=name == "caps")
            if limit.unit and limit.unit not in given:
                raise InvalidRule(
                    field=f"rule.{name}[{number}].amount.unit",
                    wrong=f"No action gives {limit.unit}; limit a unit that the rule gives.",
                )
            same = (limit.per_user, limit.window, limit.unit)
            if same in limits:
                raise InvalidRule(
                    field=f"rule.{name}[{number}]",
                    wrong="The same is limited twice in the same window; keep one of the limits.",
                )
            limits[same] = limit
    return tuple(limits.values())


def too_late(
    limits: Iterable[Limit], validity: Validity, occurred: Timestamp, received: datetime
) -> str:
    """Says so if a window in which the event would count ended too long ago; else empty."""
    for window in {limit.window: None for limit in limits}:
        span = validity.span(window, occurred)
        if span.end is not None and received - span.end > LATENESS:
            return (
                f"It was taken in more than {LATENESS.days} days after the {span.name} of its "
                f"limits ended ({validity.zone.key})."
            )
    return ""


def demands(
    rule_id: str,
    limits: Iterable[Limit],
    validity: Validity,
    occurred: Timestamp,
    gifts: Collection[Gift],
) -> tuple[list[Demand], list[Charge]]:
    """What a match would count for: by counter, and by action."""
    found: list[Demand] = []
    charges: list[Charge] = []
    for limit in limits:
        span = validity.span(limit.window, occurred)
        own = [
            Charge(
                gift.action_id,
                Counter(rule_id, gift.user_id if limit.per_user else "", span.name, limit.unit),
                gift.amount if limit.unit else 1,
            )
            for gift in gifts
            if limit.unit in (MATCHES, gift.unit)
        ]
        charges += own
        found += [Demand(counter, amount, limit) for counter, amount in totals(own).items()]
    return found, charges


def totals(charges: Iterable[Charge]) -> dict[Counter, int]:
    """What the actions of one event come to in each counter: sums of points, one for matches."""
    found: dict[Counter, int] = defaultdict(int)
    for charge in charges:
        counter = charge.counter
        found[counter] = found[counter] + charge.amount if counter.unit else 1
    return dict(found)


def released(charges: Collection[Charge], taken_back: Collection[str]) -> dict[Counter, int]:
    """What is free again when some of an event's charged actions are taken back.

    A match stays counted as long as one of its actions stands.
    """
    left = totals(charge for charge in charges if charge.action_id not in taken_back)
    freed = {counter: n - left.get(counter, 0) for counter, n in totals(charges).items()}
    return {counter: amount for counter, amount in freed.items() if amount}


def _limit(message: rules_pb2.Limit, field: str, *, per_user: bool) -> Limit:
    window = rules_pb2.Limit.Window.Name(message.window).removeprefix("WINDOW_")
    if message.WhichOneof("maximum") is None or not message.window:
        raise InvalidRule(field=field, wrong="Give the limit a window, and a count or an amount.")
    if message.HasField("amount"):
        return Limit(per_user, Window(window), message.amount.unit, message.amount.value)
    return Limit(per_user, Window(window), MATCHES, message.count)


def _no_room(demand: Demand, used: int) -> str:
    counter, limit = demand.counter, demand.limit
    what = f"{counter.unit} minor units" if counter.unit else "matches"
    whose = f"User {counter.user_id}" if limit.per_user else "The rule"
    return (
        f"{whose} has {used} of {limit.maximum} {what} of the {counter.window}; "
        f"this event would add {demand.amount}."
    )
