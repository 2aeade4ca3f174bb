"""What the Gateway's integration tests play on: a devnet, a database, a process, its callers."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from go2asia.gateway.v1 import (
    chain_pb2,
    chain_pb2_grpc,
    minting_pb2,
    minting_pb2_grpc,
    wallets_pb2,
    wallets_pb2_grpc,
)
from go2asia.nft.v1 import callbacks_pb2, callbacks_pb2_grpc, nft_pb2
from pytoniq.contract.wallets.wallet import WALLET_V4_R2_CODE
from pytoniq_core.tlb.account import StateInit

from chain_gateway.cells import address_of, build
from chain_gateway.composition import minting_wallet
from chain_gateway.config import ChainSettings
from chain_gateway.content import decode
from chain_gateway.items import Collection, read_item
from chain_gateway.operations import Standard
from chain_gateway.proof import Proof, digest
from chain_gateway.ton import Chain
from devstack.certificates import Authority
from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.client import open_channel
from mesh.config import ServiceSettings
from mesh.errors import MeshError
from mesh.server import Registration, running

FUNDS_TON = 500
DOMAIN = "app.go2asia.test"


class NftRecorder(callbacks_pb2_grpc.MintCallbackServiceServicer):
    """NFT's side of the reports: keeps the newest version of each, as the contract says."""

    def __init__(self) -> None:
        self.newest: dict[str, callbacks_pb2.MintReport] = {}

    async def ReportMintStatus(
        self, request: callbacks_pb2.ReportMintStatusRequest, context: Any
    ) -> callbacks_pb2.ReportMintStatusResponse:
        changed = 0
        for report in request.reports:
            known = self.newest.get(report.mint_id)
            if known is None or known.version < report.version:
                self.newest[report.mint_id] = report
                changed += 1
        return callbacks_pb2.ReportMintStatusResponse(changed=changed)

    def states(self) -> Counter[str]:
        return Counter(nft_pb2.MintState.Name(report.state) for report in self.newest.values())


@dataclass
class UserWallet:
    """A person's V4R2 wallet, as TON Connect presents it."""

    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def __post_init__(self) -> None:
        public = self.key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        data = build().store_uint(0, 32).store_uint(698983191, 32).store_bytes(public)
        init = StateInit(code=WALLET_V4_R2_CODE, data=data.store_bit_int(0).end_cell())
        self.address = address_of(init)
        self.state_init = init.serialize().to_boc()

    def prove(self, payload: str, domain: str = DOMAIN) -> wallets_pb2.TonProof:
        now = datetime.now(UTC).replace(microsecond=0)
        account = bytes.fromhex(self.address.removeprefix("0:"))
        signed = digest(Proof(0, account, now, domain, payload, b""))
        proof = wallets_pb2.TonProof(
            domain=domain, payload=payload, signature=self.key.sign(signed)
        )
        proof.sign_time.FromDatetime(now)
        return proof


class Stage:
    """A devnet, a database, and a Gateway process that can be killed and started again."""

    def __init__(self, folder: Path, cluster: Cluster, database: str, authority: Authority) -> None:
        self.folder = folder
        self.authority = authority
        self.port = free_port()
        self._gateway: subprocess.Popen[bytes] | None = None
        self.network = folder / "ton"
        tls = authority.issue("gateway/gateway")
        key = folder / "wallet.key"
        key.write_text(os.urandom(32).hex())
        key.chmod(0o600)
        self.environment = {
            "GATEWAY_LISTEN": f"127.0.0.1:{self.port}",
            "GATEWAY_DATABASE_URL": cluster.url(database, "gateway_app"),
            "GATEWAY_MIGRATION_URL": cluster.url(database),
            "GATEWAY_TLS_CERT": str(tls.cert),
            "GATEWAY_TLS_KEY": str(tls.key),
            "GATEWAY_TLS_CA": str(tls.ca),
            "GATEWAY_TON_CONFIG": str(self.network / "global.config.json"),
            "GATEWAY_WALLET_KEY_FILE": str(key),
            "GATEWAY_PROOF_DOMAINS": DOMAIN,
            "GATEWAY_BATCH_MINTS": "100",
            "GATEWAY_DRAIN_SECONDS": "2",
        }

    @contextmanager
    def devnet(self) -> Iterator[None]:
        self.start_network()
        try:
            yield
        finally:
            self._lite_server.terminate()
            self._lite_server.wait(20)

    def start_network(self) -> None:
        command = ["-m", "ton_devnet", "serve", "--state", str(self.network)]
        command += ["--idle-interval", "0.5"]
        self._lite_server = self._spawn(command, "devnet.log", {})
        config = self.network / "global.config.json"
        _until(config.exists, self._lite_server, self.folder / "devnet.log")

    def kill_network(self) -> None:
        self._lite_server.kill()
        self._lite_server.wait(10)

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def fund(self, address: str, amount: float) -> None:
        self.run("-m", "ton_devnet", "fund", "--state", str(self.network), address, str(amount))

    def start(self) -> None:
        self._gateway = self._spawn(["-m", "chain_gateway"], "gateway.log", self.environment)

    def kill(self) -> None:
        assert self._gateway is not None
        self._gateway.send_signal(signal.SIGKILL)
        self._gateway.wait(10)
        self._gateway = None

    async def supervise(self) -> None:
        """Starts the Gateway again whenever it has ended by itself, as a supervisor would."""
        while True:
            if self._gateway is not None and self._gateway.poll() is not None:
                self.start()
            await asyncio.sleep(0.5)

    def stop(self) -> None:
        if self._gateway is not None:
            self._gateway.terminate()
            self._gateway.wait(20)
            self._gateway = None

    def said(self) -> str:
        """The last words of the Gateway's log."""
        return (self.folder / "gateway.log").read_text()[-4000:]

    def settings(self) -> ChainSettings:
        return ChainSettings(
            ton_config=Path(self.environment["GATEWAY_TON_CONFIG"]),
            wallet_key_file=Path(self.environment["GATEWAY_WALLET_KEY_FILE"]),
            wallet_timeout_seconds=int(
                self.environment.get("GATEWAY_WALLET_TIMEOUT_SECONDS", "3600")
            ),
        )

    def collection(self, standard: Standard = Standard.NFT) -> Collection:
        return minting_wallet(self.settings())[1][standard]

    def chain(self) -> Chain:
        return Chain(self.settings().network(), 1)

    def _spawn(
        self, arguments: list[str], log: str, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        with (self.folder / log).open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *arguments],
                env=os.environ | environment,
                cwd=self.folder,  # pytoniq keeps a .blockstore there at trust level 0
                stdout=output,
                stderr=output,
            )


def _until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while not ready():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@dataclass
class Callers:
    """Stubs that act as NFT, as the BFF and as an operator."""

    minting: minting_pb2_grpc.MintingServiceStub
    operator_minting: minting_pb2_grpc.MintingServiceStub
    links: wallets_pb2_grpc.WalletLinkServiceStub
    chain: chain_pb2_grpc.ChainServiceStub

    async def link(self, user_id: str, wallet: UserWallet) -> wallets_pb2.LinkWalletResponse:
        challenge = await self.links.CreateChallenge(
            wallets_pb2.CreateChallengeRequest(request_id=str(uuid4()), user_id=user_id)
        )
        response: wallets_pb2.LinkWalletResponse = await self.links.LinkWallet(
            wallets_pb2.LinkWalletRequest(
                request_id=str(uuid4()),
                user_id=user_id,
                address=wallet.address,
                state_init=wallet.state_init,
                proof=wallet.prove(challenge.payload),
            )
        )
        return response

    async def submit(self, orders: list[minting_pb2.MintOrder]) -> list[minting_pb2.Operation]:
        response = await self.minting.BatchSubmitMints(
            minting_pb2.BatchSubmitMintsRequest(orders=orders)
        )
        assert not [result.error for result in response.results if result.HasField("error")]
        return [result.operation for result in response.results]

    async def operation(self, operation_id: str) -> minting_pb2.Operation:
        response = await self.minting.GetOperation(
            minting_pb2.GetOperationRequest(operation_id=operation_id)
        )
        return response.operation


@contextmanager
def playing(
    folder: Path,
    cluster: Cluster,
    database: str,
    *,
    funds: float = FUNDS_TON,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Stage]:
    """A stage with a funded wallet and its collection deployed, both by the command line."""
    stage = Stage(folder, cluster, database, Authority(folder / "authority"))
    stage.environment |= settings or {}
    with stage.devnet():
        wallet = stage.run("-m", "chain_gateway", "address").split()[-1]
        stage.fund(wallet, funds)
        assert "The collections exist" in stage.run("-m", "chain_gateway", "setup")
        assert "nothing is left to do" in stage.run("-m", "chain_gateway", "setup")
        try:
            yield stage
        finally:
            stage.stop()


@asynccontextmanager
async def recording(stage: Stage) -> AsyncIterator[NftRecorder]:
    """NFT's side, served; the Gateway that starts next reports to it."""
    recorder = NftRecorder()
    tls = stage.authority.issue("nft/nft")
    settings = ServiceSettings(
        listen="127.0.0.1:0",
        database_url="postgresql+psycopg://none",
        tls_cert=tls.cert,
        tls_key=tls.key,
        tls_ca=tls.ca,
        drain_seconds=0.1,
    )
    service = Registration(
        callbacks_pb2.DESCRIPTOR.services_by_name["MintCallbackService"].full_name,
        callbacks_pb2_grpc.add_MintCallbackServiceServicer_to_server,
        recorder,
    )
    async with running(settings, [service], probes={}) as port:
        stage.environment["GATEWAY_NFT_ADDRESS"] = f"127.0.0.1:{port}"
        yield recorder


@asynccontextmanager
async def calling(stage: Stage) -> AsyncIterator[Callers]:
    """Starts the Gateway and its callers' channels; stops it in the end."""
    stage.start()
    address = f"127.0.0.1:{stage.port}"
    issue = stage.authority.issue
    async with (
        open_channel(address, issue("nft/nft")) as as_nft,
        open_channel(address, issue("bff/web")) as as_bff,
        open_channel(address, issue("operator/ops")) as as_operator,
    ):
        callers = Callers(
            minting_pb2_grpc.MintingServiceStub(as_nft),
            minting_pb2_grpc.MintingServiceStub(as_operator),
            wallets_pb2_grpc.WalletLinkServiceStub(as_bff),
            chain_pb2_grpc.ChainServiceStub(as_operator),
        )
        try:
            await serving(callers, stage)
            yield callers
        finally:
            stage.stop()


async def serving(callers: Callers, stage: Stage) -> None:
    deadline = time.monotonic() + 30
    while True:
        with suppress(MeshError):
            await callers.chain.GetGatewayStatus(chain_pb2.GetGatewayStatusRequest())
            return
        assert time.monotonic() < deadline, stage.said()
        await asyncio.sleep(0.1)


def orders(user_id: str, count: int) -> list[minting_pb2.MintOrder]:
    return [
        minting_pb2.MintOrder(
            request_id=f"test-{uuid4()}",
            mint_id=str(uuid4()),
            user_id=user_id,
            content=minting_pb2.Content(
                name="Explorer of Đà Nẵng",
                description="For twelve places visited.",
                image="ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi/3.png",
                attributes=[minting_pb2.Attribute(trait_type="level", value="3")],
            ),
        )
        for _ in range(count)
    ]


async def reported(nft: NftRecorder, state: str, mint_ids: set[str], stage: Stage) -> None:
    """Waits until NFT was told that all of these mints are in `state`."""
    deadline = time.monotonic() + 45
    wanted = nft_pb2.MintState.Value(f"MINT_STATE_{state}")
    while True:
        there = {mint for mint, report in nft.newest.items() if report.state == wanted}
        if mint_ids <= there:
            return
        assert time.monotonic() < deadline, (nft.states(), stage.said())
        await asyncio.sleep(0.05)


async def audit(stage: Stage, nft: NftRecorder, mint_ids: set[str], owner: str) -> None:
    """Of all items up to the collection's next index, each mint has one, where it was said."""
    collection = stage.collection()
    async with stage.chain() as chain:
        head = await chain.wait(None, 10)
        [next_index, *_] = await chain.run_get_method(
            collection.address, "get_collection_data", [], head
        )
        addresses = [collection.item_address(index) for index in range(next_index)]
        accounts = await chain.accounts(addresses, head)
    minted: dict[str, list[str]] = {}
    for index, address in enumerate(addresses):
        data = accounts[address].data
        assert data is not None, f"index {index} is a gap"
        item = read_item(data)
        assert item.content is not None
        mint_id = decode(item.content)["mint_id"]
        minted.setdefault(mint_id, []).append(address)
        if mint_id in mint_ids:
            assert item.owner == owner
            assert nft.newest[mint_id].location.item_address == address
            assert nft.newest[mint_id].location.item_index == index
    assert mint_ids <= minted.keys()
    assert {mint: places for mint, places in minted.items() if len(places) > 1} == {}
