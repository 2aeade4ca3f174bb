"""What bench/gateway.py measures between: a bare client's messages, a Gateway, NFT's ear."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any
from uuid import uuid4

from go2asia.gateway.v1 import chain_pb2, chain_pb2_grpc, minting_pb2, minting_pb2_grpc
from go2asia.nft.v1 import callbacks_pb2, callbacks_pb2_grpc, nft_pb2
from pytoniq import LiteClient

from bench.devnet import everything_done
from chain_gateway import content, items, query_id
from chain_gateway.composition import minting_wallet
from chain_gateway.config import ChainSettings
from chain_gateway.operations import Content, Standard
from chain_gateway.wallet import ActionList
from devstack.certificates import Authority
from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.client import open_channel
from mesh.clock import utc_now
from mesh.config import ServiceSettings
from mesh.errors import MeshError
from mesh.server import Registration, running
from ton_devnet.testing import Devnet

USER, OWNER = "bench", "0:" + "be" * 32
ORDERS_A_CALL = 500
IN_FLIGHT = 8
"""External messages that the bare client has on their way."""

_ABOUT = minting_pb2.Content(
    name="Explorer of Hà Nội",
    description="For twelve places visited.",
    image="ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi/3.png",
    attributes=[minting_pb2.Attribute(trait_type="level", value="3")],
)
_DONE = {nft_pb2.MINT_STATE_MINTED, nft_pb2.MINT_STATE_FINALIZED}


@dataclass
class Wallets:
    """Settings of a wallet and its collections on the devnet, by the name of its key file."""

    folder: Path
    network: Devnet

    def environment(self, name: str) -> dict[str, str]:
        """What `python -m chain_gateway` needs to use that wallet."""
        key = self.folder / f"{name}.key"
        if not key.exists():
            key.write_text(os.urandom(32).hex())
            key.chmod(0o600)
        config = self.network.folder.global_config
        return {"GATEWAY_TON_CONFIG": str(config), "GATEWAY_WALLET_KEY_FILE": str(key)}

    def settings(self, name: str) -> ChainSettings:
        """The same, read."""
        environment = self.environment(name)
        return ChainSettings(
            ton_config=Path(environment["GATEWAY_TON_CONFIG"]),
            wallet_key_file=Path(environment["GATEWAY_WALLET_KEY_FILE"]),
        )

    async def deploy(self, name: str, ton: int) -> None:
        """Funds the wallet and brings it and its collections on to the chain."""
        wallet, _ = minting_wallet(self.settings(name))
        fund = ["-m", "ton_devnet", "fund", "--state", str(self.network.folder.path)]
        await _run([*fund, wallet.address, str(ton)], {})
        await _run(["-m", "chain_gateway", "setup"], self.environment(name))


class BareClient:
    """Sends signed messages that were packed beforehand, as fast as the devnet takes them."""

    def __init__(self, settings: ChainSettings, network: Devnet) -> None:
        self._wallet, collections = minting_wallet(settings)
        self._collection = collections[Standard.NFT]
        self._network = network
        self._indices, self._sequences = count(), count()

    def prepare(self, mints: int, together: int) -> list[bytes]:
        """The messages that mint so many items."""
        left, messages = mints, []
        while left:
            query = query_id.from_sequence(next(self._sequences))
            actions = ActionList()
            for _ in range(min(together, left)):
                actions.add(self._mint(query))
            left -= actions.count
            created_at = int(utc_now().timestamp()) - 30
            messages.append(self._wallet.external(actions, query=query, created_at=created_at))
        return messages

    def _mint(self, query: int) -> Any:
        mint_id = str(uuid4())
        traits = tuple((each.trait_type, each.value) for each in _ABOUT.attributes)
        said = Content(_ABOUT.name, _ABOUT.description, _ABOUT.image, traits)
        return items.mint(
            self._collection.address,
            index=next(self._indices),
            owner=OWNER,
            content=content.encode(said.entries(mint_id)),
            mint_id=mint_id,
            query_id=query,
        )

    async def send(self, messages: Sequence[bytes]) -> None:
        """Returns when the devnet has nothing left to do."""
        server = self._network.config["liteservers"][0]
        client = LiteClient("127.0.0.1", server["port"], server["id"]["key"], timeout=60)
        await client.connect()
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one(boc: bytes) -> None:
            async with gate:
                await client.raw_send_message(boc)

        try:
            await asyncio.gather(*(one(boc) for boc in messages))
            await everything_done(self._network)
        finally:
            await client.close()


@dataclass
class Ear(callbacks_pb2_grpc.MintCallbackServiceServicer):
    """NFT's side: hears which mints are on the chain."""

    done: set[str] = field(default_factory=set)

    async def ReportMintStatus(  # noqa: N802
        self, request: callbacks_pb2.ReportMintStatusRequest, context: Any
    ) -> callbacks_pb2.ReportMintStatusResponse:
        """Takes reports."""
        self.done |= {report.mint_id for report in request.reports if report.state in _DONE}
        return callbacks_pb2.ReportMintStatusResponse(changed=len(request.reports))


@dataclass
class Gateway:
    """A Gateway process, its caller, and what NFT hears of it."""

    minting: Any
    chain: Any
    ear: Ear

    async def mint(self, mints: int) -> None:
        """Returns when NFT has heard that every item is on the chain."""
        orders = [
            minting_pb2.MintOrder(
                request_id=str(uuid4()), mint_id=str(uuid4()), user_id=USER, content=_ABOUT
            )
            for _ in range(mints)
        ]
        for start in range(0, mints, ORDERS_A_CALL):
            batch = orders[start : start + ORDERS_A_CALL]
            response = await self.minting.BatchSubmitMints(
                minting_pb2.BatchSubmitMintsRequest(orders=batch)
            )
            if not all(result.HasField("operation") for result in response.results):
                raise RuntimeError(f"not every mint was taken: {response.results[0]}")
        wanted = {order.mint_id for order in orders}
        while not wanted <= self.ear.done:  # noqa: ASYNC110 - another process reports
            await asyncio.sleep(0.02)

    async def balance(self) -> int:
        """The wallet's balance in nanoton."""
        status = await self.chain.GetGatewayStatus(chain_pb2.GetGatewayStatusRequest())
        return int(status.wallet_balance_nanoton)


@asynccontextmanager
async def serving(folder: Path, cluster: Cluster, chain: dict[str, str]) -> AsyncIterator[Gateway]:
    """A Gateway on that wallet, with one user who has a wallet linked."""
    authority = Authority(folder / "authority")
    own, nft = authority.issue("gateway/gateway"), authority.issue("nft/nft")
    cluster.provision("gateway")
    settings = ServiceSettings(
        listen="127.0.0.1:0",
        database_url="postgresql+psycopg://none",
        tls_cert=nft.cert,
        tls_key=nft.key,
        tls_ca=nft.ca,
        drain_seconds=0.1,
    )
    ear = Ear()
    service = Registration(
        callbacks_pb2.DESCRIPTOR.services_by_name["MintCallbackService"].full_name,
        callbacks_pb2_grpc.add_MintCallbackServiceServicer_to_server,
        ear,
    )
    address = f"127.0.0.1:{free_port()}"
    async with (
        running(settings, [service], probes={}) as port,
        open_channel(address, authority.issue("operator/bench")) as channel,
    ):
        environment = {
            **chain,
            "GATEWAY_LISTEN": address,
            "GATEWAY_DATABASE_URL": cluster.url("gateway", "gateway_app"),
            "GATEWAY_MIGRATION_URL": cluster.url("gateway", "gateway_owner"),
            "GATEWAY_TLS_CERT": str(own.cert),
            "GATEWAY_TLS_KEY": str(own.key),
            "GATEWAY_TLS_CA": str(own.ca),
            "GATEWAY_NFT_ADDRESS": f"127.0.0.1:{port}",
            "GATEWAY_LOG_LEVEL": "warning",
            "GATEWAY_DRAIN_SECONDS": "1",
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "chain_gateway", env=os.environ | environment
        )
        try:
            gateway = Gateway(
                minting_pb2_grpc.MintingServiceStub(channel),
                chain_pb2_grpc.ChainServiceStub(channel),
                ear,
            )
            await _answering(gateway)
            with cluster.connect("gateway") as connection:
                link = "INSERT INTO users (user_id, wallet_address, link_time)"
                connection.execute(f"{link} VALUES (%s, %s, now())", [USER, OWNER])
            yield gateway
        finally:
            process.terminate()
            await process.wait()


async def _answering(gateway: Gateway) -> None:
    async with asyncio.timeout(60):
        while True:
            with suppress(MeshError):
                if await gateway.balance():
                    return
            await asyncio.sleep(0.1)


async def _run(arguments: list[str], environment: dict[str, str]) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, env=os.environ | environment, stdout=subprocess.DEVNULL
    )
    if await process.wait():
        raise RuntimeError(f"{' '.join(arguments)} failed")
