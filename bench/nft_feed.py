"""WatchMintStatus with a crowd: what a stream costs, how late changes are, how fast all come back.

Reports come as the Gateway sends them, several in a call. How late a change is counts from the
moment its report was due, so a stall of the service counts for all that it held up.
"""

import asyncio
import json
import statistics
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import psycopg
from go2asia.nft.v1 import callbacks_pb2, callbacks_pb2_grpc, nft_pb2

from bench.measure import Figure
from bench.nft_data import mint, seed_mints, user_number
from bench.nft_service import NftService
from bench.nft_watchers import Crowd, Tally
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.client import open_channel
from mesh.clock import monotonic
from mesh.errors import MeshError

CONNECTIONS = 100
PROCESSES = 2
CHANGES_PER_SECOND = 500
TOGETHER = 10  # changes in a report
TICK = TOGETHER / CHANGES_PER_SECOND
WARM_UP_SECONDS = 3.0
PATIENCE_SECONDS = 120.0
LINE_LIMIT = 2**26
# The chain may take a mint back from MINTED to SUBMITTED, so one can change for ever.
WALK = (nft_pb2.MINT_STATE_ACCEPTED, nft_pb2.MINT_STATE_MINTED, nft_pb2.MINT_STATE_SUBMITTED)


@dataclass(frozen=True)
class Lateness:
    """Seconds from when something was due to when it was known."""

    samples: Sequence[float]

    def percentile(self, percent: int) -> float:
        """In milliseconds."""
        return statistics.quantiles(self.samples, n=100)[percent - 1] * 1000

    def __str__(self) -> str:
        p50, p99 = self.percentile(50), self.percentile(99)
        return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms of {len(self.samples):,}"


class Writer:
    """Changes mints in turn, as the Gateway does by its reports; retries what is not answered."""

    def __init__(self, stub: Any, mints: int) -> None:
        self._stub = stub
        self._mints = mints
        self._turns = count()
        self.due: dict[tuple[int, int], float] = {}

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """At the full rate during the block; at its end everything has been written."""
        stop = asyncio.Event()
        work = asyncio.create_task(self._write(stop))
        try:
            yield
        finally:
            stop.set()
            await work

    async def _write(self, stop: asyncio.Event) -> None:
        due = monotonic()
        async with asyncio.TaskGroup() as reports:
            while not stop.is_set():
                await asyncio.sleep(max(0.0, due - monotonic()))
                reports.create_task(self._report(due))
                due += TICK

    async def _report(self, due: float) -> None:
        request = callbacks_pb2.ReportMintStatusRequest()
        for _ in range(TOGETHER):
            lap, number = divmod(next(self._turns), self._mints)
            report = request.reports.add(
                mint_id=mint(number + 1),
                operation_id=mint(number + 1),
                version=lap + 1,
                state=WALK[lap % len(WALK)],
            )
            self.due[number + 1, report.version + 1] = due
        while True:
            with suppress(MeshError):
                await self._stub.ReportMintStatus(request)
                return


class Crowds:
    """The processes that watch."""

    def __init__(self, processes: Sequence[Process]) -> None:
        self._processes = processes

    @classmethod
    @asynccontextmanager
    async def watching(cls, crowds: Sequence[Crowd]) -> AsyncIterator["Crowds"]:
        """A process for each crowd, until the end of the block."""
        program = [sys.executable, "-m", "bench.nft_watchers"]
        processes = [
            await asyncio.create_subprocess_exec(
                *program, stdin=PIPE, stdout=PIPE, limit=LINE_LIMIT
            )
            for _ in crowds
        ]
        try:
            for process, crowd in zip(processes, crowds, strict=True):
                _tell(process, json.dumps(asdict(crowd)))
            yield cls(processes)
        finally:
            for process in processes:
                process.kill()
                await process.wait()

    async def live(self, after: float) -> float:
        """The moment, later than `after`, at which the last watcher of all had caught up."""
        moments = []
        for process in self._processes:
            moment = 0.0
            while moment <= after:
                moment = (await _hear(process))["live"]
            moments.append(moment)
        return max(moments)

    async def tallies(self) -> list[Tally]:
        """What each crowd saw since the last time."""
        for process in self._processes:
            _tell(process, "tally")
        tallies = []
        for process in self._processes:
            while "live" in (said := await _hear(process)) and len(said) == 1:
                pass
            tallies.append(Tally(**said))
        return tallies


def _tell(process: Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line.encode() + b"\n")


async def _hear(process: Process) -> Any:
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        return json.loads(await process.stdout.readline())


async def measure_feed(
    cluster: Cluster, authority: Authority, service: NftService, streams: int, seconds: float
) -> list[Figure]:
    """The feed's figures on the database `feed`, whose service is about to start."""
    mints = streams // 2
    with cluster.connect("feed") as connection:
        seed_mints(connection, mints)
    bare = await bare_round_trips(cluster, seconds)
    print(f"  bare notification round trip: {bare}", flush=True)
    service.start()
    async with open_channel(service.address, authority.issue("gateway/gateway")) as channel:
        writer = Writer(callbacks_pb2_grpc.MintCallbackServiceStub(channel), mints)
        before, began = service.resident_bytes, monotonic()
        async with Crowds.watching(crowds(service.address, authority, mints)) as watchers:
            opened = await watchers.live(began) - began
            memory = (service.resident_bytes - before) / streams
            print(f"  {streams:,} streams open after {opened:.1f} s", flush=True)
            late = await lateness(writer, watchers, seconds)
            print(f"  {CHANGES_PER_SECOND} changes/s: {late}", flush=True)
            await check(cluster, watchers)
            storm = await reconnect_storm(service, writer, watchers)
            print(f"  all live again after {storm:.1f} s", flush=True)
            alive = await check(cluster, watchers)
    p99, bare_p99 = late.percentile(99), bare.percentile(99)
    ratio = round(p99 / bare_p99, 2)
    return [
        Figure("feed.streams", alive, "streams", None, None, 10_000, "higher"),
        Figure("feed.kib_per_stream", round(memory / 1024, 1), "KiB", None, None, 64, "lower"),
        Figure("feed.p99_ms", round(p99, 2), "ms", round(bare_p99, 2), ratio, 10, "lower"),
        Figure("feed.reconnect_storm_s", round(storm, 1), "s", None, None, 30, "lower"),
    ]


def crowds(address: str, authority: Authority, mints: int) -> list[Crowd]:
    """The watchers, shared among the processes."""
    tls = authority.issue("bff/bench")
    share = mints // PROCESSES
    return [
        Crowd(
            *(address, str(tls.cert), str(tls.key), str(tls.ca), CONNECTIONS // PROCESSES),
            first=number * share + 1,
            last=(number + 1) * share,
        )
        for number in range(PROCESSES)
    ]


async def bare_round_trips(cluster: Cluster, seconds: float) -> Lateness:
    """From before the commit of as many rows, by one NOTIFY, to whoever listens; no service."""
    samples = []
    with cluster.connect("feed") as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS bare (number INT)")
    url = cluster.url("feed").replace("+psycopg", "")
    connect = psycopg.AsyncConnection.connect
    async with await connect(url, autocommit=True) as reader, await connect(url) as writer:
        await reader.execute("LISTEN bare")
        due = monotonic()
        for _ in range(int(seconds / TICK)):
            due += TICK
            await asyncio.sleep(max(0.0, due - monotonic()))
            await writer.execute("INSERT INTO bare SELECT generate_series(1, %s)", [TOGETHER])
            await writer.commit()
            await writer.execute("NOTIFY bare")
            await writer.commit()
            async for _ in reader.notifies(stop_after=1):
                samples.append(monotonic() - due)
    return Lateness(samples)


async def lateness(writer: Writer, watchers: Crowds, seconds: float) -> Lateness:
    """Of every change at every watcher that it concerns, while all are watching."""
    async with writer.writing():
        await asyncio.sleep(WARM_UP_SECONDS)
        began = monotonic()
        await asyncio.sleep(seconds)
    await asyncio.sleep(1)  # for those on their way
    return Lateness(
        [
            moment - writer.due[number, version]
            for tally in await watchers.tallies()
            for number, version, moment in tally.arrivals
            if writer.due[number, version] >= began
        ]
    )


async def reconnect_storm(service: NftService, writer: Writer, watchers: Crowds) -> float:
    """Seconds from a `kill -9` of the service, in the midst of changes, until all are live."""
    async with writer.writing():
        await asyncio.sleep(WARM_UP_SECONDS)
        killed = monotonic()
        service.kill()
        await asyncio.to_thread(service.start)
        return await watchers.live(killed) - killed


async def check(cluster: Cluster, watchers: Crowds) -> int:
    """How many are live; ends the program unless each watcher's fold is what the database holds."""
    with cluster.connect("feed") as connection:
        rows = connection.execute("SELECT user_id, version, state FROM nft_mint_queue").fetchall()
    stored = {
        (user_number(user_id), version, nft_pb2.MintState.Value(f"MINT_STATE_{state}"))
        for user_id, version, state in rows
    }
    deadline = monotonic() + PATIENCE_SECONDS
    while True:
        tallies = await watchers.tallies()
        standings = [tuple(standing) for tally in tallies for standing in tally.standings]
        if faults := sum(tally.faults for tally in tallies):
            sys.exit(f"{faults} changes came out of turn, or snapshots out of place")
        if set(standings) == stored:
            return sum(tally.live for tally in tallies)
        if monotonic() > deadline:
            sys.exit(f"{len(set(standings) - stored)} watchers do not know the final state")
        await asyncio.sleep(0.5)
