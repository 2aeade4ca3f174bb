"""Minting through the Gateway against the devnet's own ceiling, and what the devnet can do.

Run `make bench-gateway`. Both sides mint the same items on the same devnet, in turn. The ceiling is
a bare client that sends messages which were packed and signed beforehand, until the devnet has
nothing left to do. The Gateway's time runs from the first order, over gRPC, packing, Postgres and
following the chain, until NFT has heard that every item is there.
"""

import asyncio
import logging
import tempfile
from argparse import ArgumentParser, Namespace
from contextlib import AsyncExitStack
from pathlib import Path
from time import perf_counter

import structlog
import uvloop

from bench import devnet
from bench.gateway_parts import BareClient, Gateway, Wallets, serving
from bench.measure import Figure, against, interleave, report
from chain_gateway.items import NANOTON
from devstack.ports import free_port
from devstack.postgres import Cluster
from ton_devnet.testing import Devnet

TOGETHER = 250
"""Mints in each message of the bare client: as many as the Gateway packs."""
TON_A_MINT = 0.1
"""More than one costs."""


async def minting(folder: Path, cluster: Cluster, options: Namespace) -> list[Figure]:
    """Mints in turn by both."""
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(Devnet(folder / "ton"))
        wallets = Wallets(folder, network)
        mints: int = options.mints
        total = mints * (options.rounds + 1)
        for name in ("bare", "gateway"):
            await wallets.deploy(name, round(total * TON_A_MINT) + 10)
        bare = BareClient(wallets.settings("bare"), network)
        gateway = await stack.enter_async_context(
            serving(folder, cluster, wallets.environment("gateway"))
        )
        before = await gateway.balance()

        async def ceiling() -> float:
            messages = bare.prepare(mints, TOGETHER)
            start = perf_counter()
            await bare.send(messages)
            return mints / (perf_counter() - start)

        async def through_the_gateway() -> float:
            start = perf_counter()
            await gateway.mint(mints)
            rate = mints / (perf_counter() - start)
            await _accounted(cluster)
            return rate

        rates = await interleave(
            {"gateway": through_the_gateway, "ceiling": ceiling}, options.rounds
        )
        cost = (before - await _settled(gateway)) / NANOTON / total
    with cluster.connect("gateway") as connection:
        found = connection.execute("SELECT count(*) FROM messages").fetchone()
    messages = found[0] if found else 0
    return [
        against("mint.vs_devnet_ceiling", rates["gateway"], rates["ceiling"], 0.8, unit="mints/s"),
        Figure("mint.per_message", round(total / messages, 1), "mints", None, None, 200, "higher"),
        Figure("mint.cost", round(cost, 4), "TON", None, None, 0.08, "lower"),
    ]


async def _accounted(cluster: Cluster) -> None:
    """Waits for what the Gateway puts off until it has nothing to send, which would slow others."""
    with cluster.connect("gateway") as connection:
        waiting = "SELECT EXISTS (SELECT FROM messages WHERE cost IS NULL)"
        while connection.execute(waiting).fetchone() == (True,):  # noqa: ASYNC110 - a process's work
            await asyncio.sleep(0.5)


async def _settled(gateway: Gateway) -> int:
    """The balance once what the last messages did not need has come back."""
    known, same = await gateway.balance(), 0
    while same < 3:
        await asyncio.sleep(2)
        balance = await gateway.balance()
        same = same + 1 if balance == known else 0
        known = balance
    return known


async def measure(folder: Path, cluster: Cluster, options: Namespace) -> None:
    """Everything, one after the other."""
    figures = await minting(folder, cluster, options)
    figures += await devnet.measured(folder / "accounts", options.accounts)
    report("gateway", figures)


def main() -> None:
    """Reads the options and measures."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--mints", type=int, default=5_000, help="of each side in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--accounts", type=int, default=100_000, help="for the devnet's figures")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with tempfile.TemporaryDirectory(prefix="bench-gateway-") as name:
        cluster = Cluster(Path(name) / "postgres", free_port())
        cluster.start()
        try:
            uvloop.run(measure(Path(name), cluster, options))
        finally:
            cluster.stop()


if __name__ == "__main__":
    main()
