"""Calls to other services: reports to NFT."""

from collections.abc import Sequence

import grpc
from go2asia.nft.v1 import callbacks_pb2, callbacks_pb2_grpc


class NftClient:
    """The NFT service's door for the Gateway."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._callbacks = callbacks_pb2_grpc.MintCallbackServiceStub(channel)

    async def report(self, reports: Sequence[callbacks_pb2.MintReport]) -> int:
        """Reports states of operations, at most 500; how many changed something.

        Raises the `MeshError` that NFT or the way to it raised.
        """
        request = callbacks_pb2.ReportMintStatusRequest(reports=reports)
        response = await self._callbacks.ReportMintStatus(request)
        return int(response.changed)
