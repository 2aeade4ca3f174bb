"""Works one lane of a queue: claim, handle, settle, again.

The lease bounds the handling of a claim, so make it longer than the handler's whole retry budget:
what outlives it is broken off, and the items come back to whoever claims next.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self, TypeAlias

from mesh.batching import bisect
from mesh.breaker import Breaker, State
from mesh.clock import monotonic
from mesh.db import Connection, Database
from mesh.errors import MeshError
from mesh.outbox import Claim, Dead, Done, Outcome, Queue, Retry, Settlement
from mesh.telemetry import logger, meter, tracer

Handler: TypeAlias = Callable[[Sequence[Claim]], Awaitable[Sequence[Outcome]]]
Settler: TypeAlias = Callable[[Connection, Sequence[Settlement]], Awaitable[None]]

_log = logger("mesh.worker")
_settled = meter.create_counter(
    "mesh.queue.settled", unit="{item}", description="Items settled, by lane and outcome."
)
_attempts = meter.create_histogram(
    "mesh.queue.attempts", unit="{attempt}", description="Attempts until an item was done or dead."
)
_breaker_state = meter.create_gauge(
    "mesh.breaker.state", unit="{breaker}", description="1 for the state that a lane's breaker has."
)


class Worker:
    """Claims batches of one lane, hands them to `handle`, settles the outcomes; a context manager.

    `handle` returns one outcome per claim, in order. When it raises something transient, the whole
    batch is retried later; when it raises anything else, the batch is bisected until the poison
    item stands alone, which is dead if a `MeshError` refused it, and retried otherwise.

    `settle` writes what the outcomes mean in the transaction that ends the claims. It sees only
    claims that are still in force, and a retry that has no attempts left arrives as dead.

    A `breaker` holds claims back while what `handle` depends on is sick; after its cooldown one
    item tries. Leaving the context finishes the batches under way.
    """

    def __init__(
        self,
        database: Database,
        queue: Queue,
        lane: str,
        *,
        handle: Handler,
        settle: Settler,
        batch: int = 200,
        concurrency: int = 2,
        poll: timedelta = timedelta(seconds=1),
        breaker: Breaker | None = None,
    ) -> None:
        self._database = database
        self._queue = queue
        self._lane = lane
        self._handle = handle
        self._settle = settle
        self._batch = batch
        self._concurrency = concurrency
        self._poll = poll
        self._breaker = breaker
        self._shown: State | None = None
        self._wake = asyncio.Event()
        self._closing = False

    async def __aenter__(self) -> Self:
        self._loops = [
            asyncio.create_task(self._run(), name=f"worker {self._lane} {number}")
            for number in range(self._concurrency)
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        self._wake.set()
        await asyncio.gather(*self._loops)

    def wake(self) -> None:
        """Says that something was enqueued; without it the next poll notices."""
        self._wake.set()

    async def _run(self) -> None:
        while not self._closing:
            # Cleared before the claim, so that a wake during the claim is not lost.
            self._wake.clear()
            try:
                if await self._turn():
                    continue
            except MeshError as error:
                _log.warning("worker.interrupted", lane=self._lane, error=error.message)
            except Exception:
                _log.exception("worker.failed", lane=self._lane)
            await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._poll.total_seconds()):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _turn(self) -> bool:
        """Works one batch; False when there was none to be had."""
        limit = self._limit()
        if limit == 0:
            return False
        claims = await self._database.run(lambda c: self._queue.claim(c, self._lane, limit))
        if not claims:
            return False
        if self._closing:
            await self._database.run(lambda c: self._queue.release(c, claims))
            return True
        with tracer.start_as_current_span(f"work {self._lane}") as span:
            span.set_attribute("batch.size", len(claims))
            async with asyncio.timeout(self._queue.lease.total_seconds()):
                await self._commit(await self._outcomes(claims))
        return True

    def _limit(self) -> int:
        state = self._observe(self._breaker) if self._breaker else State.CLOSED
        return {State.CLOSED: self._batch, State.HALF_OPEN: 1, State.OPEN: 0}[state]

    def _observe(self, breaker: Breaker) -> State:
        """The breaker's state now, which whoever watches the metrics is to see too."""
        state = breaker.state(monotonic())
        if state is not self._shown:
            for each in State:
                labels = {"lane": self._lane, "state": each.name.lower()}
                _breaker_state.set(int(each is state), labels)
            if self._shown is not None:
                _log.warning("worker.breaker", lane=self._lane, state=state.name.lower())
            self._shown = state
        return state

    async def _outcomes(self, claims: Sequence[Claim]) -> list[Settlement]:
        abandoned = [claim for claim in claims if self._queue.abandoned(claim)]
        workable = [claim for claim in claims if not self._queue.abandoned(claim)]
        gone = Dead("the last attempt ended without a verdict: its worker crashed or froze")
        settlements: list[Settlement] = [(claim, gone) for claim in abandoned]
        if workable:
            for claim, result in zip(workable, await bisect(workable, self._attempt), strict=True):
                settlements.append((claim, _verdict(claim, result)))
        return settlements

    async def _attempt(self, claims: Sequence[Claim]) -> Sequence[Outcome]:
        try:
            outcomes = await self._handle(claims)
        except MeshError as error:
            if error.transient and self._breaker:
                self._breaker.failed(monotonic())
                self._observe(self._breaker)
            raise
        if self._breaker:
            self._breaker.succeeded()
            self._observe(self._breaker)
        if len(outcomes) != len(claims):
            raise RuntimeError(f"{len(outcomes)} outcomes for {len(claims)} claims of {self._lane}")
        return outcomes

    async def _commit(self, settlements: list[Settlement]) -> None:
        results = await bisect(settlements, self._commit_together)
        refused: list[Settlement] = []
        for (claim, _), error in zip(settlements, results, strict=True):
            if not isinstance(error, Exception):
                continue
            if isinstance(error, MeshError) and error.transient:
                raise error  # the lease will bring the items back
            _log.error("worker.settle_failed", item=claim.item_id, exc_info=error)
            refused.append((claim, Retry(f"settling failed: {_describe(error)}")))
        if refused:
            await self._database.run(lambda c: self._queue.settle(c, refused))

    async def _commit_together(self, settlements: Sequence[Settlement]) -> Sequence[None]:
        async def work(connection: Connection) -> Sequence[Settlement]:
            in_force = await self._queue.settle(connection, settlements)
            if in_force:
                await self._settle(connection, in_force)
            return in_force

        self._count(await self._database.run(work))
        return [None] * len(settlements)

    def _count(self, settled: Sequence[Settlement]) -> None:
        kinds = Counter((type(outcome), claim.attempts) for claim, outcome in settled)
        for (kind, attempts), times in kinds.items():
            labels = {"lane": self._lane, "outcome": kind.__name__.lower()}
            _settled.add(times, labels)
            if kind is not Retry:
                for _ in range(times):
                    _attempts.record(attempts, labels)


def _verdict(claim: Claim, result: Outcome | Exception) -> Outcome:
    if isinstance(result, Done | Retry | Dead):
        return result
    if isinstance(result, MeshError) and not result.transient:
        return Dead(_describe(result))
    if not isinstance(result, MeshError):
        _log.error("worker.handle_failed", item=claim.item_id, exc_info=result)
    return Retry(_describe(result))


def _describe(error: Exception) -> str:
    if isinstance(error, MeshError):
        return f"{error.reason}: {error.message}"
    # Its text may quote statements and data, and people read this; the log has the whole.
    return f"{type(error).__name__}, see the log"
