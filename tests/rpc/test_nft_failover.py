"""A watcher lives through the death of the replica that served it."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from go2asia.nft.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    nft_pb2,
    nft_pb2_grpc,
    rewards_pb2_grpc,
)

from devstack.certificates import Authority
from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.client import open_channel
from mesh.watching import watch
from nft_svc.errors import Draining
from tests.rpc.mesh_probe import serving
from tests.rpc.nft_process import MemoryGateway, Watch, explorer, nft_process, reward, settled


async def test_a_watcher_goes_on_when_its_replica_drains(
    postgres: Cluster, make_database: Callable[[], str], authority: Authority
) -> None:
    name = make_database()
    urls = postgres.url(name), postgres.url(name, "nft_app")
    memory = MemoryGateway()
    async with (
        serving(authority, memory.registration()) as gateway,
        nft_process(authority, *urls, gateway) as first,
        nft_process(authority, *urls, gateway) as second,
        second.channel("economy-manager/ann") as authors,
        second.channel("connect/connect") as connect,
        second.channel("bff/web") as reads,
        open_channel(f"{first.address},{second.address}", authority.issue("bff/web")) as both,
        first.channel("bff/web") as only_first,
    ):
        request = catalog_pb2.CreateNftTypeRequest(request_id="t", nft_type=explorer())
        await catalog_pb2_grpc.NftCatalogServiceStub(authors).CreateNftType(request)
        rewards: Any = rewards_pb2_grpc.RewardServiceStub(connect)
        outcome = (await rewards.ApplyReward(reward("ada"))).outcome
        people: Any = nft_pb2_grpc.NftServiceStub(reads)
        mint = await settled(people, outcome.mint_id, lambda mint: bool(mint.operation_id))
        channels = [only_first]

        def open_stream(token: str) -> Any:
            channel = channels.pop() if channels else both
            return nft_pb2_grpc.NftServiceStub(channel).WatchMintStatus(
                Watch(user_id="ada", resume_token=token)
            )

        seen: list[int] = []
        snapshots = 0
        async with asyncio.timeout(20):
            async for message in watch(open_stream):
                if message.HasField("snapshot"):
                    snapshots += 1
                    await second.report(mint.mint_id, mint.operation_id, 2, 3)
                elif message.HasField("change"):
                    seen.append(message.change.mint.state)
                    if len(seen) == 1:
                        first.terminate()
                        assert await first.exit_code() == 0
                        await second.report(mint.mint_id, mint.operation_id, 3, 4)
                        await second.report(mint.mint_id, mint.operation_id, 4, 5)
                    if len(seen) == 3:
                        break
        assert seen == [
            nft_pb2.MINT_STATE_SUBMITTED,
            nft_pb2.MINT_STATE_ACCEPTED,
            nft_pb2.MINT_STATE_MINTED,
        ]
        assert snapshots == 1, "the token, not a new snapshot, carried it over"


async def test_a_drain_is_told_by_its_name_and_counted_until_then(
    postgres: Cluster, make_database: Callable[[], str], authority: Authority
) -> None:
    name = make_database()
    urls = postgres.url(name), postgres.url(name, "nft_app")
    metrics = free_port()
    settings = {"NFT_METRICS_PORT": str(metrics), "NFT_CENSUS_SECONDS": "0.2"}
    async with (
        asyncio.timeout(30),
        nft_process(authority, *urls, "localhost:1", **settings) as nft,
        nft.channel("economy-manager/ann") as authors,
        nft.channel("connect/connect") as connect,
        nft.channel("bff/web") as reads,
    ):
        request = catalog_pb2.CreateNftTypeRequest(request_id="t", nft_type=explorer())
        await catalog_pb2_grpc.NftCatalogServiceStub(authors).CreateNftType(request)
        rewards: Any = rewards_pb2_grpc.RewardServiceStub(connect)
        for user in ("ada", "bob"):
            await rewards.ApplyReward(reward(user))
        stub = nft_pb2_grpc.NftServiceStub(reads)
        streams = [aiter(stub.WatchMintStatus(Watch(user_id=user))) for user in ("ada", "bob")]
        for stream in streams:
            await anext(stream)
        page = await scrape_until(metrics, "nft_mints", "QUEUED", 2)
        assert sample(page, "nft_feed_streams") == 2
        waiting = [sample(page, "nft_submissions", word) for word in ("ready", "leased", "delayed")]
        assert sum(waiting) == 2, "nobody takes them: the Gateway is not there"
        nft.terminate()
        for stream in streams:
            with pytest.raises(Draining):
                await read_on(stream)
        assert await nft.exit_code() == 0


async def read_on(stream: Any) -> None:
    async for _ in stream:
        pass


async def scrape_until(port: int, name: str, label: str, value: float) -> str:
    """The metrics page once a sample has that value."""
    for _ in range(100):
        reader, writer = await asyncio.open_connection("localhost", port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        if sample(page, name, label) == value:
            return page
        await asyncio.sleep(0.1)
    raise AssertionError(f"{name} of {label} never became {value}:\n{page}")


def sample(page: str, name: str, label: str = "") -> float:
    """The value of a metric, of the series that has a label of this value; 0 if there is none."""
    quoted = f'.*"{label}"' if label else ""
    found = re.search(rf"^{name}\{{{quoted}.*\}} (.+)$", page, re.MULTILINE)
    return float(found[1]) if found else 0
