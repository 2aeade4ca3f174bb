"""Sending what was decided: one worker a lane, each behind a circuit breaker of its own."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from types import TracebackType
from typing import Self

from connect_svc.lanes import QUEUE
from connect_svc.records import State, Verdict
from connect_svc.store import ActionStore
from connect_svc.targets import Target
from mesh.backlog import Backlog
from mesh.breaker import Breaker
from mesh.db import Connection, Database
from mesh.outbox import Claim, Dead, Done, Outcome, Settlement
from mesh.worker import Worker

_COUNT_EVERY = timedelta(seconds=5)


class Dispatcher:
    """Works the queue's lanes within the context; leaving it finishes the batches under way."""

    def __init__(self, database: Database, targets: Sequence[Target]) -> None:
        self._workers = [
            Worker(database, QUEUE, target.lane, handle=target, settle=_settle, breaker=_breaker())
            for target in targets
        ]
        self._backlog = Backlog(database, QUEUE, [each.lane for each in targets], _COUNT_EVERY)
        self._running = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._running.enter_async_context(self._backlog)
        for worker in self._workers:
            await self._running.enter_async_context(worker)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._running.aclose()

    def wake(self) -> None:
        """Says that actions were queued; without it the next poll notices."""
        for worker in self._workers:
            worker.wake()


def _breaker() -> Breaker:
    # A call that fails was repeated until its deadline: one each from both loops of a worker is
    # enough to know. The rest is short, because what comes after it is a single action.
    return Breaker(threshold=2, cooldown=5.0)


async def _settle(connection: Connection, settlements: Sequence[Settlement]) -> None:
    verdicts = [_verdict(claim, outcome) for claim, outcome in settlements]
    await ActionStore(connection).settle(verdicts)


def _verdict(claim: Claim, outcome: Outcome) -> Verdict:
    match outcome:
        case Done(result):
            return Verdict(claim.item_id, State.COMPLETED, claim.attempts, result=str(result))
        case Dead(reason):
            return Verdict(claim.item_id, State.FAILED, claim.attempts, last_error=reason)
    return Verdict(claim.item_id, State.PENDING, claim.attempts, last_error=outcome.error)
