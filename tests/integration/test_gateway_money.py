"""What minting costs, what happens when the money ends, and minting without spending any."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest
from go2asia.gateway.v1 import chain_pb2, minting_pb2

from chain_gateway.items import ITEM_AMOUNT, MINT_COST, NANOTON
from devstack.postgres import Cluster
from tests.integration.gateway_stage import (
    Callers,
    NftRecorder,
    Stage,
    UserWallet,
    audit,
    calling,
    orders,
    playing,
    recording,
    reported,
    serving,
)

RESERVE_TON = 1
# Setup takes some of it; the rest pays for a part of the mints.
FUNDS_TON = 4
MINTS = 60


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("money")
    settings = {"GATEWAY_RESERVE_TON": str(RESERVE_TON), "GATEWAY_BATCH_MINTS": "10"}
    with playing(folder, postgres, make_database(), funds=FUNDS_TON, settings=settings) as stage:
        yield stage


@pytest.fixture
async def nft(stage: Stage) -> AsyncIterator[NftRecorder]:
    async with recording(stage) as recorder:
        yield recorder


@pytest.fixture
async def callers(stage: Stage, nft: NftRecorder) -> AsyncIterator[Callers]:
    async with calling(stage) as callers:
        yield callers


async def status(callers: Callers) -> chain_pb2.GetGatewayStatusResponse:
    response: chain_pb2.GetGatewayStatusResponse = await callers.chain.GetGatewayStatus(
        chain_pb2.GetGatewayStatusRequest()
    )
    return response


async def status_when(
    callers: Callers, stage: Stage, condition: Callable[[chain_pb2.GetGatewayStatusResponse], bool]
) -> chain_pb2.GetGatewayStatusResponse:
    deadline = time.monotonic() + 45
    while not condition(found := await status(callers)):
        assert time.monotonic() < deadline, (found, stage.said())
        await asyncio.sleep(0.1)
    return found


async def costs(
    callers: Callers, stage: Stage, operations: Sequence[minting_pb2.Operation]
) -> list[int]:
    """Costs of all of these, once all are known."""
    deadline = time.monotonic() + 45
    while True:
        found = [(await callers.operation(o.operation_id)).cost_nanoton for o in operations]
        if all(found):
            return found
        assert time.monotonic() < deadline, stage.said()
        await asyncio.sleep(0.5)


async def balance(stage: Stage) -> int:
    wallet = stage.run("-m", "chain_gateway", "address").split()[-1]
    async with stage.chain() as chain:
        return (await chain.account(wallet, await chain.wait(None, 10))).balance


async def test_costs_add_up_to_what_left_the_wallet(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    before = await balance(stage)
    wallet = UserWallet()
    await callers.link("an", wallet)
    ordered = orders("an", 7)
    operations = await callers.submit(ordered)
    await reported(nft, "FINALIZED", {order.mint_id for order in ordered}, stage)
    found = await costs(callers, stage, operations)
    assert sum(found) == before - await balance(stage)
    assert all(ITEM_AMOUNT < cost <= MINT_COST for cost in found)
    print(f"{sum(found) / len(found) / NANOTON:.4f} TON a mint")
    seen = await status_when(callers, stage, lambda s: s.wallet_balance_nanoton < before)
    assert seen.gas_runway_mints == (
        (seen.wallet_balance_nanoton - RESERVE_TON * NANOTON) // MINT_COST
    )
    [only] = seen.wallets
    assert (only.address, only.paused_reason) == (seen.wallet_address, "")
    one = await callers.operation(operations[0].operation_id)
    assert one.wallet_address == seen.wallet_address


async def test_a_dry_run_sends_nothing(stage: Stage, nft: NftRecorder, callers: Callers) -> None:
    stage.stop()
    stage.environment["GATEWAY_DRY_RUN"] = "true"
    stage.start()
    await serving(callers, stage)
    before = await balance(stage)
    wallet = UserWallet()
    await callers.link("binh", wallet)
    ordered = orders("binh", 3)
    await callers.submit(ordered)
    seen = await status_when(callers, stage, lambda s: s.paused_reason == "DRY_RUN")
    assert seen.dry_run
    await asyncio.sleep(2)
    assert seen.operations["OPERATION_STATE_QUEUED"] == 3
    assert await balance(stage) == before
    assert '"operations": 3' in stage.said()

    stage.stop()
    del stage.environment["GATEWAY_DRY_RUN"]
    stage.start()
    await serving(callers, stage)
    mint_ids = {order.mint_id for order in ordered}
    await reported(nft, "FINALIZED", mint_ids, stage)
    await audit(stage, nft, mint_ids, wallet.address)


async def test_a_wallet_that_runs_dry_pauses_and_finishes_after_a_top_up(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    wallet = UserWallet()
    await callers.link("cuc", wallet)
    ordered = orders("cuc", MINTS)
    mint_ids = {order.mint_id for order in ordered}
    operations = await callers.submit(ordered)
    dry = await status_when(callers, stage, lambda s: s.paused_reason == "LOW_BALANCE")
    assert dry.paused
    assert dry.gas_runway_mints == 0
    assert dry.wallet_balance_nanoton >= RESERVE_TON * NANOTON
    waiting = dry.operations["OPERATION_STATE_QUEUED"]
    assert 0 < waiting < MINTS
    # What it could pay for goes on to the end.
    done = dry.operations["OPERATION_STATE_FINALIZED"]
    await status_when(
        callers, stage, lambda s: sum(s.operations.values()) == waiting + final(s) > done
    )
    await asyncio.to_thread(stage.fund, dry.wallet_address, 0.1 * MINTS)
    await reported(nft, "FINALIZED", mint_ids, stage)
    await audit(stage, nft, mint_ids, wallet.address)
    seen = await status_when(callers, stage, lambda s: not s.paused)
    assert seen.gas_runway_mints > 0
    assert max(await costs(callers, stage, operations)) <= MINT_COST


async def test_a_transfer_beyond_the_balance_waits_for_money_and_holds_up_nobody(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    wallet = UserWallet()
    await callers.link("dao", wallet)
    transfer = minting_pb2.TransferOrder(
        request_id="too-much", user_id="dao", amount_nanoton=9 * NANOTON
    )
    taken = await callers.operator_minting.SubmitTransfer(
        minting_pb2.SubmitTransferRequest(order=transfer)
    )
    seen = await status_when(callers, stage, lambda s: s.paused_reason == "LOW_BALANCE")
    assert seen.gas_runway_mints > 0
    [order] = orders("dao", 1)
    await callers.submit([order])
    await reported(nft, "FINALIZED", {order.mint_id}, stage)
    await asyncio.to_thread(stage.fund, seen.wallet_address, 10)
    await status_when(callers, stage, lambda s: not s.paused)
    [cost] = await costs(callers, stage, [taken.operation])
    assert cost < MINT_COST, "what it sent is not its cost"
    async with stage.chain() as chain:
        account = await chain.account(wallet.address, await chain.wait(None, 10))
    assert account.balance >= 8.99 * NANOTON


def final(seen: chain_pb2.GetGatewayStatusResponse) -> int:
    return seen.operations["OPERATION_STATE_FINALIZED"]
