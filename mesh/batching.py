"""Group commit: whatever queued up while the last commit ran goes into the next one.

No delay is added: an idle group commits a single item at once, a busy one commits hundreds
together, because they arrive while it is busy.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from mesh.errors import Internal, MeshError, Overloaded, Unavailable
from mesh.telemetry import logger, meter, tracer

Item = TypeVar("Item")
Result = TypeVar("Result")

_log = logger("mesh.batching")
_batch_size = meter.create_histogram(
    "mesh.group_commit.batch_size", unit="{item}", description="Items in one group commit."
)


async def bisect(
    items: Sequence[Item], attempt: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]
) -> list[Result | Exception]:
    """Attempts all items together and, when that raises, each half by itself, and so on.

    Returns one result per item, in order: what `attempt` returned for it, or the exception it
    raises when it stands alone. A transient error is nobody's fault, so it is not searched for: it
    becomes the result of every item in that attempt. Items at the end for which `attempt` returns
    no result are attempted again by themselves.
    """
    results: list[Result | Exception] = []
    try:
        results += await attempt(items)
    except Exception as error:
        if len(items) == 1 or (isinstance(error, MeshError) and error.transient):
            return [error] * len(items)
        middle = len(items) // 2
        first = await bisect(items[:middle], attempt)
        return first + await bisect(items[middle:], attempt)
    if 0 < len(results) < len(items):
        results += await bisect(items[len(results) :], attempt)
    return results


@dataclass(slots=True, eq=False)
class _Submission(Generic[Item, Result]):
    item: Item
    weight: int
    outcome: "asyncio.Future[Result]"


class GroupCommit(Generic[Item, Result]):
    """Collects items of concurrent callers into batches for `commit`; an async context manager.

    `commit` takes a batch and returns one result per item, in order: the result, or the exception
    to raise to that item's caller. When it raises for a batch, the batch is bisected until the
    poison item stands alone, so `commit` must leave no trace when it raises. One that has enough to
    do may commit the first items only: it is called again for the others. A caller that is
    cancelled takes its item out of the queue, but not out of a batch already under way.

    `max_batch` and `max_waiting` bound the sum of the items' weights, one each unless said
    otherwise; an item heavier than `max_batch` is committed alone.

    Leaving the context refuses new items and commits those that wait. With more than one writer
    batches run concurrently, in no particular order; but beside a batch under way only full ones
    start: a small one does better to wait and grow.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        name: str,
        max_batch: int = 256,
        max_waiting: int = 10_000,
        writers: int = 1,
    ) -> None:
        self._commit = commit
        self._name = name
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._writer_count = writers
        self._waiting: deque[_Submission[Item, Result]] = deque()
        self._waiting_weight = 0
        self._wake = asyncio.Event()
        self._under_way = 0
        self._open = False

    async def __aenter__(self) -> Self:
        self._open = True
        self._writers = [
            asyncio.create_task(self._write(), name=f"group commit {self._name}")
            for _ in range(self._writer_count)
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        self._wake.set()
        try:
            await asyncio.gather(*self._writers)
        finally:  # cancelled while draining: leave no caller waiting for ever
            for submission in self._waiting:
                _settle(submission.outcome, Unavailable())

    async def submit(self, item: Item, *, weight: int = 1) -> Result:
        """Commits `item` with whatever else is in flight and returns its result.

        Raises the item's own exception, `Overloaded` when too many wait already, and `Unavailable`
        when the group is closed.
        """
        return await self._enqueue([item], weight)[0]

    async def submit_many(self, items: Sequence[Item]) -> list[Result | Exception]:
        """Like `submit` for several items at once: one result or exception each, in order.

        Raises `Overloaded`, for all of them, when they do not fit in the queue together.
        """
        outcomes = self._enqueue(items)
        results = await asyncio.gather(*outcomes, return_exceptions=True)
        return [_expected(result) for result in results]

    def _enqueue(self, items: Sequence[Item], weight: int = 1) -> "list[asyncio.Future[Result]]":
        if not self._open:
            raise Unavailable("The service is shutting down; try again with the same request id.")
        if self._waiting_weight + len(items) * weight > self._max_waiting:
            raise Overloaded(queue=self._name)
        loop = asyncio.get_running_loop()
        submissions: list[_Submission[Item, Result]] = [
            _Submission(item, weight, loop.create_future()) for item in items
        ]
        self._waiting.extend(submissions)
        self._waiting_weight += len(items) * weight
        if self._ready():
            self._wake.set()
        return [submission.outcome for submission in submissions]

    async def _write(self) -> None:
        while self._open or self._waiting:
            if not self._ready():
                self._wake.clear()
                await self._wake.wait()
            elif batch := self._take():
                self._under_way += 1
                try:
                    await self._run(batch)
                finally:
                    self._under_way -= 1
                    self._wake.set()

    def _ready(self) -> bool:
        """Whether a batch may start."""
        needed = self._max_batch if self._under_way and self._open else 1
        return self._waiting_weight >= needed

    def _take(self) -> list[_Submission[Item, Result]]:
        batch: list[_Submission[Item, Result]] = []
        room = self._max_batch
        while self._waiting and (self._waiting[0].weight <= room or not batch):
            submission = self._waiting.popleft()
            self._waiting_weight -= submission.weight
            if not submission.outcome.done():  # its caller has gone
                batch.append(submission)
                room -= submission.weight
        return batch

    async def _run(self, batch: list[_Submission[Item, Result]]) -> None:
        _batch_size.record(len(batch), {"group": self._name})
        with tracer.start_as_current_span(f"group commit {self._name}") as span:
            span.set_attribute("batch.size", len(batch))
            try:
                results = await bisect([submission.item for submission in batch], self._commit)
            except asyncio.CancelledError:
                for submission in batch:
                    _settle(submission.outcome, Unavailable())
                raise
        if len(results) != len(batch):
            _log.error("group_commit.miscounted", group=self._name, batch=len(batch))
            results = [Internal()] * len(batch)
        for submission, result in zip(batch, results, strict=True):
            _settle(submission.outcome, result)


def _settle(outcome: "asyncio.Future[Result]", result: Result | Exception) -> None:
    if outcome.done():
        return
    if isinstance(result, Exception):
        outcome.set_exception(result)
    else:
        outcome.set_result(result)


def _expected(result: Result | BaseException) -> Result | Exception:
    if isinstance(result, BaseException) and not isinstance(result, Exception):
        raise result
    return result
