"""Long evaluations: the first items, then a break; the event loop gets its turns meanwhile."""

import asyncio

import pytest

from connect_svc import pacing
from connect_svc.pacing import paced


async def test_all_are_worked_on_while_there_is_time() -> None:
    assert await paced(str, range(1_000)) == [str(number) for number in range(1_000)]
    assert await paced(str, []) == []


async def test_one_is_worked_on_however_little_time_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pacing, "LONGEST_SECONDS", 0.0)
    assert await paced(str, range(1_000)) == ["0"]


async def test_others_run_between_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "_SLICE_SECONDS", 0.0)
    other = asyncio.create_task(asyncio.sleep(0))
    done = await paced(lambda _: other.done(), range(10))
    assert not done[0]
    assert done[-1]
