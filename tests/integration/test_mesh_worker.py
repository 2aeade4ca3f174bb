"""Workers on a real Postgres: every item is settled once, whatever its handler does."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Column, MetaData, Table, Text, insert, select
from structlog.testing import capture_logs

from mesh.breaker import Breaker
from mesh.db import Connection, Database
from mesh.errors import InvalidArgument, Unavailable
from mesh.outbox import (
    Backoff,
    Claim,
    Done,
    Outcome,
    Queue,
    Retry,
    Settlement,
    Work,
    queue_table,
)
from mesh.worker import Worker

METADATA = MetaData()
SOON = Backoff(first=timedelta(milliseconds=1), cap=timedelta(milliseconds=5))
QUEUE = Queue(
    queue_table(METADATA, "jobs"), lease=timedelta(seconds=10), max_attempts=5, backoff=SOON
)
RESULTS = Table("results", METADATA, Column("item_id", Text), Column("outcome", Text))


@pytest.fixture(autouse=True)
def log() -> Iterator[list[Any]]:
    """What was logged; not printed, for a pretty traceback takes longer than the test."""
    with capture_logs() as entries:
        yield entries


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, application_name="test", pool_size=10) as database:
        async with database.transaction() as connection:
            await connection.run_sync(METADATA.drop_all)
            await connection.run_sync(METADATA.create_all)
        yield database


async def enqueue(database: Database, count: int) -> None:
    works = [Work(str(n), "lane", b"") for n in range(count)]
    await database.run(lambda c: QUEUE.enqueue(c, works))


async def done(claims: Sequence[Claim]) -> list[Outcome]:
    return [Done("x") for _ in claims]


async def record(connection: Connection, settlements: Sequence[Settlement]) -> None:
    final = [(c, o) for c, o in settlements if not isinstance(o, Retry)]
    rows = [{"item_id": c.item_id, "outcome": type(o).__name__} for c, o in final]
    if rows:
        await connection.execute(insert(RESULTS), rows)


def worker(database: Database, queue: Queue = QUEUE, **options: Any) -> Worker:
    defaults: dict[str, Any] = {
        "handle": done,
        "settle": record,
        "poll": timedelta(milliseconds=10),
    }
    return Worker(database, queue, "lane", **(defaults | options))


async def results(database: Database, count: int) -> Counter[tuple[str, str]]:
    """What was recorded, once `count` records are there."""
    async with asyncio.timeout(10):
        while True:
            async with database.transaction() as connection:
                rows = (await connection.execute(select(RESULTS))).tuples().all()
            if len(rows) >= count:
                return Counter((item_id, outcome) for item_id, outcome in rows)
            await asyncio.sleep(0.02)


async def left(database: Database) -> int:
    depths = await database.run(QUEUE.depth)
    return sum(d.ready + d.leased + d.delayed + d.dead for d in depths.values())


async def test_competing_workers_settle_every_item_once(database: Database) -> None:
    chance = random.Random(7)

    async def moody(claims: Sequence[Claim]) -> list[Outcome]:
        await asyncio.sleep(chance.random() * 0.01)
        if chance.random() < 0.1:
            raise Unavailable
        return [Retry("moody") if chance.random() < 0.1 else Done() for _ in claims]

    patient = Queue(QUEUE.table, lease=QUEUE.lease, max_attempts=None, backoff=SOON)
    await enqueue(database, 500)
    async with (
        worker(database, patient, handle=moody, batch=20, concurrency=2),
        worker(database, patient, handle=moody, batch=7, concurrency=3),
    ):
        found = await results(database, 500)
    assert found == Counter({(str(n), "Done"): 1 for n in range(500)})
    assert await left(database) == 0


async def test_a_wake_is_quicker_than_the_poll(database: Database) -> None:
    async with worker(database, poll=timedelta(hours=1)) as sleeping:
        await asyncio.sleep(0.05)
        await enqueue(database, 1)
        sleeping.wake()
        await results(database, 1)


async def test_a_handler_that_outlives_the_lease_is_broken_off(database: Database) -> None:
    brief = Queue(QUEUE.table, timedelta(milliseconds=100), 2, SOON)
    handled = 0

    async def freeze(claims: Sequence[Claim]) -> list[Outcome]:
        nonlocal handled
        handled += 1
        await asyncio.sleep(60)
        return []

    await enqueue(database, 1)
    async with worker(database, brief, handle=freeze, concurrency=2):
        assert await results(database, 1) == Counter({("0", "Dead"): 1})
    assert handled == 2


def refusing(error: Exception, *poison: str) -> Callable[[Sequence[Any]], None]:
    def check(item_ids: Sequence[str]) -> None:
        if set(item_ids) & set(poison):
            raise error

    return check


@pytest.mark.parametrize("error", [InvalidArgument(), ValueError("defect")])
async def test_a_poison_item_dies_alone(database: Database, error: Exception) -> None:
    refuse = refusing(error, "17", "42")

    async def handle(claims: Sequence[Claim]) -> list[Outcome]:
        refuse([c.item_id for c in claims])
        return await done(claims)

    await enqueue(database, 60)
    async with worker(database, handle=handle):
        found = await results(database, 60)
    assert {item for item, outcome in found if outcome == "Dead"} == {"17", "42"}
    assert set(found.values()) == {1}


async def test_an_outcome_that_cannot_be_settled_dies_alone(database: Database) -> None:
    refuse = refusing(ValueError("cannot be written"), "17")

    async def settle(connection: Connection, settlements: Sequence[Settlement]) -> None:
        await record(connection, settlements)
        refuse([c.item_id for c, _ in settlements])

    await enqueue(database, 60)
    async with worker(database, settle=settle):
        found = await results(database, 59)
        while (await database.run(QUEUE.depth))["lane"].dead == 0:  # noqa: ASYNC110 - a database
            await asyncio.sleep(0.02)
    assert found == Counter({(str(n), "Done"): 1 for n in range(60) if n != 17})
    assert await left(database) == 1
    async with database.transaction() as connection:
        told = (await connection.execute(select(QUEUE.table.c.last_error))).scalar()
    assert told == "settling failed: ValueError, see the log", "its text may quote data"


async def test_leaving_finishes_the_batch_under_way(database: Database) -> None:
    started = asyncio.Event()

    async def slow(claims: Sequence[Claim]) -> list[Outcome]:
        started.set()
        await asyncio.sleep(0.1)
        return await done(claims)

    await enqueue(database, 10)
    async with worker(database, handle=slow, batch=4, concurrency=1):
        await started.wait()
    assert (await results(database, 4)).total() == 4
    remaining = await database.run(lambda c: QUEUE.claim(c, "lane", 10))
    assert [c.attempts for c in remaining] == [1] * 6


async def test_a_claim_that_arrives_while_leaving_is_given_back(database: Database) -> None:
    class Slow(Queue):
        async def claim(self, connection: Connection, lane: str, limit: int) -> list[Claim]:
            claims = await super().claim(connection, lane, limit)
            claimed.set()
            await asyncio.sleep(0.05)
            return claims

    claimed = asyncio.Event()
    await enqueue(database, 3)
    slow = Slow(QUEUE.table, QUEUE.lease, QUEUE.max_attempts, SOON)
    async with worker(database, slow, concurrency=1):
        await claimed.wait()
    remaining = await database.run(lambda c: QUEUE.claim(c, "lane", 10))
    assert [c.attempts for c in remaining] == [1] * 3


async def test_an_open_breaker_spares_the_target_and_the_attempts(database: Database) -> None:
    sizes: list[int] = []
    sick = True

    async def handle(claims: Sequence[Claim]) -> list[Outcome]:
        sizes.append(len(claims))
        if sick:
            raise Unavailable
        return await done(claims)

    await enqueue(database, 20)
    breaker = Breaker(threshold=2, cooldown=0.2)
    async with worker(database, handle=handle, breaker=breaker, batch=20, concurrency=1):
        await asyncio.sleep(0.15)
        assert sizes == [20, 20]
        sick = False
        found = await results(database, 20)
    assert sizes[:3] == [20, 20, 1]
    assert found == Counter({(str(n), "Done"): 1 for n in range(20)})


async def test_a_lost_database_does_not_stop_the_worker(database: Database) -> None:
    async with worker(database, concurrency=3):
        for _ in range(3):
            async with database.transaction() as connection:
                await connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE pid <> pg_backend_pid() AND datname = current_database()"
                )
            await asyncio.sleep(0.02)
        await enqueue(database, 5)
        assert (await results(database, 5)).total() == 5
