"""Counts the mints under way, now and then, for the metrics.

All replicas count the same database, so a dashboard takes the maximum over them, not the sum.
"""

import asyncio
from datetime import timedelta
from types import TracebackType
from typing import Self

from mesh.db import Database
from mesh.errors import MeshError
from mesh.outbox import Queue
from mesh.telemetry import logger, meter
from nft_svc.mints import MintState
from nft_svc.store import mints
from nft_svc.submissions import LANES

# Those that ended well only grow in number; their rate is in the feed's metrics.
COUNTED = tuple(
    state for state in MintState if state not in (MintState.FINALIZED, MintState.CANCELLED)
)
_log = logger("nft.census")
_mints = meter.create_gauge(
    "nft.mints", unit="{mint}", description="Mints by state, those finalised or cancelled aside."
)
_submissions = meter.create_gauge(
    "nft.submissions",
    unit="{mint}",
    description="Mints on their way to the Gateway: ready, leased, delayed or dead.",
)
_oldest = meter.create_gauge(
    "nft.submissions.oldest", unit="s", description="Age of the mint that waits longest for it."
)


class Census:
    """Counts at once and then every `interval`; an async context manager."""

    def __init__(self, database: Database, queue: Queue, interval: timedelta) -> None:
        self._database = database
        self._queue = queue
        self._seconds = interval.total_seconds()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._repeat(), name="census")
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
                _log.warning("census.failed", error=error.message)
            except Exception:
                _log.exception("census.failed")
            await asyncio.sleep(self._seconds)

    async def _count(self) -> None:
        async with self._database.transaction(read_only=True) as connection:
            depths = await self._queue.depth(connection)
            by_state = await mints.count(connection, COUNTED)
        mints_only = [depths[lane] for lane in LANES.values() if lane in depths]
        for condition in ("ready", "leased", "delayed", "dead"):
            number = sum(getattr(depth, condition) for depth in mints_only)
            _submissions.set(number, {"condition": condition})
        _oldest.set(max((depth.oldest_seconds for depth in mints_only), default=0.0))
        for state in COUNTED:
            _mints.set(by_state.get(state, 0), {"state": state.value})
