"""What the Gateway reads from the chain: items page by page, and burns with their proof."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
from go2asia.gateway.v1 import chain_pb2, minting_pb2

from devstack.postgres import Cluster
from mesh.errors import PageTokenInvalid
from tests.integration.gateway_stage import (
    Callers,
    NftRecorder,
    Stage,
    UserWallet,
    calling,
    orders,
    playing,
    recording,
    reported,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    with playing(tmp_path_factory.mktemp("reading"), postgres, make_database()) as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(stage: Stage) -> AsyncIterator[NftRecorder]:
    async with recording(stage) as recorder:
        yield recorder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(stage: Stage, nft: NftRecorder) -> AsyncIterator[Callers]:
    async with calling(stage) as callers:
        yield callers


async def pages(callers: Callers, size: int) -> list[list[chain_pb2.NftItem]]:
    request = chain_pb2.ListCollectionItemsRequest(page_size=size)
    found = []
    while True:
        response = await callers.chain.ListCollectionItems(request)
        found.append(list(response.items))
        if not response.next_page_token:
            return found
        request.page_token = response.next_page_token


async def test_a_collection_is_listed_page_by_page(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    assert await pages(callers, 2) == [[]]

    wallet = UserWallet()
    await callers.link("mai", wallet)
    ordered = orders("mai", 7)
    await callers.submit(ordered)
    await reported(nft, "FINALIZED", {order.mint_id for order in ordered}, stage)

    listed = await pages(callers, 3)
    assert [len(page) for page in listed] == [3, 3, 1]
    items = [item for page in listed for item in page]
    assert [item.item_index for item in items] == list(range(7))
    assert {item.owner_address for item in items} == {wallet.address}
    assert {item.content["mint_id"] for item in items} == {order.mint_id for order in ordered}
    for item in items:
        alone = await callers.chain.GetNftItem(
            chain_pb2.GetNftItemRequest(item_address=item.item_address)
        )
        alone.item.masterchain_seqno = item.masterchain_seqno
        assert alone.item == item

    token = (
        await callers.chain.ListCollectionItems(chain_pb2.ListCollectionItemsRequest(page_size=1))
    ).next_page_token
    with pytest.raises(PageTokenInvalid):
        await callers.chain.ListCollectionItems(
            chain_pb2.ListCollectionItemsRequest(
                standard=minting_pb2.ITEM_STANDARD_NFT, page_token=token
            )
        )
