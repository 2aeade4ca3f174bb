"""The Gateway as a process, on a real Postgres and a real devnet: each mint once, and reported."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from go2asia.gateway.v1 import chain_pb2, minting_pb2

from chain_gateway.errors import ChainUnavailable
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


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    with playing(tmp_path_factory.mktemp("gateway"), postgres, make_database()) as stage:
        yield stage


@pytest.fixture
async def nft(stage: Stage) -> AsyncIterator[NftRecorder]:
    async with recording(stage) as recorder:
        yield recorder


@pytest.fixture
async def callers(stage: Stage, nft: NftRecorder) -> AsyncIterator[Callers]:
    async with calling(stage) as callers:
        yield callers


async def test_three_hundred_mints_are_final_and_verified(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    wallet = UserWallet()
    await callers.link("minh", wallet)
    ordered = orders("minh", 300)
    began = time.monotonic()
    operations = await callers.submit(ordered)
    assert {operation.state for operation in operations} == {minting_pb2.OPERATION_STATE_QUEUED}

    again = await callers.submit(ordered)
    assert [o.operation_id for o in again] == [o.operation_id for o in operations]

    mint_ids = {order.mint_id for order in ordered}
    await reported(nft, "FINALIZED", mint_ids, stage)
    print(f"300 mints in {time.monotonic() - began:.1f} s")
    await audit(stage, nft, mint_ids, wallet.address)

    one = await callers.operation(operations[0].operation_id)
    found = await callers.chain.GetNftItem(
        chain_pb2.GetNftItemRequest(item_address=one.item_address)
    )
    assert found.item.initialised
    assert found.item.owner_address == wallet.address == one.owner_address
    assert found.item.content["name"] == "Explorer of Đà Nẵng"
    assert json.loads(found.item.content["attributes"]) == [{"trait_type": "level", "value": "3"}]
    status = await callers.chain.GetGatewayStatus(chain_pb2.GetGatewayStatusRequest())
    assert not status.paused, status.paused_reason
    assert status.operations["OPERATION_STATE_FINALIZED"] == 300
    assert status.gas_runway_mints > 1000


async def test_killed_in_the_middle_each_mint_exists_once(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    wallet = UserWallet()
    await callers.link("lan", wallet)
    ordered = orders("lan", 250)
    mint_ids = {order.mint_id for order in ordered}
    for start in range(0, 250, 50):
        await callers.submit(ordered[start : start + 50])
        await asyncio.sleep(0.15)
    for pause in (0.0, 1.0):
        await asyncio.sleep(pause)
        stage.kill()
        stage.start()
        await serving(callers, stage)
    await callers.submit(ordered)  # the caller never learned whether it was taken
    await reported(nft, "FINALIZED", mint_ids, stage)
    await audit(stage, nft, mint_ids, wallet.address)


async def test_linking_a_wallet_releases_parked_mints(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    ordered = orders("thu", 3)
    operations = await callers.submit(ordered)
    assert {o.state for o in operations} == {minting_pb2.OPERATION_STATE_AWAITING_WALLET}
    wallet = UserWallet()
    linked = await callers.link("thu", wallet)
    assert linked.released_operations == 3
    mint_ids = {order.mint_id for order in ordered}
    await reported(nft, "FINALIZED", mint_ids, stage)
    await audit(stage, nft, mint_ids, wallet.address)


async def test_a_network_that_goes_away_pauses_sending_and_loses_nothing(
    stage: Stage, nft: NftRecorder, callers: Callers
) -> None:
    """The last test of this file: it kills the devnet that the others use."""
    wallet = UserWallet()
    await callers.link("quang", wallet)
    ordered = orders("quang", 150)
    await callers.submit(ordered[:100])
    await asyncio.sleep(0.4)
    stage.kill_network()
    await callers.submit(ordered[100:])  # orders need the database alone
    async with asyncio.timeout(20):
        await paused_for(callers, "CHAIN_LAGS")
    with pytest.raises(ChainUnavailable):
        await callers.chain.GetNftItem(chain_pb2.GetNftItemRequest(item_address=wallet.address))
    with stage.devnet():
        mint_ids = {order.mint_id for order in ordered}
        await reported(nft, "FINALIZED", mint_ids, stage)
        await audit(stage, nft, mint_ids, wallet.address)
        assert await paused_reason(callers) == ""
        stage.stop()


async def paused_for(callers: Callers, reason: str) -> None:
    while True:
        if await paused_reason(callers) == reason:
            return
        await asyncio.sleep(0.1)


async def paused_reason(callers: Callers) -> str:
    status = await callers.chain.GetGatewayStatus(chain_pb2.GetGatewayStatusRequest())
    reason: str = status.paused_reason
    return reason
