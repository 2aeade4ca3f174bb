"""What runs in the background outlives a defect and says that there is one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from mesh import notify
from mesh.backlog import Backlog
from mesh.notify import Notifications


class BrokenOnce:
    """A database and a queue in one, whose first count fails."""

    def __init__(self) -> None:
        self.counts = 0
        self.counted = asyncio.Event()

    @asynccontextmanager
    async def transaction(self, *, read_only: bool) -> AsyncIterator[None]:
        yield

    async def depth(self, connection: None) -> dict[str, Any]:
        self.counts += 1
        if self.counts == 1:
            raise ValueError("defect")
        self.counted.set()
        return {}


async def test_the_backlog_is_counted_again() -> None:
    broken: Any = BrokenOnce()
    with capture_logs() as lines:
        async with Backlog(broken, broken, ["points"], timedelta(milliseconds=1)):
            await asyncio.wait_for(broken.counted.wait(), 5)
    assert [line["event"] for line in lines] == ["backlog.failed"]


async def test_a_listener_listens_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Notifications):
        attempts = 0

        async def _follow(self) -> None:
            self.attempts += 1
            if self.attempts == 1:
                raise ValueError("defect")
            self._arrived.set()
            await asyncio.Event().wait()

    monkeypatch.setattr(notify, "_RECONNECT_SECONDS", 0.0)
    with capture_logs() as lines:
        async with Broken("postgresql://nowhere/nothing", "feed") as notifications:
            assert await notifications.wait(5)
    assert [line["event"] for line in lines] == ["notify.failed"]
