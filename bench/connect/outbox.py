"""The durable queue against procrastinate and pgqueuer: enqueued, claimed, done, acknowledged.

All three on one Postgres with the same durability, each enqueueing in batches and working with
the options that suit it best; the work itself is nothing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from functools import partial
from time import perf_counter

import procrastinate
import psycopg
from pgqueuer import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.db import PsycopgDriver
from pgqueuer.models import Job
from pgqueuer.types import QueueExecutionMode
from procrastinate.types import JSONDict
from sqlalchemy import MetaData

from bench.measure import Figure, Variant, against, interleave
from devstack.postgres import Cluster
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.outbox import Claim, Done, Outcome, Queue, Settlement, Work, queue_table
from mesh.worker import Worker

PAYLOAD = b"x" * 200
BATCH = 200
LANE = "bench"

_METADATA = MetaData()
_QUEUE = Queue(queue_table(_METADATA, "jobs"), lease=timedelta(seconds=30), max_attempts=10)


async def measure(cluster: Cluster, *, rounds: int, jobs: int) -> list[Figure]:
    """All figures about the queue; the slower two get fewer jobs, so that a round stays short."""
    for name in ("outbox", "procrastinate_jobs", "pgqueuer_jobs"):
        cluster.create_database(name)
    async with Database(cluster.url("outbox"), application_name="bench") as database:
        async with database.transaction() as connection:
            await connection.run_sync(_METADATA.create_all)
        url = cluster.url("procrastinate_jobs").replace("+psycopg", "")
        async with _procrastinate_app(url) as app:
            await app.schema_manager.apply_schema_async()
            rates = await interleave(
                {
                    "ours": _ours(database, jobs),
                    "procrastinate": _procrastinate(app, jobs // 20),
                    "pgqueuer": await _pgqueuer(cluster, "pgqueuer_jobs", jobs // 2),
                },
                rounds,
            )
    ours = rates["ours"]
    return [
        against("outbox.vs_procrastinate", ours, rates["procrastinate"], 60, unit="jobs/s"),
        against("outbox.vs_pgqueuer", ours, rates["pgqueuer"], 3, unit="jobs/s"),
    ]


def _ours(database: Database, jobs: int) -> Variant:
    async def run() -> float:
        left, empty = jobs, asyncio.Event()

        async def handle(claims: Sequence[Claim]) -> Sequence[Outcome]:
            return [Done() for _ in claims]

        async def settle(_: Connection, settled: Sequence[Settlement]) -> None:
            nonlocal left
            left -= len(settled)
            if left == 0:
                empty.set()

        start = perf_counter()
        for _ in range(jobs // BATCH):
            works = [Work(new_id(), LANE, PAYLOAD) for _ in range(BATCH)]
            await database.run(partial(_QUEUE.enqueue, works=works))
        async with Worker(database, _QUEUE, LANE, handle=handle, settle=settle, batch=BATCH):
            await empty.wait()
        return jobs / (perf_counter() - start)

    return run


@contextlib.asynccontextmanager
async def _procrastinate_app(url: str) -> AsyncIterator[procrastinate.App]:
    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=url, min_size=4, max_size=24)
    )
    async with app.open_async():
        yield app


def _procrastinate(app: procrastinate.App, jobs: int) -> Variant:
    @app.task(name="nothing")
    async def nothing(payload: str) -> None:
        return None

    batch: list[JSONDict] = [{"payload": PAYLOAD.decode()} for _ in range(50)]

    async def run() -> float:
        start = perf_counter()
        for _ in range(jobs // len(batch)):
            await nothing.batch_defer_async(*batch)
        await app.run_worker_async(
            wait=False,
            concurrency=20,
            delete_jobs="always",
            listen_notify=False,
            install_signal_handlers=False,
        )
        return jobs / (perf_counter() - start)

    return run


async def _pgqueuer(cluster: Cluster, name: str, jobs: int) -> Variant:
    url = cluster.url(name).replace("+psycopg", "")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await Queries(PsycopgDriver(connection)).install()

    async def run() -> float:
        # The manager closes its connection when it has drained the queue.
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            queries = Queries(PsycopgDriver(connection))
            manager = QueueManager(queries)

            @manager.entrypoint("nothing")
            async def nothing(job: Job) -> None:
                return None

            start = perf_counter()
            for _ in range(jobs // BATCH):
                await queries.enqueue(["nothing"] * BATCH, [PAYLOAD] * BATCH, [0] * BATCH)
            await manager.run(batch_size=BATCH, mode=QueueExecutionMode.drain)
            return jobs / (perf_counter() - start)

    return run
