"""Calling operations off and forgetting wallets, before, while and after anything is sent."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from uuid import uuid4

import pytest
import pytest_asyncio
from go2asia.gateway.v1 import minting_pb2, wallets_pb2

from chain_gateway.errors import OperationAlreadySent, WalletNotLinked
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.errors import PermissionDenied, RequestIdReused
from tests.integration.gateway_stage import (
    FUNDS_TON,
    Callers,
    NftRecorder,
    Stage,
    UserWallet,
    calling,
    orders,
    recording,
    reported,
)

QUEUED = minting_pb2.OPERATION_STATE_QUEUED
AWAITING_WALLET = minting_pb2.OPERATION_STATE_AWAITING_WALLET
CANCELLED = minting_pb2.OPERATION_STATE_CANCELLED
FAILED = minting_pb2.OPERATION_STATE_FAILED


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    """Nothing is sent at first: there is no collection, and nothing to pay with."""
    folder = tmp_path_factory.mktemp("cancelling")
    stage = Stage(folder, postgres, make_database(), Authority(folder / "authority"))
    with stage.devnet():
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(stage: Stage) -> AsyncIterator[NftRecorder]:
    async with recording(stage) as recorder:
        yield recorder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(stage: Stage, nft: NftRecorder) -> AsyncIterator[Callers]:
    async with calling(stage) as callers:
        yield callers


pytestmark = pytest.mark.asyncio(loop_scope="module")


def cancelling(operation_request_id: str) -> minting_pb2.CancelOperationRequest:
    return minting_pb2.CancelOperationRequest(
        request_id=str(uuid4()), operation_request_id=operation_request_id
    )


def unlinking(user_id: str) -> wallets_pb2.UnlinkWalletRequest:
    return wallets_pb2.UnlinkWalletRequest(request_id=str(uuid4()), user_id=user_id)


async def test_what_waits_is_called_off_once_and_for_ever(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    await callers.link("anh", UserWallet())
    queued, parked = *orders("anh", 1), *orders("bao", 1)
    states = [operation.state for operation in await callers.submit([queued, parked])]
    assert states == [QUEUED, AWAITING_WALLET]
    for order in (queued, parked):
        request = cancelling(order.request_id)
        first = await callers.minting.CancelOperation(request)
        assert (first.operation.mint_id, first.operation.state) == (order.mint_id, CANCELLED)
        assert await callers.minting.CancelOperation(request) == first
        assert await callers.minting.CancelOperation(cancelling(order.request_id)) == first
        request.operation_request_id = "another"
        with pytest.raises(RequestIdReused):
            await callers.minting.CancelOperation(request)
    assert {o.state for o in await callers.submit([queued, parked])} == {CANCELLED}
    await reported(nft, "CANCELLED", {queued.mint_id, parked.mint_id}, stage)


async def test_an_order_that_comes_after_its_cancellation_is_taken_as_cancelled(
    callers: Callers,
) -> None:
    order, changed = orders("chau", 2)
    request = cancelling(order.request_id)
    first = await callers.minting.CancelOperation(request)
    assert not first.HasField("operation")
    # Another caller's request ids are its own.
    foreign = minting_pb2.SubmitMintRequest(order=orders("chau", 1)[0])
    foreign.order.request_id = order.request_id
    taken = await callers.operator_minting.SubmitMint(foreign)
    assert taken.operation.state == AWAITING_WALLET

    [arrived] = await callers.submit([order])
    assert arrived.state == CANCELLED
    changed.request_id = order.request_id
    assert await callers.submit([order, changed]) == [arrived, arrived]
    assert await callers.minting.CancelOperation(request) == first
    again = await callers.minting.CancelOperation(cancelling(order.request_id))
    assert again.operation == arrived


async def test_a_transfer_is_called_off_before_it_comes(callers: Callers) -> None:
    order = minting_pb2.TransferOrder(
        request_id=str(uuid4()), user_id="dao", amount_nanoton=8_000_000_000
    )
    with pytest.raises(PermissionDenied):
        await callers.minting.SubmitTransfer(minting_pb2.SubmitTransferRequest(order=order))
    await callers.operator_minting.CancelOperation(cancelling(order.request_id))
    request = minting_pb2.SubmitTransferRequest(order=order)
    first = await callers.operator_minting.SubmitTransfer(request)
    assert first.operation.state == CANCELLED
    assert await callers.operator_minting.SubmitTransfer(request) == first
    # What was called off is not counted against what a user may get a day.
    request.order.request_id = str(uuid4())
    other = await callers.operator_minting.SubmitTransfer(request)
    assert other.operation.state == AWAITING_WALLET


async def test_changes_of_an_item_that_will_never_be_fail(callers: Callers) -> None:
    [order] = orders("giang", 1)
    await callers.submit([order])
    request = minting_pb2.UpdateItemContentRequest(
        request_id=str(uuid4()),
        mint_id=str(uuid4()),
        item_mint_id=order.mint_id,
        content=order.content,
    )
    change = (await callers.minting.UpdateItemContent(request)).operation
    assert change.state == QUEUED
    await callers.minting.CancelOperation(cancelling(order.request_id))
    failed = await callers.operation(change.operation_id)
    assert (failed.state, failed.failure_reason) == (FAILED, "ITEM_NOT_MINTED")
    with pytest.raises(OperationAlreadySent) as caught:
        await callers.minting.CancelOperation(cancelling(request.request_id))
    assert caught.value.metadata["state"] == "FAILED"


async def test_order_and_cancellation_at_once_end_cancelled(callers: Callers) -> None:
    ordered = orders("hai", 20)

    submissions = [
        callers.minting.SubmitMint(minting_pb2.SubmitMintRequest(order=order)) for order in ordered
    ]
    cancellations = [
        callers.minting.CancelOperation(cancelling(order.request_id)) for order in ordered
    ]
    for call in [*submissions, *cancellations]:
        await call
    assert {operation.state for operation in await callers.submit(ordered)} == {CANCELLED}


async def test_unlinking_parks_what_was_not_sent(callers: Callers) -> None:
    with pytest.raises(WalletNotLinked):
        await callers.links.UnlinkWallet(unlinking("khanh"))
    await callers.link("khanh", UserWallet())
    operations = await callers.submit(orders("khanh", 3))
    request = unlinking("khanh")
    first = await callers.links.UnlinkWallet(request)
    assert first.parked_operations == 3
    assert await callers.links.UnlinkWallet(request) == first
    with pytest.raises(WalletNotLinked):
        await callers.links.UnlinkWallet(unlinking("khanh"))
    with pytest.raises(WalletNotLinked):
        await callers.links.GetLinkedWallet(wallets_pb2.GetLinkedWalletRequest(user_id="khanh"))
    states = {(await callers.operation(o.operation_id)).state for o in operations}
    assert states == {AWAITING_WALLET}
    assert (await callers.link("khanh", UserWallet())).released_operations == 3


async def test_wallets_come_and_go_while_mints_are_sent(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    """Each mint goes once, to a wallet that was linked; what was sent cannot be called off."""
    one, other = UserWallet(), UserWallet()
    await callers.link("lam", one)
    ordered = orders("lam", 120)
    mint_ids = {order.mint_id for order in ordered}
    address = stage.run("-m", "chain_gateway", "address").split()[-1]
    await asyncio.to_thread(stage.fund, address, FUNDS_TON)
    await asyncio.to_thread(stage.run, "-m", "chain_gateway", "setup")
    operations: list[minting_pb2.Operation] = []
    for start in range(0, 120, 20):
        operations += await callers.submit(ordered[start : start + 20])
        await callers.links.UnlinkWallet(unlinking("lam"))
        await callers.link("lam", (one, other)[start // 20 % 2])
    await reported(nft, "FINALIZED", mint_ids, stage)
    owners = Counter([(await callers.operation(o.operation_id)).owner_address for o in operations])
    assert set(owners) <= {one.address, other.address}
    with pytest.raises(OperationAlreadySent) as caught:
        await callers.minting.CancelOperation(cancelling(ordered[0].request_id))
    assert caught.value.metadata["state"] == "FINALIZED"
