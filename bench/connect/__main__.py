"""Connect against rule engines, job queues and pgbench: run `make bench-connect`.

`--only rules` (or `outbox`, or `mesh`) measures a part and writes nothing.
"""

import asyncio
import logging
import tempfile
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path

import structlog
import uvloop

from bench.connect import outbox, rules, whole
from bench.measure import Figure, report, show
from devstack.ports import free_port
from devstack.postgres import Cluster

PARTS = ("rules", "outbox", "mesh")


async def measure(folder: Path, options: Namespace, cleanup: ExitStack) -> list[Figure]:
    """The figures of the parts asked for."""
    figures: list[Figure] = []
    parts = [options.only] if options.only else PARTS
    if "rules" in parts:
        figures += await rules.measure(folder, rounds=options.rounds, seconds=options.seconds)
    cluster = Cluster(folder / "postgres", free_port())
    await asyncio.to_thread(cluster.start)
    cleanup.callback(cluster.stop)
    for service in ("connect", "points", "nft"):
        cluster.provision(service)
    if "outbox" in parts:
        figures += await outbox.measure(cluster, rounds=options.rounds, jobs=options.jobs)
    if "mesh" in parts:
        figures += await whole.measure(
            folder, cluster, cleanup, rounds=options.rounds, seconds=options.seconds
        )
    return figures


def main() -> None:
    """Reads the options and measures."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each variant in a round")
    parser.add_argument("--jobs", type=int, default=20_000, help="through the queue in a round")
    parser.add_argument("--only", choices=PARTS, help="measure this part alone; writes no results")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="bench-connect-")))
        figures = uvloop.run(measure(folder, options, cleanup))
    if options.only:
        show(figures)
    else:
        report("connect", figures)


if __name__ == "__main__":
    main()
