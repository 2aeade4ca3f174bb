"""The services that Connect calls."""

from contextlib import AsyncExitStack
from types import TracebackType
from typing import Self

from go2asia.gateway.v1 import minting_pb2_grpc
from go2asia.nft.v1 import rewards_pb2_grpc
from go2asia.points.v1 import points_pb2_grpc

from connect_svc.config import ConnectSettings
from mesh.client import open_channel


class Clients:
    """Stubs of Points, NFT and the Gateway, open within the context.

    Their calls have the deadlines of the contract and raise `MeshError`s; see `mesh.client`.
    """

    points: "points_pb2_grpc.PointsServiceAsyncStub"  # the async stubs are there for types alone
    rewards: "rewards_pb2_grpc.RewardServiceAsyncStub"
    minting: "minting_pb2_grpc.MintingServiceAsyncStub"

    def __init__(self, settings: ConnectSettings) -> None:
        self._settings = settings
        self._channels = AsyncExitStack()

    async def __aenter__(self) -> Self:
        tls = self._settings.tls
        points = open_channel(self._settings.points_address, tls)
        nft = open_channel(self._settings.nft_address, tls)
        gateway = open_channel(self._settings.gateway_address, tls)
        for channel in (points, nft, gateway):
            await self._channels.enter_async_context(channel)
        self.points = points_pb2_grpc.PointsServiceStub(points)
        self.rewards = rewards_pb2_grpc.RewardServiceStub(nft)
        self.minting = minting_pb2_grpc.MintingServiceStub(gateway)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._channels.aclose()
