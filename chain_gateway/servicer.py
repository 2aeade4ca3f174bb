"""The RPCs of the Gateway: convert, hand over, convert back."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc
from go2asia.gateway.v1 import (
    chain_pb2,
    chain_pb2_grpc,
    minting_pb2,
    minting_pb2_grpc,
    wallets_pb2,
    wallets_pb2_grpc,
)
from go2asia.mesh.v1.item_error_pb2 import ItemError
from google.protobuf.message import Message

from chain_gateway import convert
from chain_gateway.burning import find_burn
from chain_gateway.cancelling import cancel
from chain_gateway.operations import Operation, Order
from chain_gateway.orders import OrderDesk, Request, read_operation
from chain_gateway.ownership import WalletLinks
from chain_gateway.reading import read_item, read_page
from chain_gateway.store.orders import OrderStore
from chain_gateway.ton import Chain
from mesh import idempotency, pagination, validation
from mesh.db import Database
from mesh.identity import caller
from mesh.items import Batch

Context = grpc.aio.ServicerContext[Any, Any]
OrderMessage = TypeVar("OrderMessage", bound=Message)

# Each is an account read with its proof.
_MOST_ITEMS = 200
_ORDERING_METHODS = ("SubmitMint", "SubmitTransfer", "UpdateItemContent", "RevokeItem")


class MintingServicer(minting_pb2_grpc.MintingServiceServicer):
    """Serves orders and operations; what may be raised is documented in the contract."""

    def __init__(self, desk: OrderDesk, database: Database) -> None:
        self._desk = desk
        self._database = database

    async def SubmitMint(
        self, request: minting_pb2.SubmitMintRequest, context: Context
    ) -> minting_pb2.SubmitMintResponse:
        """Takes one mint."""
        order = request.order
        taken = await self._take(Request(_key("SubmitMint", order), convert.mint(order)))
        return minting_pb2.SubmitMintResponse(operation=taken)

    async def BatchSubmitMints(
        self, request: minting_pb2.BatchSubmitMintsRequest, context: Context
    ) -> minting_pb2.BatchSubmitMintsResponse:
        """Takes mints that succeed or fail each by itself."""
        outcomes = await self._take_each("SubmitMint", request.orders, convert.mint)
        return minting_pb2.BatchSubmitMintsResponse(
            results=[minting_pb2.SubmitMintResult(**_result(outcome)) for outcome in outcomes]
        )

    async def SubmitTransfer(
        self, request: minting_pb2.SubmitTransferRequest, context: Context
    ) -> minting_pb2.SubmitTransferResponse:
        """Takes one transfer."""
        order = request.order
        taken = await self._take(Request(_key("SubmitTransfer", order), convert.transfer(order)))
        return minting_pb2.SubmitTransferResponse(operation=taken)

    async def BatchSubmitTransfers(
        self, request: minting_pb2.BatchSubmitTransfersRequest, context: Context
    ) -> minting_pb2.BatchSubmitTransfersResponse:
        """Takes transfers that succeed or fail each by itself."""
        outcomes = await self._take_each("SubmitTransfer", request.orders, convert.transfer)
        return minting_pb2.BatchSubmitTransfersResponse(
            results=[minting_pb2.SubmitTransferResult(**_result(outcome)) for outcome in outcomes]
        )

    async def UpdateItemContent(
        self, request: minting_pb2.UpdateItemContentRequest, context: Context
    ) -> minting_pb2.UpdateItemContentResponse:
        """Takes a change of what an item says."""
        key = _key("UpdateItemContent", request)
        taken = await self._take(Request(key, convert.update(request)))
        return minting_pb2.UpdateItemContentResponse(operation=taken)

    async def RevokeItem(
        self, request: minting_pb2.RevokeItemRequest, context: Context
    ) -> minting_pb2.RevokeItemResponse:
        """Takes a revocation."""
        key = _key("RevokeItem", request)
        taken = await self._take(Request(key, convert.revocation(request)))
        return minting_pb2.RevokeItemResponse(operation=taken)

    async def CancelOperation(
        self, request: minting_pb2.CancelOperationRequest, context: Context
    ) -> minting_pb2.CancelOperationResponse:
        """Calls an operation off that came or will come under a request id of this caller."""
        named = [
            idempotency.Key(
                f"{caller()}:{method}", request.operation_request_id, idempotency.ANY_INPUT
            )
            for method in _ORDERING_METHODS
        ]
        found = await cancel(self._database, _key("CancelOperation", request), named)
        return minting_pb2.CancelOperationResponse(
            operation=None if found is None else convert.operation(found)
        )

    async def GetOperation(
        self, request: minting_pb2.GetOperationRequest, context: Context
    ) -> minting_pb2.GetOperationResponse:
        """Reads one operation."""
        found = await read_operation(self._database, request.operation_id)
        return minting_pb2.GetOperationResponse(operation=convert.operation(found))

    async def ListOperations(
        self, request: minting_pb2.ListOperationsRequest, context: Context
    ) -> minting_pb2.ListOperationsResponse:
        """Lists operations, by id."""
        page = pagination.open_page(request)
        async with self._database.transaction(read_only=True) as connection:
            found = await OrderStore(connection).page(
                convert.state(request.state), page.after_id(), page.limit
            )
        operations, token = page.fill(
            found, convert.operation, lambda operation: (operation.standing.operation_id,)
        )
        return minting_pb2.ListOperationsResponse(operations=operations, next_page_token=token)

    async def _take(self, request: Request) -> minting_pb2.Operation:
        [outcome] = await self._desk.take([request])
        if isinstance(outcome, Exception):
            raise outcome
        return convert.operation(outcome)

    async def _take_each(
        self, method: str, orders: Sequence[OrderMessage], read: Callable[[OrderMessage], Order]
    ) -> list[Operation | ItemError]:
        """Takes those that are well-formed; the others fail alone."""

        def prepare(order: OrderMessage) -> Request:
            validation.check(order)
            return Request(_key(method, order), read(order))

        return await Batch("orders", orders, prepare).answers(self._desk.take)


class ChainServicer(chain_pb2_grpc.ChainServiceServicer):
    """Reads the chain and the Gateway's own state."""

    def __init__(
        self,
        chain: Chain,
        database: Database,
        household: convert.Household,
        finality_blocks: int,
    ) -> None:
        self._chain = chain
        self._database = database
        self._household = household
        self._finality_blocks = finality_blocks

    async def GetNftItem(
        self, request: chain_pb2.GetNftItemRequest, context: Context
    ) -> chain_pb2.GetNftItemResponse:
        """Reads an item from the chain."""
        found = await read_item(self._chain, request.item_address, self._chain.head)
        return chain_pb2.GetNftItemResponse(item=convert.item(found))

    async def ListCollectionItems(
        self, request: chain_pb2.ListCollectionItemsRequest, context: Context
    ) -> chain_pb2.ListCollectionItemsResponse:
        """Lists items, by index."""
        collection = self._household.collections[convert.item_standard(request.standard)]
        page = pagination.open_page(request, cap=_MOST_ITEMS)
        last = page.after_number()
        first = 0 if last is None else last + 1
        found = await read_page(self._chain, collection, first, page.size, self._chain.head)
        token = pagination.next_token(request, (found.items[-1].index,)) if found.more else ""
        return chain_pb2.ListCollectionItemsResponse(
            items=[convert.item(item) for item in found.items], next_page_token=token
        )

    async def VerifyBurn(
        self, request: chain_pb2.VerifyBurnRequest, context: Context
    ) -> chain_pb2.VerifyBurnResponse:
        """Tells whether, when and by whom an item was burnt."""
        found = await find_burn(self._chain, request.item_address, self._finality_blocks)
        return convert.burn(found)

    async def GetGatewayStatus(
        self, request: chain_pb2.GetGatewayStatusRequest, context: Context
    ) -> chain_pb2.GetGatewayStatusResponse:
        """Tells how the Gateway fares; works without the chain."""
        async with self._database.transaction(read_only=True) as connection:
            found = await OrderStore(connection).status(self._household.wallets)
        return convert.status(found, self._household)


class WalletLinkServicer(wallets_pb2_grpc.WalletLinkServiceServicer):
    """Links users to their wallets."""

    def __init__(self, links: WalletLinks) -> None:
        self._links = links

    async def CreateChallenge(
        self, request: wallets_pb2.CreateChallengeRequest, context: Context
    ) -> wallets_pb2.CreateChallengeResponse:
        """Gives a one-time payload to sign."""
        challenge = await self._links.create_challenge(
            _key("CreateChallenge", request), request.user_id
        )
        response = wallets_pb2.CreateChallengeResponse(payload=challenge.payload)
        response.expire_time.FromDatetime(challenge.expire_time)
        return response

    async def LinkWallet(
        self, request: wallets_pb2.LinkWalletRequest, context: Context
    ) -> wallets_pb2.LinkWalletResponse:
        """Links the wallet that signed."""
        link = await self._links.link(
            _key("LinkWallet", request), request.user_id, convert.proof(request), request.state_init
        )
        return wallets_pb2.LinkWalletResponse(
            wallet=convert.wallet(link), released_operations=link.released
        )

    async def UnlinkWallet(
        self, request: wallets_pb2.UnlinkWalletRequest, context: Context
    ) -> wallets_pb2.UnlinkWalletResponse:
        """Forgets a user's wallet."""
        parked = await self._links.unlink(_key("UnlinkWallet", request), request.user_id)
        return wallets_pb2.UnlinkWalletResponse(parked_operations=parked)

    async def GetLinkedWallet(
        self, request: wallets_pb2.GetLinkedWalletRequest, context: Context
    ) -> wallets_pb2.GetLinkedWalletResponse:
        """Reads a user's wallet."""
        link = await self._links.linked(request.user_id)
        return wallets_pb2.GetLinkedWalletResponse(wallet=convert.wallet(link))


def _key(method: str, request: Message) -> idempotency.Key:
    request_id: str = request.request_id  # type: ignore[attr-defined]
    return idempotency.Key(f"{caller()}:{method}", request_id, idempotency.fingerprint(request))


def _result(outcome: Operation | ItemError) -> dict[str, Any]:
    if isinstance(outcome, Operation):
        return {"operation": convert.operation(outcome)}
    return {"error": outcome}
