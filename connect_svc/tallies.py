"""What a rule gives for a number of events, summed up. Pure."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connect_svc.rules import Action, Decision, Result


@dataclass
class Total:
    """How many actions of one kind there are, and what their amounts come to."""

    actions: int = 0
    amount: int = 0


@dataclass
class Tally:
    """Counts of events: rewarded, left out as held or reversed, and stopped, by result.

    `totals` are by kind of action and by unit or type, which is empty where there is none.
    """

    events: int = 0
    held: int = 0
    reversed: int = 0
    stopped: dict[Result, int] = field(default_factory=lambda: defaultdict(int))
    totals: dict[tuple[str, str], Total] = field(default_factory=lambda: defaultdict(Total))

    def count(self, decision: Decision) -> None:
        """Counts an event that was decided so by one rule."""
        if decision.actions:
            self.events += 1
        for outcome in decision.outcomes:
            if outcome.result is not Result.MATCHED:
                self.stopped[outcome.result] += 1
        for action in decision.actions:
            total = self.totals[action.kind, _what(action)]
            total.actions += 1
            total.amount += int(action.command.get("amount", 0))

    def plain(self) -> dict[str, Any]:
        """The tally in terms of JSON."""
        return {
            "events": self.events,
            "held": self.held,
            "reversed": self.reversed,
            "stopped": self.stopped,
            "totals": [[*what, each.actions, each.amount] for what, each in self.totals.items()],
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Tally":
        """The tally that `plain` told; an empty one of nothing."""
        totals: Sequence[tuple[str, str, int, int]] = plain.get("totals", ())
        tally = cls(plain.get("events", 0), plain.get("held", 0), plain.get("reversed", 0))
        tally.stopped.update({Result(name): n for name, n in plain.get("stopped", {}).items()})
        tally.totals.update({(kind, what): Total(n, amount) for kind, what, n, amount in totals})
        return tally


def _what(action: Action) -> str:
    return str(action.command.get("unit") or action.command.get("nft_type") or "")
