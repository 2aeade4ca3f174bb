"""Taking events in: recall, decide, write, for any number of events in one transaction."""

from collections.abc import Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from go2asia.connect.v1 import events_pb2

from connect_svc import convert
from connect_svc.catalog import CatalogCache
from connect_svc.errors import ExternalIdReused, OccurredInFuture
from connect_svc.lanes import LANES, QUEUE
from connect_svc.normalization import Submission
from connect_svc.records import EventKey, Known, Moment, Receipt, Taken
from connect_svc.rules import Action, Catalogue, Decision, decide
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
        return await self._batches.submit_many([(each, parent) for each in submissions])

    async def _commit(self, arrivals: Sequence[Arrival]) -> list[Receipt | MeshError]:
        # A batch has one span, in the oldest's trace; each action leaves in that of its own event.
        with telemetry.continue_trace(arrivals[0][1], "take in events"):
            batch = await self._database.run(lambda c: self._take(c, arrivals))
        if batch.actions:
            self._wake()
        return batch.answers

    async def _take(self, connection: Connection, arrivals: Sequence[Arrival]) -> "Batch":
        events = EventStore(connection)
        moment = await events.moment()
        catalogue = await self._catalog.at(moment.catalog_version, RuleStore(connection))
        known = await events.known({submission.key for submission, _ in arrivals})
        batch = Batch(catalogue, moment, known)
        for arrival in arrivals:
            batch.take(*arrival)
        await events.add(batch.taken)
        await ActionStore(connection).add(batch.actions)
        await QUEUE.enqueue(connection, batch.works)
        return batch


class Batch:
    """Answers submissions one after the other; a refused one changes nothing."""

    def __init__(self, catalogue: Catalogue, moment: Moment, known: dict[EventKey, Known]) -> None:
        self._catalogue = catalogue
        self._moment = moment
        self._known = known
        self.taken: list[Taken] = []
        self.works: list[Work] = []
        self.answers: list[Receipt | MeshError] = []

    @property
    def actions(self) -> list[Action]:
        """What the events taken in this batch caused, in order."""
        return [action for taken in self.taken for action in taken.decision.actions]

    def take(self, submission: Submission, traceparent: str | None) -> None:
        """Decides the next event and notes the answer to it."""
        try:
            self.answers.append(self._answer(submission, traceparent))
        except MeshError as refusal:
            self.answers.append(refusal)

    def _answer(self, submission: Submission, traceparent: str | None) -> Receipt:
        known = self._known.get(submission.key)
        if known is not None and known.fingerprint:
            return _again(submission, known)
        occurred_time = submission.event.occurred_time.ToDatetime(self._moment.now.tzinfo)
        if occurred_time > self._moment.now + MAX_AHEAD:
            raise OccurredInFuture(
                field=submission.field("occurred_time"), occurred_time=occurred_time.isoformat()
            )
        event = events_pb2.Event()
        event.CopyFrom(submission.event)
        event.event_id = known.receipt.event_id if known else new_id()
        event.received_time.FromDatetime(self._moment.now)
        # What was taken back before it came gives nothing.
        decision = (
            Decision(self._catalogue.version, (), ()) if known else decide(self._catalogue, event)
        )
        taken = Taken(submission, event, self._moment.now, decision, reversed=known is not None)
        self.taken.append(taken)
        self.works += [_work(action, traceparent) for action in decision.actions]
        self._known[submission.key] = Known(submission.fingerprint, taken.receipt)
        return taken.receipt


def _again(submission: Submission, known: Known) -> Receipt:
    if known.fingerprint != submission.fingerprint:
        raise ExternalIdReused(
            field=submission.field("external_id"),
            external_id=submission.event.external_id,
            event_id=known.receipt.event_id,
        )
    return known.receipt.again()


def _work(action: Action, traceparent: str | None) -> Work:
    payload = convert.reward_action(action).SerializeToString()
    return Work(action.action_id, LANES[action.kind], payload, traceparent=traceparent)
