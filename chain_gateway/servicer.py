"""The RPCs of the Gateway: convert, hand over, convert back."""

from typing import Any

import grpc
from go2asia.gateway.v1 import (
    chain_pb2,
    chain_pb2_grpc,
    minting_pb2,
    minting_pb2_grpc,
    wallets_pb2,
    wallets_pb2_grpc,
)
from google.protobuf.message import Message

from chain_gateway import convert
from chain_gateway.items import Collection
from chain_gateway.operations import Operation
from chain_gateway.orders import OrderDesk, Request, read_operation
from chain_gateway.ownership import WalletLinks
from chain_gateway.reading import read_item, read_page
from chain_gateway.store.orders import OrderStore
from chain_gateway.ton import Chain
from mesh import idempotency, pagination, status, validation
from mesh.db import Database
from mesh.errors import Internal, MeshError
from mesh.identity import caller

Context = grpc.aio.ServicerContext[Any, Any]

# Each is an account read with its proof.
_MOST_ITEMS = 200


class MintingServicer(minting_pb2_grpc.MintingServiceServicer):
    """Serves orders and operations; what may be raised is documented in the contract."""

    def __init__(self, desk: OrderDesk, database: Database) -> None:
        self._desk = desk
        self._database = database

    async def BatchSubmitMints(
        self, request: minting_pb2.BatchSubmitMintsRequest, context: Context
    ) -> minting_pb2.BatchSubmitMintsResponse:
        """Takes mints that succeed or fail each by itself."""
        checked = [_checked(order, number) for number, order in enumerate(request.orders)]
        sound = [order for order in checked if isinstance(order, Request)]
        outcomes = iter(await self._desk.take(sound))
        return minting_pb2.BatchSubmitMintsResponse(
            results=[
                _result(next(outcomes) if isinstance(order, Request) else order)
                for order in checked
            ]
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
        after = str(page.after[0]) if page.after else None
        async with self._database.transaction(read_only=True) as connection:
            found = await OrderStore(connection).page(
                convert.state(request.state), after, page.size + 1
            )
        more = len(found) > page.size
        shown = found[: page.size]
        return minting_pb2.ListOperationsResponse(
            operations=[convert.operation(operation) for operation in shown],
            next_page_token=(
                pagination.next_token(request, (shown[-1].standing.operation_id,)) if more else ""
            ),
        )


class ChainServicer(chain_pb2_grpc.ChainServiceServicer):
    """Reads the chain and the Gateway's own state."""

    def __init__(
        self, chain: Chain, database: Database, wallet: str, collection: Collection
    ) -> None:
        self._chain = chain
        self._database = database
        self._wallet = wallet
        self._collection = collection

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
        if request.standard == minting_pb2.ITEM_STANDARD_SBT:
            return chain_pb2.ListCollectionItemsResponse()
        page = pagination.open_page(request, cap=_MOST_ITEMS)
        first = int(page.after[0]) + 1 if page.after else 0
        found = await read_page(self._chain, self._collection, first, page.size, self._chain.head)
        token = pagination.next_token(request, (found.items[-1].index,)) if found.more else ""
        return chain_pb2.ListCollectionItemsResponse(
            items=[convert.item(item) for item in found.items], next_page_token=token
        )

    async def GetGatewayStatus(
        self, request: chain_pb2.GetGatewayStatusRequest, context: Context
    ) -> chain_pb2.GetGatewayStatusResponse:
        """Tells how the Gateway fares; works without the chain."""
        async with self._database.transaction(read_only=True) as connection:
            found = await OrderStore(connection).status(self._wallet)
        return convert.status(found, self._collection.address)


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

    async def GetLinkedWallet(
        self, request: wallets_pb2.GetLinkedWalletRequest, context: Context
    ) -> wallets_pb2.GetLinkedWalletResponse:
        """Reads a user's wallet."""
        link = await self._links.linked(request.user_id)
        return wallets_pb2.GetLinkedWalletResponse(wallet=convert.wallet(link))


def _key(method: str, request: Message) -> idempotency.Key:
    request_id: str = request.request_id  # type: ignore[attr-defined]
    return idempotency.Key(f"{caller()}:{method}", request_id, idempotency.fingerprint(request))


def _checked(order: minting_pb2.MintOrder, number: int) -> Request | MeshError:
    try:
        validation.check(order, prefix=f"orders[{number}]")
    except MeshError as refusal:
        return refusal
    return Request(_key("SubmitMint", order), convert.order(order))


def _result(outcome: Operation | Exception) -> minting_pb2.SubmitMintResult:
    if isinstance(outcome, Operation):
        return minting_pb2.SubmitMintResult(operation=convert.operation(outcome))
    error = outcome if isinstance(outcome, MeshError) else Internal()
    return minting_pb2.SubmitMintResult(error=status.to_item_error(error))
