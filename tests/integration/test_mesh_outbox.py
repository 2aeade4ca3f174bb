"""The queue on a real Postgres: what is claimed, what a stale claim can do, what the dead keep."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest
from sqlalchemy import MetaData

from mesh.db import Connection, Database
from mesh.outbox import Backoff, Claim, Dead, Depth, Done, Outcome, Queue, Retry, Work, queue_table
from mesh.telemetry import continue_trace, traceparent

METADATA = MetaData()
NOW = Backoff(first=timedelta(0), cap=timedelta(0))
QUEUE = Queue(
    queue_table(METADATA, "jobs"), lease=timedelta(minutes=1), max_attempts=3, backoff=NOW
)
SHORT = Queue(QUEUE.table, lease=timedelta(milliseconds=50), max_attempts=3, backoff=NOW)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, application_name="test") as database:
        async with database.transaction() as connection:
            await connection.run_sync(METADATA.drop_all)
            await connection.run_sync(METADATA.create_all)
        yield database


def work(item_id: str, ordering_key: str | None = None) -> Work:
    return Work(item_id, "lane", item_id.encode(), ordering_key)


async def enqueue(database: Database, *works: Work) -> None:
    await database.run(lambda c: QUEUE.enqueue(c, works))


async def claim(database: Database, limit: int = 100, queue: Queue = QUEUE) -> list[Claim]:
    return await database.run(lambda c: queue.claim(c, "lane", limit))


async def settle(
    database: Database, claims: Sequence[Claim], outcome: Outcome
) -> list[tuple[str, Outcome]]:
    ended = await database.run(lambda c: QUEUE.settle(c, [(claim, outcome) for claim in claims]))
    return [(claim.item_id, outcome) for claim, outcome in ended]


def ids(claims: Sequence[Claim]) -> list[str]:
    return [claim.item_id for claim in claims]


async def test_work_commits_with_the_callers_transaction(database: Database) -> None:
    async def fail(connection: Connection) -> None:
        await QUEUE.enqueue(connection, [work("a")])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database.run(fail)
    assert await claim(database) == []


async def test_items_come_once_and_in_order(database: Database) -> None:
    await enqueue(database, *(work(f"{n:03}") for n in range(50)))
    await enqueue(database, work("000"), work("last"), work("last"))
    first, second = await claim(database, 30), await claim(database)
    assert ids(first) + ids(second) == [f"{n:03}" for n in range(50)] + ["last"]
    assert first[7].payload == b"007"
    assert {c.attempts for c in first} == {1}
    assert await claim(database) == []


async def test_the_trace_is_captured_at_enqueue(database: Database) -> None:
    with continue_trace("00-" + "a" * 32 + "-" + "b" * 16 + "-01", "test"):
        current = traceparent()
        await enqueue(database, work("a"))
    assert (await claim(database))[0].traceparent == current is not None


async def test_what_is_done_leaves_and_what_failed_returns_until_it_is_dead(
    database: Database,
) -> None:
    await enqueue(database, work("good"), work("bad"))
    good, bad = await claim(database)
    assert await settle(database, [good], Done()) == [("good", Done())]
    for attempt in (1, 2):
        assert bad.attempts == attempt
        assert await settle(database, [bad], Retry("busy")) == [("bad", Retry("busy"))]
        (bad,) = await claim(database)
    [(_, verdict)] = await settle(database, [bad], Retry("bu\0sy"))
    assert verdict == Dead("gave up after 3 attempts; the last error: bu\0sy")
    assert await claim(database) == []
    assert await database.run(lambda c: QUEUE.revive(c, ["good", "bad"])) == {"bad"}
    assert [(c.item_id, c.attempts) for c in await claim(database)] == [("bad", 1)]


async def test_whoever_outlives_its_lease_changes_nothing(database: Database) -> None:
    await enqueue(database, work("a"))
    frozen = await claim(database, queue=SHORT)
    await asyncio.sleep(0.06)
    current = await claim(database)
    assert [c.attempts for c in current] == [2]
    for outcome in (Done(), Retry("late"), Dead("late")):
        assert await settle(database, frozen, outcome) == []
    await database.run(lambda c: QUEUE.release(c, frozen))
    assert await claim(database) == []
    assert await settle(database, current, Done()) == [("a", Done())]
    assert await settle(database, current, Done()) == []


async def test_an_item_that_kills_its_workers_runs_out_of_attempts(database: Database) -> None:
    await enqueue(database, work("killer"))
    for attempt in (1, 2, 3, 4):
        (crashed,) = await claim(database, queue=SHORT)
        assert QUEUE.abandoned(crashed) is (attempt == 4)
        await asyncio.sleep(0.06)


async def test_a_released_claim_costs_no_attempt(database: Database) -> None:
    await enqueue(database, work("a"))
    claims = await claim(database)
    await database.run(lambda c: QUEUE.release(c, claims))
    assert [c.attempts for c in await claim(database)] == [1]


async def test_a_key_is_worked_one_item_after_the_other(database: Database) -> None:
    await enqueue(database, work("a1", "a"), work("a2", "a"), work("b1", "b"), work("free"))
    first = await claim(database)
    assert ids(first) == ["a1", "b1", "free"]
    assert await claim(database) == []
    await settle(database, first[:1], Retry("still first"))
    first = await claim(database)
    assert ids(first) == ["a1"]
    await settle(database, first, Dead("no"))
    second = await claim(database)
    assert ids(second) == ["a2"]
    await database.run(lambda c: QUEUE.revive(c, ["a1"]))
    assert await claim(database) == []
    await settle(database, second, Done())
    assert ids(await claim(database)) == ["a1"]


async def test_whoever_joins_a_line_waits_for_those_who_are_joining_it(database: Database) -> None:
    await enqueue(database, work("a0", "a"))
    (dead,) = await claim(database)
    await settle(database, [dead], Dead("no"))
    async with database.transaction() as first:
        await QUEUE.enqueue(first, [work("b1", "b"), work("a1", "a")])
        second = asyncio.create_task(enqueue(database, work("a2", "a"), work("b2", "b")))
        again = asyncio.create_task(database.run(lambda c: QUEUE.revive(c, ["a0"])))
        await enqueue(database, work("free"), work("c1", "c"))
        assert ids(await claim(database)) == ["free", "c1"]
        assert not second.done()
        assert not again.done()
    await asyncio.gather(second, again)
    worked: list[str] = []
    while heads := await claim(database):
        assert len({head.item_id[0] for head in heads}) == len(heads)
        worked += ids(heads)
        await settle(database, heads, Done())
    assert sorted(worked[:2]) == ["a1", "b1"]  # a0 and a2 come in the order of their commits
    assert sorted(worked[2:]) == ["a0", "a2", "b2"]


async def test_an_uncommitted_claim_is_skipped_and_keeps_its_key(database: Database) -> None:
    await enqueue(database, work("a1", "a"), work("a2", "a"), work("free"))
    async with database.transaction() as connection:
        assert ids(await QUEUE.claim(connection, "lane", 1)) == ["a1"]
        assert ids(await claim(database)) == ["free"]


async def test_the_depth_of_each_lane(database: Database) -> None:
    slow = Queue(QUEUE.table, lease=timedelta(minutes=1), max_attempts=3, backoff=Backoff())
    await enqueue(database, *(work(name) for name in "abcdef"), Work("x", "other", b""))
    a, b, c = await claim(database, 3)
    await settle(database, [a], Dead("no"))
    await database.run(lambda connection: slow.settle(connection, [(b, Retry("later"))]))
    depth = await database.run(QUEUE.depth)
    assert depth.keys() == {"lane", "other"}
    oldest = depth["lane"].oldest_seconds
    assert 0 < oldest < 60
    assert depth["lane"] == Depth(ready=3, leased=1, delayed=1, dead=1, oldest_seconds=oldest)
    assert c.item_id == "c"
    await enqueue(database, work("x1", "x"), work("x2", "x"), work("x3", "x"), work("y1", "y"))
    depth = await database.run(QUEUE.depth)
    assert (depth["lane"].ready, depth["lane"].waiting) == (7, 2)


async def test_many_claimers_share_the_items_without_overlap(database: Database) -> None:
    await enqueue(database, *(work(str(n), str(n % 40) if n % 2 else None) for n in range(400)))
    settled: list[str] = []
    held: set[str] = set()

    async def worker() -> None:
        idle = 0
        while idle < 3:
            claims = await claim(database, 15)
            keys = {str(int(c.item_id) % 40) for c in claims if int(c.item_id) % 2}
            assert not keys & held
            held.update(keys)
            idle = 0 if claims else idle + 1
            await asyncio.sleep(0)
            held.difference_update(keys)
            settled.extend(item for item, _ in await settle(database, claims, Done()))

    await asyncio.gather(*(worker() for _ in range(6)))
    assert sorted(settled) == sorted(str(n) for n in range(400))


async def test_only_what_nobody_ever_held_can_be_withdrawn(database: Database) -> None:
    await enqueue(database, work("a"), work("b"))
    (held,) = await claim(database, limit=1)
    await settle(database, [held], Retry("its answer was lost"))
    withdrawn = await database.run(lambda c: QUEUE.withdraw(c, ["a", "b", "unknown"]))
    assert withdrawn == {"b"}
    assert ids(await claim(database)) == ["a"]
