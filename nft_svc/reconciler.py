"""The worker of reconciliation: one run at a time, step by step, on any replica."""

from collections.abc import Sequence
from datetime import timedelta

from mesh import deadline
from mesh.clock import monotonic
from mesh.db import Connection, Database
from mesh.outbox import Backoff, Claim, Dead, Done, Outcome, Queue, Settlement, Work
from mesh.telemetry import meter
from mesh.worker import Worker
from nft_svc.audit import Origin
from nft_svc.comparing import Comparing
from nft_svc.repairs import Repairs
from nft_svc.steps import Phase, Step, StepOutcome
from nft_svc.store import reconciliations as store
from nft_svc.tables import reconciliation_steps

LANE = "reconciliation"
ACTOR = "nft/reconciliation"
_found = meter.create_counter(
    "nft.reconciliation.discrepancies",
    unit="{discrepancy}",
    description="Differences between record and chain that were found, by kind.",
)


def step_queue(lease: timedelta) -> Queue:
    """The queue of steps; one that fails for a passing reason is tried again for ever.

    The lease is how long a crashed replica's step waits for another one.
    """
    return Queue(
        reconciliation_steps,
        lease=lease,
        max_attempts=None,
        backoff=Backoff(first=timedelta(seconds=1), cap=timedelta(minutes=1)),
    )


def as_work(step: Step) -> Work:
    """A step as an item of the queue."""
    return Work(step.item_id, LANE, step.encode())


class Reconciler:
    """Works steps and writes their outcomes."""

    def __init__(self, queue: Queue, comparing: Comparing, repairs: Repairs) -> None:
        self._queue = queue
        self._comparing = comparing
        self._repairs = repairs

    def worker(self, database: Database) -> Worker:
        """The worker to run; wake it when a run was started."""
        return Worker(
            database,
            self._queue,
            LANE,
            handle=self._work,
            settle=self._settle,
            batch=1,
            concurrency=1,
        )

    async def _work(self, claims: Sequence[Claim]) -> Sequence[Outcome]:
        return [Done(await self._outcome(claim)) for claim in claims]

    async def _outcome(self, claim: Claim) -> StepOutcome:
        step = Step.decode(claim.payload)
        lease = self._queue.lease.total_seconds()
        # What is then begun still ends within the lease; if it does not, its calls say so, and the
        # run shows it as its last error.
        until = monotonic() + lease / 3
        deadline.bind(lease * 0.9)
        if step.missing:
            return await self._comparing.missing(step, until)
        match step.phase:
            case Phase.CHAIN:
                return await self._comparing.collection(step)
            case Phase.RECORD:
                return await self._comparing.record(step, until)
            case Phase.REPAIR:
                origin = Origin(ACTOR, traceparent=claim.traceparent)
                return await self._repairs.page(step, origin, until)

    async def _settle(self, connection: Connection, settlements: Sequence[Settlement]) -> None:
        """Ends a step and begins the next one, in one commit."""
        for claim, outcome in settlements:
            step = Step.decode(claim.payload)
            if isinstance(outcome, Dead):
                await store.end(connection, step.reconciliation_id, outcome.reason)
            elif isinstance(outcome, Done) and isinstance(outcome.result, StepOutcome):
                await self._conclude(connection, step, outcome.result)

    async def _conclude(self, connection: Connection, step: Step, outcome: StepOutcome) -> None:
        await store.add(connection, step, outcome.findings)
        for finding in outcome.findings:
            _found.add(1, {"kind": finding.kind.value})
        following = outcome.following
        phase = following.phase if following else step.phase
        await store.advance(connection, step.reconciliation_id, phase, outcome.items, outcome.mints)
        if following is None:
            await store.end(connection, step.reconciliation_id, "")
        else:
            await self._queue.enqueue(connection, [as_work(following)])
