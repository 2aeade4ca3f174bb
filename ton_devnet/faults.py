"""Faults on request: which external messages get lost or late, which queries fail.

They live in memory alone, so a restart ends them. Which message or query a share hits is drawn from
a fixed seed: the same traffic meets the same faults.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

WAIT = "waitMasterchainSeqno"
"""Not a query but a prefix of one; here it has a name like any other."""
SEED = 1


class FaultError(ValueError):
    """Not a fault this network can have; the text says what it takes."""


@dataclass(frozen=True, slots=True)
class Drop:
    """The client hears "accepted"; the message is never seen again."""


@dataclass(frozen=True, slots=True)
class Delay:
    """The client hears "accepted"; the message reaches the queue after this many wall seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """The query is answered with liteServer.error."""

    code: int
    message: str


@dataclass(frozen=True, slots=True)
class Silence:
    """The query is never answered; the client must give up by itself."""


Effect = Drop | Delay | Failure | Silence


@dataclass(slots=True)
class Rule:
    """`queries` empty: external messages (Drop, Delay) or every query (Failure, Silence).

    It hits a `share` of what it is asked about (0 to 1), at most `left` times (None: for ever).
    """

    effect: Effect
    queries: frozenset[str]
    share: float
    left: int | None
    hits: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise FaultError(f"share is {self.share}: give more than 0 and at most 1")
        if self.left is not None and self.left < 1:
            raise FaultError(f"next is {self.left}: give 1 or more, or leave it out for all")
        if isinstance(self.effect, Delay) and self.effect.seconds <= 0:
            raise FaultError(f"seconds is {self.effect.seconds}: give more than 0")


class Faults:
    """The rules in force, asked in the order in which they were added; the first that hits acts."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._random = random.Random(SEED)

    @property
    def rules(self) -> Sequence[Rule]:
        """Those that can still hit, and those that have had their last hit."""
        return tuple(self._rules)

    def add(self, rule: Rule) -> None:
        self._rules.append(rule)

    def clear(self) -> None:
        self._rules.clear()

    def on_external(self) -> Drop | Delay | None:
        """What is to happen to an external message that would be accepted."""
        for rule in self._rules:
            if isinstance(rule.effect, Drop | Delay) and self._hits(rule):
                return rule.effect
        return None

    def on_query(self, name: str) -> Failure | Silence | None:
        """What is to happen to a query, by its name without `liteServer.`."""
        for rule in self._rules:
            effect, named = rule.effect, not rule.queries or name in rule.queries
            if isinstance(effect, Failure | Silence) and named and self._hits(rule):
                return effect
        return None

    def _hits(self, rule: Rule) -> bool:
        if rule.left == 0 or self._random.random() >= rule.share:
            return False
        rule.hits += 1
        if rule.left is not None:
            rule.left -= 1
        return True
