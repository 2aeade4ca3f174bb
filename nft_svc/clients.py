"""Calls to other services: the Gateway."""

from collections.abc import Sequence

import grpc
from go2asia.gateway.v1 import minting_pb2, minting_pb2_grpc

from mesh.errors import MeshError
from mesh.status import from_item_error


class GatewayClient:
    """The Chain Gateway, over a channel of `mesh.client`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._minting = minting_pb2_grpc.MintingServiceStub(channel)

    async def submit_mints(
        self, orders: Sequence[minting_pb2.MintOrder]
    ) -> list[minting_pb2.Operation | MeshError]:
        """Hands orders over; for each, in order, its operation or why it was refused.

        Raises a `MeshError` when the call as a whole failed: then nothing is known of any order.
        """
        request = minting_pb2.BatchSubmitMintsRequest(orders=orders)
        response = await self._minting.BatchSubmitMints(request)
        return [
            result.operation
            if result.WhichOneof("result") == "operation"
            else from_item_error(result.error)
            for result in response.results
        ]
