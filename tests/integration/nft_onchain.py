"""The NFT service and the Gateway as processes, on a real Postgres and a real devnet."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from go2asia.gateway.v1 import chain_pb2
from go2asia.nft.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    nft_pb2,
    nft_pb2_grpc,
    reconciliation_pb2,
    reconciliation_pb2_grpc,
    rewards_pb2_grpc,
)
from pytoniq import LiteBalancer, WalletV4R2
from pytoniq_core import Address, begin_cell

from devstack.postgres import Cluster
from mesh.clock import new_id
from tests.integration.gateway_stage import Callers, Stage, UserWallet, calling
from tests.rpc.nft_process import NftProcess, nft_process

TON = 10**9
Run = reconciliation_pb2.Reconciliation
SETTINGS = {"NFT_RECONCILIATION_GRACE_SECONDS": "0", "NFT_RECONCILIATION_LEASE_SECONDS": "5"}


@dataclass(frozen=True)
class World:
    """Both services at work, and stubs of everyone who calls them."""

    stage: Stage
    cluster: Cluster
    database: str
    nft: NftProcess
    gateway: Callers
    rewards: Any
    people: Any
    catalog: Any
    operators: Any

    def execute(self, statement: str, *values: Any) -> None:
        """Tampers with NFT's database."""
        with self.cluster.connect(self.database) as connection:
            connection.execute(statement.encode(), values)

    async def create(self, nft_type: catalog_pb2.NftType) -> None:
        request = catalog_pb2.CreateNftTypeRequest(request_id=new_id(), nft_type=nft_type)
        await self.catalog.CreateNftType(request)

    async def mint(self, mint_id: str) -> nft_pb2.Mint:
        mint: nft_pb2.Mint = (
            await self.people.GetMint(nft_pb2.GetMintRequest(mint_id=mint_id))
        ).mint
        return mint

    async def item(self, mint: nft_pb2.Mint) -> chain_pb2.NftItem:
        """The item of a mint as the chain has it."""
        address = mint.location.item_address
        request = chain_pb2.GetNftItemRequest(item_address=address)
        item: chain_pb2.NftItem = (await self.gateway.chain.GetNftItem(request)).item
        return item

    async def changes(self, nft_id: str, count: int) -> list[nft_pb2.Mint]:
        """An instance's mints in order, once there are so many and all are final."""
        async with asyncio.timeout(45):
            while True:
                stream = self.people.WatchMintStatus(nft_pb2.WatchMintStatusRequest(nft_id=nft_id))
                snapshot = (await anext(aiter(stream))).snapshot
                stream.cancel()
                mints = list(snapshot.mints)
                if len(mints) == count and {mint.state for mint in mints} == {6}:
                    return mints
                assert len(mints) <= count, "nothing else was to be done"
                await asyncio.sleep(0.1)

    async def finalised(self, mint_id: str) -> nft_pb2.Mint:
        """The mint, once it is beyond any rollback."""
        return await self.reaches(mint_id, nft_pb2.MINT_STATE_FINALIZED)

    async def reaches(self, mint_id: str, state: nft_pb2.MintState.ValueType) -> nft_pb2.Mint:
        """The mint, once it is in that state."""
        async with asyncio.timeout(45):
            while (mint := await self.mint(mint_id)).state != state:
                assert mint.state != nft_pb2.MINT_STATE_FAILED, mint.failure_reason
                await asyncio.sleep(0.1)
        return mint

    async def reconcile(self, **options: Any) -> tuple[Run, list[Any]]:
        """A run from its start to its end, and what it found."""
        request = reconciliation_pb2.StartReconciliationRequest(request_id=new_id(), **options)
        run = (await self.operators.StartReconciliation(request)).reconciliation
        async with asyncio.timeout(60):
            while run.state == Run.STATE_RUNNING:
                await asyncio.sleep(0.1)
                got = reconciliation_pb2.GetReconciliationRequest()
                run = (await self.operators.GetReconciliation(got)).reconciliation
        assert run.state == Run.STATE_COMPLETED, run.failure_reason
        listing = reconciliation_pb2.ListDiscrepanciesRequest(
            reconciliation_id=run.reconciliation_id, page_size=500
        )
        return run, list((await self.operators.ListDiscrepancies(listing)).discrepancies)

    async def give_away(self, wallet: UserWallet, item_address: str, to: str) -> None:
        """Transfers an item by its owner's own wallet, and waits until the chain says so."""
        item, owner = Address(item_address), Address(to)
        self.stage.fund(wallet.address, 2)
        config = json.loads((self.stage.network / "global.config.json").read_text())
        client = LiteBalancer.from_config(config, trust_level=1)
        await client.start_up()
        try:
            sender = await _sender(client, wallet)
            body = begin_cell().store_uint(0x5FCC3D14, 32).store_uint(7, 64).store_address(owner)
            body = body.store_address(sender.address).store_bit_int(0).store_coins(0)
            await sender.transfer(item, TON // 10, body.store_bit_int(0).end_cell())

            async def given() -> bool:
                data = await client.run_get_method(item, "get_nft_data", [])
                return bool(data[3].load_address() == owner)

            await _eventually(given)
        finally:
            await client.close_all()


@asynccontextmanager
async def at_work(stage: Stage, cluster: Cluster, database: str) -> AsyncIterator[World]:
    """NFT and Gateway, each knowing the other."""
    urls = cluster.url(database), cluster.url(database, "nft_app")
    gateway = f"127.0.0.1:{stage.port}"
    async with nft_process(stage.authority, *urls, gateway, **SETTINGS) as nft:
        stage.environment["GATEWAY_NFT_ADDRESS"] = nft.address
        async with (
            calling(stage) as callers,
            nft.channel("connect/connect") as one,
            nft.channel("bff/web") as two,
            nft.channel("economy-manager/ann") as three,
            nft.channel("operator/ops") as four,
        ):
            yield World(
                stage, cluster, database, nft, callers,
                rewards_pb2_grpc.RewardServiceStub(one),
                nft_pb2_grpc.NftServiceStub(two),
                catalog_pb2_grpc.NftCatalogServiceStub(three),
                reconciliation_pb2_grpc.ReconciliationServiceStub(four),
            )  # fmt: skip


async def _sender(client: LiteBalancer, wallet: UserWallet) -> WalletV4R2:
    """The user's wallet, deployed."""
    seed = wallet.key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    public = wallet.key.public_key().public_bytes_raw()
    sender = await WalletV4R2.from_private_key(client, seed + public, version="v4r2")

    async def active() -> bool:
        await sender.update()
        return bool(sender.is_active)

    if not await active():
        await sender.deploy_via_external()
        await _eventually(active)
    return sender


async def _eventually(check: Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - the condition lives in another process
            await asyncio.sleep(0.1)
