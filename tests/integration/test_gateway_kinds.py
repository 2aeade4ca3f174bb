"""Transfers, changes of content and revocations by the Gateway as a process: each once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from uuid import uuid4

import pytest
from go2asia.gateway.v1 import chain_pb2, minting_pb2

from chain_gateway.content import decode
from chain_gateway.items import ItemData, read_item
from devstack.postgres import Cluster
from tests.integration.gateway_inside import received_by
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
    serving,
)

MILLI_TON = 1_000_000


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    with playing(tmp_path_factory.mktemp("kinds"), postgres, make_database()) as stage:
        stage.environment["GATEWAY_TRANSFER_DAILY_LIMIT_NANOTON"] = str(100 * MILLI_TON)
        yield stage


@pytest.fixture
async def nft(stage: Stage) -> AsyncIterator[NftRecorder]:
    async with recording(stage) as recorder:
        yield recorder


@pytest.fixture
async def callers(stage: Stage, nft: NftRecorder) -> AsyncIterator[Callers]:
    async with calling(stage) as callers:
        yield callers


def soulbound(user_id: str, count: int = 1) -> list[minting_pb2.MintOrder]:
    ordered = orders(user_id, count)
    for order in ordered:
        order.standard = minting_pb2.ITEM_STANDARD_SBT
    return ordered


def update(item_mint_id: str, name: str, **content: str) -> minting_pb2.UpdateItemContentRequest:
    return minting_pb2.UpdateItemContentRequest(
        request_id=str(uuid4()),
        mint_id=str(uuid4()),
        item_mint_id=item_mint_id,
        content=minting_pb2.Content(name=name, **content),
    )


def revocation(item_mint_id: str) -> minting_pb2.RevokeItemRequest:
    return minting_pb2.RevokeItemRequest(
        request_id=str(uuid4()), mint_id=str(uuid4()), item_mint_id=item_mint_id
    )


def transfers(
    user_id: str, count: int, amount: int, comment: str = ""
) -> list[minting_pb2.TransferOrder]:
    return [
        minting_pb2.TransferOrder(
            request_id=str(uuid4()), user_id=user_id, amount_nanoton=amount, comment=comment
        )
        for _ in range(count)
    ]


async def item(stage: Stage, address: str) -> ItemData:
    async with stage.chain() as chain:
        account = await chain.account(address, await chain.wait(None, 10))
    assert account.data is not None
    return read_item(account.data)


async def pay(
    callers: Callers, ordered: list[minting_pb2.TransferOrder]
) -> list[minting_pb2.SubmitTransferResult]:
    response = await callers.operator_minting.BatchSubmitTransfers(
        minting_pb2.BatchSubmitTransfersRequest(orders=ordered)
    )
    return list(response.results)


async def ended(
    callers: Callers, operation_ids: list[str], stage: Stage
) -> list[minting_pb2.Operation]:
    """Waits until these operations are FINALIZED."""
    try:
        async with asyncio.timeout(45):
            while True:
                found = [await callers.operation(operation_id) for operation_id in operation_ids]
                if {each.state for each in found} == {minting_pb2.OPERATION_STATE_FINALIZED}:
                    return found
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError((found, stage.said())) from None


async def test_an_item_is_minted_changed_and_revoked(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    """The changes are ordered while the mint still waits for a wallet: they wait with it."""
    [order] = soulbound("linh")
    taken = (await callers.minting.SubmitMint(minting_pb2.SubmitMintRequest(order=order))).operation
    assert (taken.kind, taken.standard) == (
        minting_pb2.OPERATION_KIND_MINT,
        minting_pb2.ITEM_STANDARD_SBT,
    )
    changes = [update(order.mint_id, f"Level {level}") for level in (2, 3, 4)]
    for change in changes:
        queued = (await callers.minting.UpdateItemContent(change)).operation
        assert queued.state == minting_pb2.OPERATION_STATE_QUEUED
        assert (queued.item_mint_id, queued.user_id) == (order.mint_id, "linh")
    wallet = UserWallet()
    await callers.link("linh", wallet)
    await reported(nft, "FINALIZED", {change.mint_id for change in changes}, stage)
    await reported(nft, "FINALIZED", {order.mint_id}, stage)

    location = nft.newest[order.mint_id].location
    assert location.collection_address != stage.collection().address
    assert {nft.newest[change.mint_id].location.item_address for change in changes} == {
        location.item_address
    }
    changed = await item(stage, location.item_address)
    assert changed.content is not None
    assert decode(changed.content) == {"name": "Level 4", "mint_id": order.mint_id}
    assert (changed.owner, changed.mint_id) == (wallet.address, order.mint_id)

    revoke = revocation(order.mint_id)
    revoked = (await callers.minting.RevokeItem(revoke)).operation
    assert (await callers.minting.RevokeItem(revoke)).operation.operation_id == (
        revoked.operation_id
    )
    await reported(nft, "FINALIZED", {revoke.mint_id}, stage)
    assert (await item(stage, location.item_address)).revoked_at > 0
    shown = await callers.chain.GetNftItem(
        chain_pb2.GetNftItemRequest(item_address=location.item_address)
    )
    assert shown.item.content["name"] == "Level 4"


async def test_content_off_chain_is_a_uri_and_the_mint_is_found_all_the_same(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    await callers.link("mai", UserWallet())
    [order] = orders("mai", 1)
    order.content.uri = "https://badges.example/explorer.json"
    await callers.submit([order])
    await reported(nft, "FINALIZED", {order.mint_id}, stage)
    address = nft.newest[order.mint_id].location.item_address
    minted = await item(stage, address)
    assert minted.mint_id == order.mint_id
    shown = await callers.chain.GetNftItem(chain_pb2.GetNftItemRequest(item_address=address))
    assert dict(shown.item.content) == {"uri": order.content.uri, "mint_id": order.mint_id}


async def test_transfers_arrive_once_up_to_the_daily_limit(stage: Stage, callers: Callers) -> None:
    """Parked until a wallet is linked, even one that is not deployed; nothing is told to NFT."""
    ordered = transfers("ngoc", 4, 25 * MILLI_TON, "Chúc mừng")
    results = await pay(callers, ordered)
    assert [result.operation.state for result in results] == (
        [minting_pb2.OPERATION_STATE_AWAITING_WALLET] * 4
    )
    [over] = await pay(callers, transfers("ngoc", 1, 1))
    assert over.error.reason == "TRANSFER_LIMIT_REACHED"
    assert dict(over.error.metadata) == {
        "limit_nanoton": str(100 * MILLI_TON),
        "left_nanoton": "0",
    }
    wallet = UserWallet()
    assert (await callers.link("ngoc", wallet)).released_operations == 4
    done = await ended(callers, [result.operation.operation_id for result in results], stage)
    assert {each.owner_address for each in done} == {wallet.address}
    assert {each.kind for each in done} == {minting_pb2.OPERATION_KIND_TRANSFER}
    assert await received_by(stage, wallet) == [(25 * MILLI_TON, "Chúc mừng")] * 4
    again = await pay(callers, ordered)
    assert [result.operation.operation_id for result in again] == [o.operation_id for o in done]
    assert {result.operation.state for result in again} == {minting_pb2.OPERATION_STATE_FINALIZED}


async def test_killed_amid_all_kinds_everything_happens_once(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    wallet = UserWallet()
    await callers.link("phuc", wallet)
    minted = soulbound("phuc", 20)
    await callers.submit(minted)
    payments = transfers("phuc", 20, MILLI_TON) + transfers("phuc", 10, 2 * MILLI_TON, "tip")
    changes = [update(order.mint_id, "Second") for order in minted]
    changes += [update(order.mint_id, "Third") for order in minted]
    revocations = [revocation(order.mint_id) for order in minted[:10]]
    paid: list[str] = []
    for step, batch in enumerate(_tens(payments)):
        paid += [result.operation.operation_id for result in await pay(callers, batch)]
        for change in changes[step::3]:
            await callers.minting.UpdateItemContent(change)
        for revoke in revocations[step::3]:
            await callers.minting.RevokeItem(revoke)
        await asyncio.sleep(0.3 * step)
        stage.kill()
        stage.start()
        await serving(callers, stage)
    told = {order.mint_id for order in minted} | {change.mint_id for change in changes}
    told |= {revoke.mint_id for revoke in revocations}
    await reported(nft, "FINALIZED", told, stage)
    await ended(callers, paid, stage)
    assert sorted(await received_by(stage, wallet)) == (
        [(MILLI_TON, "")] * 20 + [(2 * MILLI_TON, "tip")] * 10
    )
    revoked = {revoke.item_mint_id for revoke in revocations}
    for order in minted:
        found = await item(stage, nft.newest[order.mint_id].location.item_address)
        assert found.content is not None
        last = [change for change in changes if change.item_mint_id == order.mint_id]
        assert decode(found.content)["name"] in {change.content.name for change in last}
        assert (found.revoked_at > 0) == (order.mint_id in revoked)


def _tens(of: list[minting_pb2.TransferOrder]) -> Iterator[list[minting_pb2.TransferOrder]]:
    return (of[start : start + 10] for start in range(0, len(of), 10))
