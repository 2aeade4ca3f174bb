"""Taking events in: recall, decide, write, for any number of events in one transaction."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import NamedTuple, Self

from go2asia.connect.v1 import events_pb2

from connect_svc import convert
from connect_svc.catalog import CatalogCache
from connect_svc.deciding import Trial, try_rules, untried
from connect_svc.errors import ExternalIdReused, OccurredInFuture
from connect_svc.lanes import LANES, QUEUE
from connect_svc.normalization import Submission
from connect_svc.pacing import paced
from connect_svc.rationing import ration
from connect_svc.records import EventKey, Known, Moment, Receipt, Taken
from connect_svc.rules import Action, Catalogue, Decision
from connect_svc.store import ActionStore, EventStore, RuleStore
from mesh import telemetry
from mesh.batching import GroupCommit
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.errors import MeshError
from mesh.outbox import Work

MAX_AHEAD = timedelta(minutes=5)

Arrival = tuple[Submission, str | None]
"""A submission and the traceparent that it came with."""


class Intake:
    """Takes events from any number of callers in batches; a context manager.

    `wake` is called after each batch that queued actions.
    """

    def __init__(
        self, database: Database, catalog: CatalogCache, *, wake: Callable[[], None]
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._wake = wake
        self._batches = GroupCommit[Arrival, Receipt](self._commit, name="connect.intake")

    async def __aenter__(self) -> Self:
        await self._batches.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._batches.__aexit__(kind, error, trace)

    async def submit(self, submission: Submission) -> Receipt:
        """Takes in one event, or finds what was answered to it before.

        Raises `ExternalIdReused` or `OccurredInFuture`; then nothing was written for it.
        """
        return await self._batches.submit((submission, telemetry.traceparent()))

    async def submit_many(self, submissions: Sequence[Submission]) -> list[Receipt | Exception]:
        """Takes in each event by itself: its receipt, or what `submit` would have raised."""
        parent = telemetry.traceparent()
        return await self.take([(each, parent) for each in submissions])

    async def take(self, arrivals: Sequence[Arrival]) -> list[Receipt | Exception]:
        """Like `submit_many`, for events of as many traces."""
        return await self._batches.submit_many(arrivals)

    async def _commit(self, arrivals: Sequence[Arrival]) -> list[Receipt | MeshError]:
        # A batch has one span, in the oldest's trace; each action leaves in that of its own event.
        with telemetry.continue_trace(arrivals[0][1], "take in events"):
            batch = await self._database.run(lambda c: self._take(c, arrivals))
        if batch.actions:
            self._wake()
        return batch.answers

    async def _take(self, connection: Connection, arrivals: Sequence[Arrival]) -> "Batch":
        events = EventStore(connection)
        moment = await events.arrival()
        catalogue = await self._catalog.at(moment.catalog_version, RuleStore(connection))
        known = await events.known({submission.key for submission, _ in arrivals})
        batch = Batch(catalogue, moment, known)
        await paced(lambda arrival: batch.enter(*arrival), arrivals)
        batch.conclude(await ration(connection, batch.trials))
        await events.add(batch.taken)
        await ActionStore(connection).add(batch.actions)
        await QUEUE.enqueue(connection, batch.works)
        return batch


class Entry(NamedTuple):
    """A new event of a batch: at which place in it, with its id and with the rules it concerns.

    `reversed` when it was taken back before it came.
    """

    place: int
    submission: Submission
    traceparent: str | None
    event: events_pb2.Event
    trial: Trial
    reversed: bool


class Batch:
    """Answers submissions in order, as many as there is time for; a refused one changes nothing."""

    def __init__(self, catalogue: Catalogue, moment: Moment, known: dict[EventKey, Known]) -> None:
        self._catalogue = catalogue
        self._moment = moment
        self._known = known
        self._asked: list[Submission | OccurredInFuture] = []
        self._entries: dict[EventKey, Entry] = {}
        self.taken: list[Taken] = []
        self.works: list[Work] = []
        self.answers: list[Receipt | MeshError] = []

    @property
    def trials(self) -> list[Trial]:
        """The new events, tried and waiting to be decided."""
        return [entry.trial for entry in self._entries.values()]

    @property
    def actions(self) -> list[Action]:
        """What the events taken in this batch caused, in order."""
        return [action for taken in self.taken for action in taken.decision.actions]

    def enter(self, submission: Submission, traceparent: str | None) -> None:
        """Tries the next event on the rules, if it is new.

        One that was taken back before it came is new too, but concerns no rule.
        """
        asked: Submission | OccurredInFuture = submission
        known = self._known.get(submission.key)
        new = known is None or not known.fingerprint
        if new and submission.key not in self._entries:
            try:
                self._enter(submission, traceparent, known)
            except OccurredInFuture as refusal:
                asked = refusal
        self._asked.append(asked)

    def conclude(self, decisions: Sequence[Decision]) -> None:
        """Takes in the new events, decided so, and notes the answers.

        What comes from the first undecided event on is left to another batch.
        """
        entries = list(self._entries.values())
        for entry, decision in zip(entries, decisions, strict=False):
            taken = Taken(entry.submission, entry.event, self._moment.now, decision, entry.reversed)
            self.taken.append(taken)
            self.works += [
                convert.work(action, LANES[action.kind], entry.traceparent)
                for action in decision.actions
            ]
            self._known[entry.submission.key] = Known(entry.submission.fingerprint, taken.receipt)
        first = {entry.place for entry in entries}
        undecided = entries[len(decisions) :]
        answered = undecided[0].place if undecided else len(self._asked)
        self.answers = [self._answer(at, at in first) for at in range(answered)]

    def _enter(
        self, submission: Submission, traceparent: str | None, awaited: Known | None
    ) -> None:
        occurred_time = submission.event.occurred_time.ToDatetime(self._moment.now.tzinfo)
        if occurred_time > self._moment.now + MAX_AHEAD:
            raise OccurredInFuture(
                field=submission.field("occurred_time"), occurred_time=occurred_time.isoformat()
            )
        event = events_pb2.Event()
        event.CopyFrom(submission.event)
        event.event_id = awaited.receipt.event_id if awaited else new_id()
        event.received_time.FromDatetime(self._moment.now)
        trial = untried(self._catalogue, event) if awaited else try_rules(self._catalogue, event)
        self._entries[submission.key] = Entry(
            len(self._asked), submission, traceparent, event, trial, reversed=awaited is not None
        )

    def _answer(self, place: int, is_first: bool) -> Receipt | MeshError:
        asked = self._asked[place]
        if isinstance(asked, MeshError):
            return asked
        known = self._known[asked.key]
        return known.receipt if is_first else _again(asked, known)


def _again(submission: Submission, known: Known) -> Receipt | ExternalIdReused:
    if known.fingerprint != submission.fingerprint:
        return ExternalIdReused(
            field=submission.field("external_id"),
            external_id=submission.event.external_id,
            event_id=known.receipt.event_id,
        )
    return known.receipt.again()
