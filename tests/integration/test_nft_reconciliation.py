"""Reconciliation against a real chain: planted differences are found and classified by kind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from uuid import uuid4

import pytest
from go2asia.gateway.v1 import minting_pb2
from go2asia.nft.v1 import nft_pb2, reconciliation_pb2

from devstack.postgres import Cluster
from tests.integration.gateway_stage import Stage, UserWallet, orders, playing
from tests.integration.nft_onchain import World, at_work
from tests.rpc.nft_process import explorer, reward

KIND = reconciliation_pb2.DiscrepancyKind
REPAIR = reconciliation_pb2.RepairState


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    with playing(tmp_path_factory.mktemp("reconcile"), postgres, make_database()) as stage:
        yield stage


@pytest.fixture
async def world(
    stage: Stage, postgres: Cluster, make_database: Callable[[], str]
) -> AsyncIterator[World]:
    async with at_work(stage, postgres, make_database()) as world:
        yield world


async def test_planted_discrepancies_of_each_kind_are_found(world: World) -> None:
    await world.create(explorer())
    wallet, friend = UserWallet(), UserWallet()
    mint_ids = []
    for number in range(5):
        user = f"ada-{number}"
        await world.gateway.link(user, wallet)
        mint_ids.append((await world.rewards.ApplyReward(reward(user))).outcome.mint_id)
    fine, given, rewritten, behind, moved = [await world.finalised(one) for one in mint_ids]

    run, found = await world.reconcile()
    assert (run.items_examined, found) == (5, []), "record and chain agree"

    (stranger,) = orders("ada-0", 1)  # an operator orders an item that NFT knows nothing of
    unknown = await landed(world, stranger)
    await world.give_away(wallet, given.location.item_address, friend.address)
    world.execute(
        "UPDATE nft_mint_queue SET content = jsonb_set(content, '{name}', '\"Emperor\"')"
        " WHERE mint_id = %s", rewritten.mint_id,
    )  # fmt: skip
    world.execute(
        "UPDATE nft_mint_queue SET state = 'SUBMITTED', operation_version = 1 WHERE mint_id = %s",
        behind.mint_id,
    )
    nowhere = f"0:{uuid4().hex * 2}"
    world.execute(
        "UPDATE nft_mint_queue SET item_address = %s, item_index = 900 WHERE mint_id = %s",
        nowhere, moved.mint_id,
    )  # fmt: skip

    run, found = await world.reconcile()
    assert {
        (KIND.Name(one.kind), one.mint_id, one.item_address, REPAIR.Name(one.repair))
        for one in found
    } == {
        (f"DISCREPANCY_KIND_{kind}", mint_id, address, f"REPAIR_STATE_{repair}")
        for kind, mint_id, address, repair in (
            ("UNKNOWN_ON_CHAIN", stranger.mint_id, unknown, "NONE"),
            ("UNKNOWN_ON_CHAIN", moved.mint_id, moved.location.item_address, "NONE"),
            ("MISSING_ON_CHAIN", moved.mint_id, nowhere, "NONE"),
            ("WRONG_OWNER", given.mint_id, given.location.item_address, "DONE"),
            ("WRONG_CONTENT", rewritten.mint_id, rewritten.location.item_address, "ORDERED"),
            ("STATE_BEHIND", behind.mint_id, behind.location.item_address, "DONE"),
        )
    }
    assert fine.mint_id not in {one.mint_id for one in found}
    assert (await world.mint(given.mint_id)).present_owner_address == friend.address
    healed = await world.finalised(behind.mint_id)
    assert healed.location == behind.location
    (ordered,) = [one.repair_mint_id for one in found if one.repair_mint_id]
    change = await world.finalised(ordered)
    assert (change.kind, change.item_mint_id) == (nft_pb2.MINT_KIND_UPDATE, rewritten.mint_id)
    assert (await world.item(rewritten)).content["name"] == "Emperor", "the record is the truth"

    _, left = await world.reconcile()
    assert {(KIND.Name(one.kind), one.mint_id) for one in left} == {
        ("DISCREPANCY_KIND_UNKNOWN_ON_CHAIN", stranger.mint_id),
        ("DISCREPANCY_KIND_UNKNOWN_ON_CHAIN", moved.mint_id),
        ("DISCREPANCY_KIND_MISSING_ON_CHAIN", moved.mint_id),
    }


async def landed(world: World, order: minting_pb2.MintOrder) -> str:
    """Address of the item of an order that was given past NFT, once it is final."""
    (operation,) = await world.gateway.submit([order])
    async with asyncio.timeout(45):
        while operation.state != minting_pb2.OPERATION_STATE_FINALIZED:
            await asyncio.sleep(0.1)
            operation = await world.gateway.operation(operation.operation_id)
    return operation.item_address
