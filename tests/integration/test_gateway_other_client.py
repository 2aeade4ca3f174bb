"""Another TON library, tonutils with its own lite-client, meets our collections and items."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from go2asia.gateway.v1 import chain_pb2, minting_pb2
from ton_core import Address, NetworkGlobalID, PrivateKey, begin_cell
from tonutils.clients import LiteClient
from tonutils.contracts import NFTTransferBuilder, TONTransferBuilder, WalletV4R2
from tonutils.contracts.nft import methods as nft_methods

from devstack.postgres import Cluster
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

TON = 10**9
NULL = "0:" + "00" * 32
OP_DESTROY = 0x1F04537A  # TEP-85


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    with playing(tmp_path_factory.mktemp("other"), postgres, make_database()) as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(stage: Stage) -> AsyncIterator[NftRecorder]:
    async with recording(stage) as recorder:
        yield recorder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(stage: Stage, nft: NftRecorder) -> AsyncIterator[Callers]:
    async with calling(stage) as callers:
        yield callers


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(stage: Stage) -> AsyncIterator[LiteClient]:
    config = stage.settings().network()
    client = LiteClient.from_config(NetworkGlobalID.MAINNET, config=config, index=0)
    async with client:
        yield client


def opened(client: LiteClient, user: UserWallet) -> WalletV4R2:
    """A user's wallet in the hands of the other library."""
    seed = user.key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    wallet = WalletV4R2.from_private_key(client, PrivateKey(seed))
    assert shown(wallet.address) == user.address
    return wallet


def shown(address: Address | None) -> str:
    return "" if address is None else f"{address.wc}:{address.hash_part.hex()}"


async def minted(
    stage: Stage, nft: NftRecorder, callers: Callers, user_id: str, standard: Any
) -> tuple[UserWallet, chain_pb2.NftItem]:
    """An item of somebody who has a wallet with TON to spend."""
    user = UserWallet()
    stage.fund(user.address, 1)
    await callers.link(user_id, user)
    [order] = orders(user_id, 1)
    order.standard = standard
    [operation] = await callers.submit([order])
    await reported(nft, "FINALIZED", {order.mint_id}, stage)
    address = (await callers.operation(operation.operation_id)).item_address
    return user, await item(callers, address)


async def item(callers: Callers, address: str) -> chain_pb2.NftItem:
    response = await callers.chain.GetNftItem(chain_pb2.GetNftItemRequest(item_address=address))
    found: chain_pb2.NftItem = response.item
    return found


async def owned_by(callers: Callers, address: str, owner: str) -> chain_pb2.NftItem:
    """The item, once its owner is this one."""
    async with asyncio.timeout(30):
        while True:
            found = await item(callers, address)
            if found.owner_address == owner:
                return found
            await asyncio.sleep(0.2)


async def burnt(callers: Callers, address: str) -> chain_pb2.VerifyBurnResponse:
    """The proof, once the burn is beyond rollback."""
    request = chain_pb2.VerifyBurnRequest(item_address=address)
    async with asyncio.timeout(30):
        while True:
            found: chain_pb2.VerifyBurnResponse = await callers.chain.VerifyBurn(request)
            if found.burnt:
                return found
            await asyncio.sleep(0.2)


async def transaction(client: LiteClient, address: str, lt: int) -> Any:
    """The transaction of that logical time, as the other library has it."""
    found = await client.get_transactions(address, limit=16)
    return next(each for each in found if each.lt == lt)


async def test_it_reads_the_collection_and_its_items(
    stage: Stage, nft: NftRecorder, callers: Callers, client: LiteClient
) -> None:
    user, ours = await minted(stage, nft, callers, "hoa", minting_pb2.ITEM_STANDARD_NFT)
    collection = ours.collection_address

    next_index, _, owner = await nft_methods.get_collection_data_get_method(client, collection)
    assert next_index == ours.item_index + 1
    assert shown(owner) == stage.run("-m", "chain_gateway", "address").split()[-1]
    place = await nft_methods.get_nft_address_by_index_get_method(
        client, collection, ours.item_index
    )
    assert shown(place) == ours.item_address
    royalty = await nft_methods.royalty_params_get_method(client, collection)
    assert royalty[0] == 0

    initialised, index, parent, owner, content = await nft_methods.get_nft_data_get_method(
        client, ours.item_address
    )
    assert (bool(initialised), index) == (True, ours.item_index)
    assert (shown(parent), shown(owner)) == (collection, user.address)
    whole = await nft_methods.get_nft_content_get_method(client, collection, index, content)
    assert "Đà Nẵng".encode() in whole.to_boc()


async def test_it_transfers_and_burns_an_item_and_we_follow(
    stage: Stage, nft: NftRecorder, callers: Callers, client: LiteClient
) -> None:
    giver, ours = await minted(stage, nft, callers, "long", minting_pb2.ITEM_STANDARD_NFT)
    taker = UserWallet()
    stage.fund(taker.address, 1)
    address = ours.item_address
    kept = await callers.chain.VerifyBurn(chain_pb2.VerifyBurnRequest(item_address=address))
    assert kept == chain_pb2.VerifyBurnResponse()

    to_taker = NFTTransferBuilder(destination=taker.address, nft_address=address)
    await opened(client, giver).transfer_message(to_taker)
    found = await owned_by(callers, address, taker.address)
    assert (found.content, found.item_index) == (ours.content, ours.item_index)

    to_nobody = NFTTransferBuilder(destination=NULL, nft_address=address)
    await opened(client, taker).transfer_message(to_nobody)
    await owned_by(callers, address, NULL)
    proof = await burnt(callers, address)
    assert proof.burner_address == taker.address
    theirs = await transaction(client, address, proof.transaction_lt)
    assert proof.transaction_hash == theirs.cell.hash
    assert proof.burn_time.seconds == theirs.now


async def test_an_owner_destroys_a_soulbound_item_and_we_prove_it(
    stage: Stage, nft: NftRecorder, callers: Callers, client: LiteClient
) -> None:
    user, ours = await minted(stage, nft, callers, "nga", minting_pb2.ITEM_STANDARD_SBT)
    assert ours.standard == minting_pb2.ITEM_STANDARD_SBT
    address = ours.item_address
    assert await nft_methods.get_revoked_time_get_method(client, address) == 0
    authority = await nft_methods.get_authority_address_get_method(client, address)
    assert shown(authority) == ours.collection_address

    end = begin_cell().store_uint(OP_DESTROY, 32).store_uint(0, 64).end_cell()
    await opened(client, user).transfer_message(
        TONTransferBuilder(destination=address, amount=TON // 20, body=end, bounce=True)
    )
    await owned_by(callers, address, "")
    proof = await burnt(callers, address)
    assert proof.burner_address == user.address
    theirs = await transaction(client, address, proof.transaction_lt)
    assert proof.transaction_hash == theirs.cell.hash
