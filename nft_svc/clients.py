"""Calls to other services: the Gateway."""

from collections.abc import Sequence

import grpc
from go2asia.gateway.v1 import chain_pb2, chain_pb2_grpc, minting_pb2, minting_pb2_grpc

from mesh.errors import Kind, MeshError
from mesh.status import from_item_error
from nft_svc.convert_orders import Order
from nft_svc.definitions import TokenStandard
from nft_svc.errors import MintHandedOver


class GatewayClient:
    """The Chain Gateway, over a channel of `mesh.client`."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._minting = minting_pb2_grpc.MintingServiceStub(channel)
        self._chain = chain_pb2_grpc.ChainServiceStub(channel)

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

    async def submit(self, order: Order) -> minting_pb2.Operation:
        """Hands one order over, whatever it asks for; raises what the Gateway refuses it with."""
        match order:
            case minting_pb2.UpdateItemContentRequest():
                update = await self._minting.UpdateItemContent(order)
                return update.operation
            case minting_pb2.RevokeItemRequest():
                revocation = await self._minting.RevokeItem(order)
                return revocation.operation
        (answer,) = await self.submit_mints([order])
        if isinstance(answer, MeshError):
            raise answer
        return answer

    async def cancel(self, mint_id: str) -> minting_pb2.Operation | None:
        """Calls an order off, also one that has yet to come; its operation, or None if none came.

        Raises `MintHandedOver` if it was sent to the chain, or may have been.
        """
        request = minting_pb2.CancelOperationRequest(
            request_id=f"cancel/{mint_id}", operation_request_id=mint_id
        )
        try:
            response = await self._minting.CancelOperation(request)
        except MeshError as error:
            if error.reason == "OPERATION_ALREADY_SENT":
                state = error.metadata.get("state", "")
                raise MintHandedOver(field="mint_id", mint_id=mint_id, state=state) from None
            raise
        return response.operation if response.HasField("operation") else None

    async def operation(self, operation_id: str) -> minting_pb2.Operation | None:
        """The present state of an operation; None if the Gateway has none of that id."""
        try:
            response = await self._minting.GetOperation(
                minting_pb2.GetOperationRequest(operation_id=operation_id)
            )
        except MeshError as error:
            if error.kind is Kind.NOT_FOUND:
                return None
            raise
        found: minting_pb2.Operation = response.operation
        return found

    async def items(
        self, standard: TokenStandard, page_token: str, page_size: int
    ) -> chain_pb2.ListCollectionItemsResponse:
        """A page of the items of the collection of a standard, as the chain has them."""
        response: chain_pb2.ListCollectionItemsResponse = await self._chain.ListCollectionItems(
            chain_pb2.ListCollectionItemsRequest(
                standard=minting_pb2.ItemStandard.Value(f"ITEM_STANDARD_{standard}"),
                page_size=page_size,
                page_token=page_token,
            )
        )
        return response

    async def item(self, item_address: str) -> chain_pb2.NftItem | None:
        """The item at an address as the chain has it; None if there is none."""
        try:
            response = await self._chain.GetNftItem(
                chain_pb2.GetNftItemRequest(item_address=item_address)
            )
        except MeshError as error:
            if error.kind in (Kind.NOT_FOUND, Kind.INVALID_ARGUMENT):
                return None
            raise
        found: chain_pb2.NftItem = response.item
        return found
