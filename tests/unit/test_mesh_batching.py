"""Group commit: batches form while a commit runs, and nobody pays for another's item."""

import asyncio
from collections.abc import Sequence

import pytest

from mesh.batching import GroupCommit
from mesh.errors import Internal, Overloaded, Unavailable


class Ledger:
    """A commit function that can be held up; it doubles numbers and chokes on negative ones."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        await self.gate.wait()
        if any(item < 0 for item in items):
            raise ValueError("negative")
        return [KeyError(item) if item == 13 else item * 2 for item in items]


async def submitted(group: GroupCommit[int, int], items: Sequence[int]) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(group.submit(item)) for item in items]
    await asyncio.sleep(0.01)
    return tasks


async def test_a_lone_item_is_committed_at_once() -> None:
    ledger = Ledger()
    async with GroupCommit(ledger.commit, name="t") as group:
        assert await group.submit(4) == 8
    assert ledger.batches == [[4]]


async def test_what_queued_during_a_commit_goes_together() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    async with GroupCommit(ledger.commit, name="t", max_batch=3) as group:
        tasks = await submitted(group, [1])
        tasks += await submitted(group, [2, 3, 4, 5])
        ledger.gate.set()
        assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10]
    assert ledger.batches == [[1], [2, 3, 4], [5]]


async def test_a_poison_item_fails_alone() -> None:
    ledger = Ledger()
    items = list(range(14, 14 + 64))
    items[37] = -1
    async with GroupCommit(ledger.commit, name="t") as group:
        results = await group.submit_many(items)
    assert isinstance(results.pop(37), ValueError)
    del items[37]
    assert results == [item * 2 for item in items]
    assert len(ledger.batches) == 1 + 2 * 6


async def test_what_a_commit_leaves_is_committed_next() -> None:
    async def commit(items: Sequence[int]) -> list[int | Exception]:
        if -1 in items:
            raise ValueError("negative")
        return list(items[:3])

    async with GroupCommit(commit, name="t") as group:
        assert await group.submit_many(range(10)) == list(range(10))
        *sound, poison = await group.submit_many([*range(9), -1])
    assert sound == list(range(9))
    assert isinstance(poison, ValueError)


async def test_an_items_own_exception_reaches_its_caller_only() -> None:
    async with GroupCommit(Ledger().commit, name="t") as group:
        good, bad = await submitted(group, [1, 13])
        assert await good == 2
        with pytest.raises(KeyError):
            await bad


async def test_a_transient_failure_is_not_searched_for() -> None:
    calls = 0

    async def commit(items: Sequence[int]) -> list[int | Exception]:
        nonlocal calls
        calls += 1
        raise Unavailable

    async with GroupCommit(commit, name="t") as group:
        results = await group.submit_many(range(100))
    assert calls == 1
    assert all(isinstance(result, Unavailable) for result in results)


async def test_a_full_queue_refuses() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    async with GroupCommit(ledger.commit, name="t", max_waiting=2) as group:
        tasks = await submitted(group, [1])
        tasks += await submitted(group, [2, 3])
        with pytest.raises(Overloaded):
            await group.submit(4)
        ledger.gate.set()
        assert await asyncio.gather(*tasks) == [2, 4, 6]


async def test_leaving_commits_what_waits_and_refuses_more() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    async with GroupCommit(ledger.commit, name="t", max_batch=2) as group:
        tasks = await submitted(group, [1])
        tasks += await submitted(group, [2, 3, 4])
        asyncio.get_running_loop().call_later(0.02, ledger.gate.set)
    assert [task.result() for task in tasks] == [2, 4, 6, 8]
    with pytest.raises(Unavailable):
        await group.submit(5)


async def test_an_interrupted_drain_leaves_no_caller_waiting() -> None:
    ledger = Ledger()
    ledger.gate.clear()

    async def serve() -> list[asyncio.Task[int]]:
        async with asyncio.timeout(0.05):
            async with GroupCommit(ledger.commit, name="t") as group:
                tasks.extend(await submitted(group, [1]))
                tasks.extend(await submitted(group, [2]))
        return tasks

    tasks: list[asyncio.Task[int]] = []
    with pytest.raises(TimeoutError):
        await serve()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [Unavailable, Unavailable]


async def test_a_cancelled_caller_takes_only_its_own_waiting_item_away() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    async with GroupCommit(ledger.commit, name="t") as group:
        committing = await submitted(group, [1, 2])
        waiting = await submitted(group, [3, 4])
        committing[0].cancel()
        waiting[0].cancel()
        await asyncio.sleep(0.01)
        ledger.gate.set()
        assert await committing[1] == 4
        assert await waiting[1] == 8
    assert ledger.batches == [[1, 2], [4]]


async def test_a_second_writer_starts_when_a_whole_batch_waits() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    async with GroupCommit(ledger.commit, name="t", max_batch=2, writers=2) as group:
        tasks = await submitted(group, [1])
        tasks += await submitted(group, [2])
        assert ledger.batches == [[1]]
        tasks += await submitted(group, [3])
        assert ledger.batches == [[1], [2, 3]]
        tasks += await submitted(group, [4])
        ledger.gate.set()
        await asyncio.gather(*tasks)
    assert ledger.batches == [[1], [2, 3], [4]]


async def test_batches_are_bounded_by_weight() -> None:
    ledger = Ledger()
    ledger.gate.clear()
    async with GroupCommit(ledger.commit, name="t", max_batch=4, max_waiting=12) as group:
        tasks = await submitted(group, [1])
        for item, weight in ((2, 1), (3, 3), (4, 1), (5, 5), (6, 2)):
            tasks.append(asyncio.create_task(group.submit(item, weight=weight)))
        await asyncio.sleep(0.01)
        with pytest.raises(Overloaded):
            await group.submit(7)
        ledger.gate.set()
        assert await asyncio.gather(*tasks) == [2, 4, 6, 8, 10, 12]
        assert await group.submit(7, weight=12) == 14
    assert ledger.batches == [[1], [2, 3], [4], [5], [6], [7]]


async def test_a_commit_that_miscounts_fails_its_batch() -> None:
    async def commit(items: Sequence[int]) -> list[int | Exception]:
        return []

    async with GroupCommit(commit, name="t") as group:
        with pytest.raises(Internal):
            await group.submit(1)
