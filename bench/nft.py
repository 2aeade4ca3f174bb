"""The NFT service: rewards against pgbench making the same writes, and the feed with a crowd.

Run `make bench-nft`. One reward in ten raises a level; pgbench commits one reward at a time. The
feed ends with a comparison of what every watcher knows with what the database holds.
"""

import logging
import random
import tempfile
from argparse import ArgumentParser, Namespace
from contextlib import AsyncExitStack, ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import structlog
import uvloop
from go2asia.nft.v1 import catalog_pb2, catalog_pb2_grpc, rewards_pb2, rewards_pb2_grpc

from bench.measure import Figure, Variant, against, interleave, rate, report
from bench.nft_data import EVERY, explorer, user
from bench.nft_feed import measure_feed
from bench.nft_service import NftService
from bench.pgbench import pgbench
from devstack.certificates import Authority
from devstack.ports import free_port
from devstack.postgres import Cluster
from devstack.watchdog import Watchdog
from mesh.migrate import migrate

USERS = 10_000
BATCH = 256
# What an operator would set for ten thousand watchers: room for them, and fewer heartbeats.
CROWDED = {"max_streams": 20_000, "max_concurrent_calls": 30_000, "checkpoint_seconds": 15}
_requests = count(1)


def reward() -> rewards_pb2.ApplyRewardRequest:
    """One quest of somebody."""
    return rewards_pb2.ApplyRewardRequest(
        request_id=f"bench-{next(_requests)}",
        user_id=user(random.randint(1, USERS)),
        nft_type="explorer",
        counter="quests",
        increment=1,
        reference="event-1",
    )


class Bench:
    """A cluster, the services on it, and ways to drive them."""

    def __init__(self, folder: Path, options: Namespace, cleanup: ExitStack) -> None:
        self.options = options
        self.authority = Authority(folder / "authority")
        self.cluster = Cluster(folder / "postgres", free_port())
        self.cluster.start()
        cleanup.callback(self.cluster.stop)
        self.cluster.provision("nft")
        self._folder = folder
        self._cleanup = cleanup
        self._watchdog = cleanup.enter_context(Watchdog())

    async def database(self, name: str) -> str:
        """A fresh one."""
        self.cluster.create_database(name)
        await migrate("nft_svc", self.cluster.url(name))
        return name

    def service(self, database: str, **settings: int) -> NftService:
        """A service on that database, not started; ended with the rest."""
        service = NftService(
            self._folder, self.cluster, database, self.authority, self._watchdog, **settings
        )
        self._cleanup.callback(service.stop)
        return service

    def unary(self, stub: Any) -> Variant:
        """128 callers, a reward a call."""

        async def one() -> int:
            await stub.ApplyReward(reward())
            return 1

        return lambda: rate(one, in_flight=128, seconds=self.options.seconds)

    def batches(self, stub: Any) -> Variant:
        """4 callers, 256 rewards a call."""

        async def one() -> int:
            request = rewards_pb2.BatchApplyRewardsRequest(rewards=[reward() for _ in range(BATCH)])
            results = (await stub.BatchApplyRewards(request)).results
            if not all(result.HasField("outcome") for result in results):
                raise RuntimeError(f"not every reward was applied: {results[0]}")
            return BATCH

        return lambda: rate(one, in_flight=4, seconds=self.options.seconds)

    def pgbench(self, name: str) -> Variant:
        """32 connections, one commit a reward."""
        script = Path(__file__).with_name("nft_reward.sql").read_text()
        variables = {"users": USERS, "every": EVERY}
        return pgbench(self.cluster, name, script, variables, self.options.seconds)


async def measure_rewards(bench: Bench) -> list[Figure]:
    """Batches and single rewards in turn with pgbench."""
    ours, plain = await bench.database("ours"), await bench.database("plain")
    service = bench.service(ours)
    service.start()
    async with AsyncExitStack() as stack:
        authors = await stack.enter_async_context(service.channel("economy-manager/bench"))
        create = catalog_pb2.CreateNftTypeRequest(request_id="explorer", nft_type=explorer())
        await catalog_pb2_grpc.NftCatalogServiceStub(authors).CreateNftType(create)
        with bench.cluster.connect(plain) as connection:
            connection.execute(
                "INSERT INTO nft_types (code, version, state, display_name, description, counters,"
                " image, onchain_policy, token_standard)"
                " VALUES ('explorer', 1, 'ACTIVE', '', '', '{quests}', '', 'ON_REQUEST', 'NFT')"
            )
        channel = await stack.enter_async_context(service.channel("connect/bench"))
        stub = rewards_pb2_grpc.RewardServiceStub(channel)
        rates = await interleave(
            {
                "batch": bench.batches(stub),
                "pgbench": bench.pgbench(plain),
                "unary": bench.unary(stub),
            },
            bench.options.rounds,
        )
    service.stop()
    print(f"  one reward a call: {rates['unary']:,.0f} rewards/s", flush=True)
    batch, baseline = rates["batch"], rates["pgbench"]
    return [against("nft.rewards_vs_pgbench", batch, baseline, 2.0, unit="rewards/s")]


async def measure(bench: Bench) -> None:
    """Rewards, then the feed, each with the machine to itself."""
    figures = await measure_rewards(bench)
    feed = bench.service(await bench.database("feed"), **CROWDED)
    options = bench.options
    figures += await measure_feed(
        bench.cluster, bench.authority, feed, options.streams, options.feed_seconds
    )
    report("nft", figures)


def main() -> None:
    """Reads the options and measures."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each variant in a round")
    parser.add_argument("--streams", type=int, default=10_000, help="watchers of the feed")
    parser.add_argument("--feed-seconds", type=float, default=20.0, help="of changes at full rate")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with ExitStack() as cleanup:
        folder = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="bench-nft-")))
        uvloop.run(measure(Bench(folder, options, cleanup)))


if __name__ == "__main__":
    main()
