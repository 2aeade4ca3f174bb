"""Counting goes on whatever happens to one count."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from nft_svc import census
from nft_svc.census import Census


class Database:
    @asynccontextmanager
    async def transaction(self, **_: Any) -> AsyncIterator[None]:
        yield


class Queue:
    """Fails the first time, in a way that nobody foresaw."""

    def __init__(self) -> None:
        self.asked = 0
        self.counted = asyncio.Event()

    async def depth(self, _: Any) -> dict[str, Any]:
        self.asked += 1
        if self.asked == 1:
            raise RuntimeError("disk full")
        self.counted.set()
        return {}


async def test_a_count_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    async def none(*_: Any) -> dict[Any, int]:
        return {}

    monkeypatch.setattr(census.mints, "count", none)
    database: Any = Database()
    queue: Any = Queue()
    async with asyncio.timeout(5), Census(database, queue, timedelta(milliseconds=1)):
        await queue.counted.wait()
