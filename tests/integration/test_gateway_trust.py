"""Trust level 0: the Gateway checks validators' signatures itself, through two lite-servers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from go2asia.gateway.v1 import chain_pb2

from devstack.postgres import Cluster
from tests.integration.gateway_stage import (
    Callers,
    NftRecorder,
    Stage,
    UserWallet,
    audit,
    calling,
    orders,
    playing,
    recording,
    reported,
)

_READ_AT_ONCE = 1 << 16


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    with playing(tmp_path_factory.mktemp("trust"), postgres, make_database()) as stage:
        yield stage


class Relay:
    """A second address of the lite-server: to a client, another peer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self) -> int:
        """Begins to accept; gives the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Ends every connection and takes no more."""
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._port)
        for source, sink in ((reader, there[1]), (there[0], writer)):
            task = asyncio.create_task(_pump(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        try:
            while data := await source.read(_READ_AT_ONCE):
                sink.write(data)
                await sink.drain()
        finally:
            sink.close()


@asynccontextmanager
async def second_peer(stage: Stage) -> AsyncIterator[Relay]:
    """Adds a lite-server to the global config that the Gateway reads."""
    config = json.loads((stage.network / "global.config.json").read_text())
    [only] = config["liteservers"]
    relay = Relay(only["port"])
    config["liteservers"].append({**only, "port": await relay.listen()})
    two = stage.folder / "two-peers.json"
    two.write_text(json.dumps(config))
    stage.environment |= {"GATEWAY_TON_CONFIG": str(two), "GATEWAY_TON_TRUST_LEVEL": "0"}
    try:
        yield relay
    finally:
        await relay.close()


def stored(stage: Stage) -> list[Path]:
    """What pytoniq remembers of the blocks whose signatures it has checked."""
    return list((stage.folder / ".blockstore").iterdir())


async def mint(stage: Stage, nft: NftRecorder, callers: Callers, wallet: UserWallet) -> None:
    ordered = orders("tam", 20)
    await callers.submit(ordered)
    mint_ids = {order.mint_id for order in ordered}
    await reported(nft, "FINALIZED", mint_ids, stage)
    await audit(stage, nft, mint_ids, wallet.address)


async def test_it_mints_trusting_nobody_but_validators(stage: Stage) -> None:
    async with second_peer(stage) as relay, recording(stage) as nft, calling(stage) as callers:
        wallet = UserWallet()
        await callers.link("tam", wallet)
        await mint(stage, nft, callers, wallet)
        assert stored(stage), "no signature was checked"
        status = await callers.chain.GetGatewayStatus(chain_pb2.GetGatewayStatusRequest())
        assert not status.paused, status.paused_reason

        await relay.close()
        await mint(stage, nft, callers, wallet)

    # A new process finds the stored blocks, and both peers may find nothing newer.
    async with second_peer(stage), recording(stage) as nft, calling(stage) as callers:
        await mint(stage, nft, callers, wallet)
