"""What the NFT service's RPC tests share: the service as a process, and a Gateway in memory."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
from go2asia.gateway.v1 import minting_pb2, minting_pb2_grpc
from go2asia.nft.v1 import callbacks_pb2, callbacks_pb2_grpc, catalog_pb2, nft_pb2, rewards_pb2
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc

from devstack.certificates import Authority
from devstack.ports import free_port
from mesh.client import open_channel
from mesh.clock import new_id
from mesh.errors import InvalidArgument, Kind, MeshError, NotFound, Unavailable
from mesh.server import Registration
from mesh.status import to_item_error

ROOT = Path(__file__).parents[2]
GATEWAY = "go2asia.gateway.v1.MintingService"
SERVING = health_pb2.HealthCheckResponse.SERVING
PLACE = nft_pb2.ItemLocation(
    collection_address="0:" + "aa" * 32,
    item_index=2**64 - 1,
    item_address="0:" + "bb" * 32,
    owner_address="0:" + "cc" * 32,
)


Watch = nft_pb2.WatchMintStatusRequest


class AlreadySent(MeshError, registered=False):
    """The operation was sent."""

    kind = Kind.FAILED_PRECONDITION
    reason = "OPERATION_ALREADY_SENT"
    domain = "gateway.go2asia"


class MemoryGateway(minting_pb2_grpc.MintingServiceServicer):
    """Takes each order once; fails, refuses and overtakes itself as the test says."""

    def __init__(self) -> None:
        self.operations: dict[str, minting_pb2.Operation] = {}
        self.called_off: set[str] = set()
        self.sent: set[str] = set()
        self.outages = 0
        self.before_answering: Callable[[minting_pb2.Operation], Any] | None = None

    def registration(self) -> Registration:
        add = minting_pb2_grpc.add_MintingServiceServicer_to_server
        return Registration(GATEWAY, add, self)

    async def BatchSubmitMints(
        self, request: minting_pb2.BatchSubmitMintsRequest, context: Any
    ) -> minting_pb2.BatchSubmitMintsResponse:
        if self.outages:
            self.outages -= 1
            raise Unavailable
        return minting_pb2.BatchSubmitMintsResponse(
            results=[await self._take(order) for order in request.orders]
        )

    async def UpdateItemContent(
        self, request: minting_pb2.UpdateItemContentRequest, context: Any
    ) -> minting_pb2.UpdateItemContentResponse:
        if request.item_mint_id not in self.operations:
            raise NotFound
        operation = self.operations.setdefault(
            request.request_id,
            minting_pb2.Operation(
                operation_id=new_id(),
                request_id=request.request_id,
                mint_id=request.mint_id,
                item_mint_id=request.item_mint_id,
                kind=minting_pb2.OPERATION_KIND_UPDATE_CONTENT,
                state=minting_pb2.OPERATION_STATE_QUEUED,
                version=1,
                content=request.content,
            ),
        )
        return minting_pb2.UpdateItemContentResponse(operation=operation)

    async def CancelOperation(
        self, request: minting_pb2.CancelOperationRequest, context: Any
    ) -> minting_pb2.CancelOperationResponse:
        named = request.operation_request_id
        if named in self.sent:
            raise AlreadySent(state="SUBMITTED")
        self.called_off.add(named)
        operation = self.operations.get(named)
        if operation is None:
            return minting_pb2.CancelOperationResponse()
        if operation.state != minting_pb2.OPERATION_STATE_CANCELLED:
            operation.state = minting_pb2.OPERATION_STATE_CANCELLED
            operation.version += 1
        return minting_pb2.CancelOperationResponse(operation=operation)

    async def GetOperation(
        self, request: minting_pb2.GetOperationRequest, context: Any
    ) -> minting_pb2.GetOperationResponse:
        for operation in self.operations.values():
            if operation.operation_id == request.operation_id:
                return minting_pb2.GetOperationResponse(operation=operation)
        raise NotFound

    async def _take(self, order: minting_pb2.MintOrder) -> minting_pb2.SubmitMintResult:
        if order.user_id.startswith("refused"):
            error = InvalidArgument(field="orders[0].user_id")
            return minting_pb2.SubmitMintResult(error=to_item_error(error))
        operation = self.operations.setdefault(
            order.request_id,
            minting_pb2.Operation(
                operation_id=new_id(),
                request_id=order.request_id,
                mint_id=order.mint_id,
                user_id=order.user_id,
                state=minting_pb2.OPERATION_STATE_CANCELLED
                if order.request_id in self.called_off
                else minting_pb2.OPERATION_STATE_QUEUED,
                version=1,
                content=order.content,
            ),
        )
        if self.before_answering:
            await self.before_answering(operation)
        return minting_pb2.SubmitMintResult(operation=operation)


class NftProcess:
    """`python -m nft_svc`, and channels to it."""

    def __init__(self, address: str, authority: Authority, process: asyncio.subprocess.Process):
        self.address = address
        self._authority = authority
        self._process = process

    def channel(self, identity: str) -> grpc.aio.Channel:
        return open_channel(self.address, self._authority.issue(identity))

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self._process.kill()

    async def exit_code(self) -> int:
        return await self._process.wait()

    async def report(
        self,
        mint_id: str,
        operation_id: str,
        version: int,
        state: nft_pb2.MintState.ValueType,
        **details: Any,
    ) -> int:
        """Reports as the Gateway does; returns how many reports changed something."""
        request = callbacks_pb2.ReportMintStatusRequest()
        request.reports.add(
            mint_id=mint_id,
            operation_id=operation_id,
            version=version,
            state=state,
            **{"location": PLACE, **details},
        )
        async with self.channel("gateway/gateway") as channel:
            stub = callbacks_pb2_grpc.MintCallbackServiceStub(channel)
            response: callbacks_pb2.ReportMintStatusResponse = await stub.ReportMintStatus(request)
        return response.changed


@asynccontextmanager
async def nft_process(
    authority: Authority, migration_url: str, app_url: str, gateway: str, **variables: str
) -> AsyncIterator[NftProcess]:
    """The service at work, until the end of the block at the latest."""
    address = f"localhost:{free_port()}"
    tls = authority.issue("nft/nft")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{ROOT}:{ROOT / 'gen'}",
        "NFT_LISTEN": address,
        "NFT_DATABASE_URL": app_url,
        "NFT_MIGRATION_URL": migration_url,
        "NFT_TLS_CERT": str(tls.cert),
        "NFT_TLS_KEY": str(tls.key),
        "NFT_TLS_CA": str(tls.ca),
        "NFT_GATEWAY_ADDRESS": gateway,
        "NFT_DRAIN_SECONDS": "3",
        "NFT_CHECKPOINT_SECONDS": "0.5",
        **variables,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "nft_svc",
        cwd=ROOT,
        env=environment,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        running = NftProcess(address, authority, process)
        async with asyncio.timeout(30), running.channel("operator/ops") as channel:
            request = health_pb2.HealthCheckRequest()
            health = health_pb2_grpc.HealthStub(channel)
            async for response in health.Watch(request, wait_for_ready=True):  # type: ignore[attr-defined]
                if response.status == SERVING:
                    break
        yield running
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def explorer(code: str = "explorer", **metadata: Any) -> catalog_pb2.NftType:
    """Level 1 at one quest, minted by itself."""
    values = Struct()
    values.update({"name": "Explorer I", **metadata})
    schema = Struct()
    schema.update({"properties": {"power": {"type": "integer"}}})
    return catalog_pb2.NftType(
        code=code,
        display_name="Explorer",
        counters=["quests"],
        metadata_schema=schema,
        onchain_policy=catalog_pb2.ONCHAIN_POLICY_AUTO,
        levels=[
            catalog_pb2.LevelRule(
                level=1, thresholds={"quests": 1}, metadata=values, auto_mint_onchain=True
            )
        ],
    )


def reward(user_id: str, **fields: Any) -> rewards_pb2.ApplyRewardRequest:
    values = {"request_id": new_id(), "nft_type": "explorer", "counter": "quests", "increment": 1}
    return rewards_pb2.ApplyRewardRequest(user_id=user_id, **{**values, **fields})


def a_user(prefix: str = "user") -> str:
    return f"{prefix}-{new_id()}"


async def settled(people: Any, mint_id: str, done: Callable[[nft_pb2.Mint], bool]) -> nft_pb2.Mint:
    """The mint, once `done` says so."""
    async with asyncio.timeout(15):
        while True:
            request = nft_pb2.GetMintRequest(mint_id=mint_id)
            mint: nft_pb2.Mint = (await people.GetMint(request)).mint
            if done(mint):
                return mint
            await asyncio.sleep(0.05)
