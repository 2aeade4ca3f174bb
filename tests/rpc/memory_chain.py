"""A chain in memory, as the Gateway shows it: items that a test plants."""

import asyncio
import json
from typing import Any

from go2asia.gateway.v1 import chain_pb2, chain_pb2_grpc, minting_pb2
from go2asia.nft.v1 import nft_pb2

from mesh.errors import NotFound
from mesh.pagination import next_token, open_page
from mesh.server import Registration

CHAIN = "go2asia.gateway.v1.ChainService"
COLLECTION = "0:" + "c0" * 32
ADA = "0:" + "ad" * 32


def place(index: int) -> nft_pb2.ItemLocation:
    """Where the item with this index is."""
    return nft_pb2.ItemLocation(
        collection_address=COLLECTION,
        item_index=index,
        item_address=f"0:{index:064x}",
        owner_address=ADA,
    )


class MemoryChain(chain_pb2_grpc.ChainServiceServicer):
    """Lists the planted items in pages of two, whatever size is asked for.

    `fetched` holds the first index of each page that was asked for; pages from index `hold_from` on
    are answered only after `go_on` is set.
    """

    def __init__(self) -> None:
        self.items: dict[int, chain_pb2.NftItem] = {}
        self.fetched: list[int] = []
        self.hold_from: int | None = None
        self.holding, self.go_on = asyncio.Event(), asyncio.Event()

    def registration(self) -> Registration:
        add = chain_pb2_grpc.add_ChainServiceServicer_to_server
        return Registration(CHAIN, add, self)

    def plant(self, index: int, mint: nft_pb2.Mint, **changes: Any) -> None:
        """The item of a mint, as it should be but for `changes`."""
        traits = [{"trait_type": a.trait_type, "value": a.value} for a in mint.content.attributes]
        content = {"name": mint.content.name, "attributes": json.dumps(traits)}
        values: dict[str, Any] = {
            "item_address": place(index).item_address,
            "initialised": True,
            "item_index": index,
            "collection_address": COLLECTION,
            "owner_address": ADA,
            "content": {**content, "mint_id": mint.mint_id},
        }
        self.items[index] = chain_pb2.NftItem(**values | changes)

    async def ListCollectionItems(
        self, request: chain_pb2.ListCollectionItemsRequest, context: Any
    ) -> chain_pb2.ListCollectionItemsResponse:
        if request.standard != minting_pb2.ITEM_STANDARD_NFT:
            return chain_pb2.ListCollectionItemsResponse()
        page = open_page(request)
        first = int(page.after[0]) + 1 if page.after else 0
        self.fetched.append(first)
        if self.hold_from is not None and first >= self.hold_from:
            self.holding.set()
            await self.go_on.wait()
        indices = range(first, first + 2)
        more = max(self.items, default=0) > indices[-1]
        return chain_pb2.ListCollectionItemsResponse(
            items=[self._at(index) for index in indices],
            next_page_token=next_token(request, (indices[-1],)) if more else "",
        )

    async def GetNftItem(
        self, request: chain_pb2.GetNftItemRequest, context: Any
    ) -> chain_pb2.GetNftItemResponse:
        for item in self.items.values():
            if item.item_address == request.item_address:
                return chain_pb2.GetNftItemResponse(item=item)
        raise NotFound

    def _at(self, index: int) -> chain_pb2.NftItem:
        nothing = chain_pb2.NftItem(item_address=place(index).item_address, item_index=index)
        return self.items.get(index, nothing)
