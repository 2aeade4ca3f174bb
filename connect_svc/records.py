"""What is stored, and in between: receipts, stories, actions on their way. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from go2asia.connect.v1 import events_pb2

from connect_svc.normalization import Submission
from connect_svc.rules import Action, Decision, Outcome
from connect_svc.tallies import Tally

EventKey = tuple[str, str]
"""(source, external id)."""


class Moment(NamedTuple):
    """The database's time and the catalogue's version, as of one statement."""

    now: datetime
    catalog_version: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """The durable answer to an event; `duplicate` when it is not the first.

    `reversed` when the event was taken back before it arrived.
    """

    event_id: str
    action_ids: tuple[str, ...]
    duplicate: bool = False
    reversed: bool = False

    @classmethod
    def of(cls, event_id: str, outcomes: Sequence[Outcome], *, reversed: bool) -> "Receipt":
        """The first answer to an event that was decided so."""
        actions = tuple(each for outcome in outcomes for each in outcome.action_ids)
        return cls(event_id, actions, reversed=reversed)

    def again(self) -> "Receipt":
        """The same answer for whoever submits the event once more."""
        return replace(self, duplicate=True)


class Known(NamedTuple):
    """What was answered to an event, and the hash of its content.

    That is empty for an event that was taken back and has yet to arrive.
    """

    fingerprint: bytes
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class Taken:
    """An event about to be stored: with its id and time of receipt, and what was decided.

    `reversed` when it was taken back before it arrived.
    """

    submission: Submission
    event: events_pb2.Event
    received_time: datetime
    decision: Decision
    reversed: bool

    @property
    def receipt(self) -> Receipt:
        """The answer to whoever submitted it."""
        return Receipt.of(self.event.event_id, self.decision.outcomes, reversed=self.reversed)


class Reversal(NamedTuple):
    """How an event was taken back; `before_arrival` when there was nothing to take yet."""

    event_id: str
    reason: str
    author: str
    before_arrival: bool
    reverse_time: datetime


class Story(NamedTuple):
    """A stored event and what was decided about it; its actions are told apart."""

    event: events_pb2.Event
    catalog_version: int
    outcomes: tuple[Outcome, ...]
    reversal: Reversal | None


class State(StrEnum):
    """How far an action is; the values are those of `RewardAction.State`, less the prefix."""

    PENDING = "PENDING"
    DISPATCHED = "DISPATCHED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    REVERSING = "REVERSING"
    REVERSED = "REVERSED"
    REVERSAL_FAILED = "REVERSAL_FAILED"


class Verdict(NamedTuple):
    """What became of an attempt: how many there were, and where that leaves the action."""

    action_id: str
    state: State
    attempts: int
    last_error: str = ""
    result: str = ""


class ReversalVerdict(NamedTuple):
    """What became of an attempt to take an action back, and where that leaves the action."""

    action_id: str
    state: State
    error: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True)
class ActionRecord:
    """A stored action and its present state; `sequence` counts up as actions are stored."""

    action: Action
    sequence: int
    state: State
    attempts: int
    last_error: str
    result: str
    create_time: datetime
    update_time: datetime
    reversal_error: str
    reversal_result: str
    backfill_id: str


class BackfillState(StrEnum):
    """How far a backfill is; the values are those of `Backfill.State`, less the prefix."""

    PREVIEWING = "PREVIEWING"
    PREVIEWED = "PREVIEWED"
    APPLYING = "APPLYING"
    APPLIED = "APPLIED"


@dataclass(frozen=True, slots=True)
class BackfillRecord:
    """A backfill: the rule in the catalogue of a version, tried on events up to `last_event_id`.

    The present state has gone through `events_seen` events, up to `seen_event_id`.
    """

    backfill_id: str
    rule_id: str
    rule_version: int
    catalog_version: int
    author: str
    last_event_id: str
    state: BackfillState = BackfillState.PREVIEWING
    seen_event_id: str | None = None
    events_seen: int = 0
    preview: Tally = field(default_factory=Tally)
    result: Tally = field(default_factory=Tally)
    create_time: datetime | None = None
    update_time: datetime | None = None

    @property
    def previewing(self) -> bool:
        """Whether nothing is given yet."""
        return self.state in (BackfillState.PREVIEWING, BackfillState.PREVIEWED)

    @property
    def tally(self) -> Tally:
        """What the present state adds up to."""
        return self.preview if self.previewing else self.result
