"""The ledger against pgbench, against a naive service, and against an empty RPC.

Run `make bench-ledger`. Every transfer is fully checked (idempotency, funds, entries, lots).
pgbench does the same inserts and updates with one commit a transfer. Ends with VerifyLedger.
"""

import asyncio
import logging
import os
import random
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import structlog
import uvloop
from go2asia.points.v1 import points_pb2, points_pb2_grpc

from bench.ledger_data import load, seed
from bench.measure import Variant, against, interleave, rate, report
from bench.pgbench import pgbench
from devstack.certificates import Authority
from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.client import open_channel
from mesh.errors import Unavailable
from mesh.migrate import migrate

USERS = 1_000
HOT = 2  # the account number of the one user who gives in the hot variants
BATCH = 256
_requests = count(1)


def transfer(giver: int) -> points_pb2.TransferRequest:
    """One point from a user to someone of those who only receive."""
    taker = random.randint(USERS // 2 + 1, USERS)
    return points_pb2.TransferRequest(
        request_id=f"bench-{next(_requests)}",
        posting=points_pb2.PostingDetails(
            user_id=f"user-{giver}", unit="G2A", amount=1, reason="bench"
        ),
        recipient_user_id=f"user-{taker}",
    )


def anyone() -> int:
    """A giver."""
    return random.randint(HOT + 1, USERS // 2)


class Bench:
    """A cluster, the servers on it, and ways to drive them."""

    def __init__(self, folder: Path, options: Namespace, cleanup: ExitStack) -> None:
        self.options = options
        self.cleanup = cleanup
        self.authority = Authority(folder / "authority")
        self.cluster = Cluster(folder / "postgres", free_port())
        self.cluster.start()
        cleanup.callback(self.cluster.stop)
        self.cluster.provision("points")

    async def database(self, name: str, entries: int = 0) -> str:
        """A ledger with users who have points, and with that many older entries."""
        self.cluster.create_database(name)
        await migrate("points_svc", self.cluster.url(name))
        with self.cluster.connect(name) as connection:
            seed(connection, USERS)
            if entries:
                load(connection, self.cluster.connect(name), USERS, entries)
        return name

    async def serve(self, name: str, *program: str) -> Any:
        """A stub of a server on that database, once it answers."""
        files, address = self.authority.issue("points/points"), f"127.0.0.1:{free_port()}"
        environment = {
            "POINTS_LISTEN": address,
            "POINTS_DATABASE_URL": self.cluster.url(name, "points_app"),
            "POINTS_TLS_CERT": str(files.cert),
            "POINTS_TLS_KEY": str(files.key),
            "POINTS_TLS_CA": str(files.ca),
            "POINTS_LOG_LEVEL": "warning",
        }
        self.cleanup.enter_context(_process([sys.executable, "-m", *program], environment))
        channel = open_channel(address, self.authority.issue("operator/bench"))
        await channel.__aenter__()
        stub = points_pb2_grpc.PointsServiceStub(channel)
        while True:
            try:
                await stub.Transfer(transfer(anyone()))
                return stub
            except Unavailable:
                await asyncio.sleep(0.1)

    def unary(self, stub: Any) -> Variant:
        """128 callers, a transfer a call."""

        async def one() -> int:
            await stub.Transfer(transfer(anyone()))
            return 1

        return lambda: rate(one, in_flight=128, seconds=self.options.seconds)

    def batches(self, stub: Any, giver: Callable[[], int]) -> Variant:
        """4 callers, 256 transfers a call."""

        async def one() -> int:
            items = [points_pb2.PostItem(transfer=transfer(giver())) for _ in range(BATCH)]
            results = (await stub.BatchPost(points_pb2.BatchPostRequest(items=items))).results
            if not all(result.HasField("transaction") for result in results):
                raise RuntimeError(f"not every transfer was booked: {results[0]}")
            return BATCH

        return lambda: rate(one, in_flight=4, seconds=self.options.seconds)

    def pgbench(self, name: str, giver: str) -> Variant:
        """32 connections, one commit a transfer."""
        transfer = Path(__file__).with_name("ledger_transfer.sql").read_text()
        script = f"\\set giver {giver}\n{transfer}"
        return pgbench(self.cluster, name, script, {"users": USERS}, self.options.seconds)


async def measure(bench: Bench) -> None:
    """All variants in turn, then the audit."""
    options = bench.options
    ours = await bench.serve(await bench.database("ours"), "points_svc")
    naive_stub = await bench.serve(await bench.database("naive"), "bench.ledger_servers", "naive")
    empty_stub = await bench.serve("naive", "bench.ledger_servers", "empty")
    plain = await bench.database("plain")
    full = await bench.serve(await bench.database("full", options.entries), "points_svc")
    if options.entries:
        await sealed(bench, "full")
    rates = await interleave(
        {
            "batch": bench.batches(ours, anyone),
            "pgbench": bench.pgbench(plain, f"random({HOT + 1}, {USERS // 2})"),
            "hot": bench.batches(ours, lambda: HOT),
            "hot pgbench": bench.pgbench(plain, str(HOT)),
            "unary": bench.unary(ours),
            "naive": bench.unary(naive_stub),
            "empty RPC": bench.unary(empty_stub),
            "full": bench.batches(full, anyone),
        },
        options.rounds,
    )
    report(
        "ledger",
        [
            against("ledger.batch_vs_pgbench", rates["batch"], rates["pgbench"], 2.0),
            against("ledger.unary_vs_naive", rates["unary"], rates["naive"], 6.0),
            against("ledger.unary_vs_empty_rpc", rates["unary"], rates["empty RPC"], 0.5),
            against("ledger.hot_vs_pgbench", rates["hot"], rates["hot pgbench"], 10.0),
            against("ledger.batch_scale", rates["full"], rates["batch"], 0.8),
        ],
    )
    await verify("ours", ours)
    await verify("full", full)


async def sealed(bench: Bench, name: str) -> None:
    """Waits until what was loaded is sealed, so that the sealer's catching up is not measured."""
    unsealed = (
        "SELECT 1 FROM transactions"
        " WHERE batch >= (SELECT coalesce(max(end_batch), 0) FROM seals) LIMIT 1"
    )
    with bench.cluster.connect(name) as connection:
        while connection.execute(unsealed).fetchone():  # noqa: ASYNC110 - another process seals
            await asyncio.sleep(1)


async def verify(name: str, stub: Any) -> None:
    """Ends the program when the ledger is not sound."""
    found = await stub.VerifyLedger(points_pb2.VerifyLedgerRequest(), timeout=600)
    print(
        f"VerifyLedger of {name}: {found.transactions:,} transactions, {found.entries:,} entries, "
        f"{found.lots:,} lots, {found.seals:,} seals: {len(found.findings)} findings"
    )
    if found.findings:
        sys.exit("\n".join(found.findings))


@contextmanager
def _process(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command, env={**os.environ, **environment})
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Reads the options and measures."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=10_000_000, help="older entries, by COPY")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each variant in a round")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="bench-ledger-")))
        uvloop.run(measure(Bench(folder, options, cleanup)))


if __name__ == "__main__":
    main()
