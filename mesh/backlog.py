"""Counts what waits in a queue, now and then, for the metrics.

All replicas count the same table, so a dashboard takes the maximum over them, not the sum.
"""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import Self

from mesh.db import Database
from mesh.errors import MeshError
from mesh.outbox import Depth, Queue
from mesh.telemetry import logger, meter

_EMPTY = Depth(0, 0, 0, 0, 0.0)
_log = logger("mesh.backlog")
_depth = meter.create_gauge(
    "mesh.queue.depth",
    unit="{item}",
    description="Items by lane and condition: ready, leased, delayed by backoff, or dead.",
)
_waiting = meter.create_gauge(
    "mesh.queue.waiting", unit="{item}", description="Items behind another of their ordering key."
)
_oldest = meter.create_gauge(
    "mesh.queue.oldest", unit="s", description="Age of a lane's oldest item that is not dead."
)


class Backlog:
    """Counts the lanes of a queue at once and then every `interval`; an async context manager."""

    def __init__(
        self, database: Database, queue: Queue, lanes: Sequence[str], interval: timedelta
    ) -> None:
        self._database = database
        self._queue = queue
        self._lanes = lanes
        self._seconds = interval.total_seconds()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._repeat(), name="backlog")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _repeat(self) -> None:
        while True:
            try:
                await self._count()
            except MeshError as error:
                _log.warning("backlog.not_counted", error=error.message)
            except Exception:
                _log.exception("backlog.failed")
            await asyncio.sleep(self._seconds)

    async def _count(self) -> None:
        async with self._database.transaction(read_only=True) as connection:
            depths = await self._queue.depth(connection)
        for lane in self._lanes:
            depth = depths.get(lane, _EMPTY)
            for condition in ("ready", "leased", "delayed", "dead"):
                _depth.set(getattr(depth, condition), {"lane": lane, "condition": condition})
            _waiting.set(depth.waiting, {"lane": lane})
            _oldest.set(depth.oldest_seconds, {"lane": lane})
