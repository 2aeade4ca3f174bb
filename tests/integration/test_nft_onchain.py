"""Badges on a real chain: they rise, fall, are taken back and called off, and the items say so."""

import json
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio
from go2asia.gateway.v1 import chain_pb2
from go2asia.nft.v1 import catalog_pb2, nft_pb2, rewards_pb2

from devstack.postgres import Cluster
from mesh.clock import new_id
from tests.integration.gateway_stage import Stage, UserWallet, playing
from tests.integration.nft_onchain import World, at_work
from tests.rpc.nft_process import explorer, reward

pytestmark = pytest.mark.asyncio(loop_scope="module")
MINT, UPDATE, REVOKE = (
    nft_pb2.MINT_KIND_MINT, nft_pb2.MINT_KIND_UPDATE, nft_pb2.MINT_KIND_REVOKE,
)  # fmt: skip


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    with playing(tmp_path_factory.mktemp("onchain"), postgres, make_database()) as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    stage: Stage, postgres: Cluster, make_database: Callable[[], str]
) -> AsyncIterator[World]:
    async with at_work(stage, postgres, make_database()) as world:
        for code, standard in (("guide", 1), ("citizen", 2)):
            await world.create(two_levels(code, standard))
        hosted = two_levels("hosted", 1)
        hosted.item_uri = "https://items.example/{nft_type}/{mint_id}/{level}.json"
        await world.create(hosted)
        yield world


def two_levels(code: str, standard: int) -> catalog_pb2.NftType:
    """Level 1 at one quest, minted by itself; level 2 at three."""
    nft_type = explorer(code)
    nft_type.token_standard = standard
    nft_type.image = "https://img.example/{nft_type}/{level}.png"
    second = nft_type.levels.add(level=2, thresholds={"quests": 3})
    second.metadata.update({"name": "Explorer II"})
    return nft_type


def attributes(item: chain_pb2.NftItem) -> dict[str, str]:
    return {one["trait_type"]: one["value"] for one in json.loads(item.content["attributes"])}


async def take_back(world: World, given: rewards_pb2.ApplyRewardRequest) -> None:
    await world.rewards.RevertReward(
        rewards_pb2.RevertRewardRequest(
            request_id=new_id(), original_request_id=given.request_id, reference="clawback"
        )
    )


async def test_an_item_follows_its_badge_up_and_down_and_out(world: World) -> None:
    await world.gateway.link("ada", UserWallet())
    first, second = (reward("ada", nft_type="guide", increment=each) for each in (1, 2))
    badge = (await world.rewards.ApplyReward(first)).outcome
    await world.rewards.ApplyReward(second)  # while the mint is under way
    mint, change = await world.changes(badge.nft_id, 2)
    assert (mint.kind, change.kind, change.item_mint_id) == (MINT, UPDATE, mint.mint_id)
    item = await world.item(mint)
    assert (item.content["name"], attributes(item)) == ("Explorer II", {"level": "2"})
    assert item.content["image"] == "https://img.example/guide/2.png"
    assert item.content["mint_id"] == mint.mint_id

    await take_back(world, second)
    await world.changes(badge.nft_id, 3)
    assert attributes(await world.item(mint)) == {"level": "1"}
    await take_back(world, first)
    await world.changes(badge.nft_id, 4)
    assert attributes(await world.item(mint)) == {"level": "1", "status": "revoked"}


async def test_a_soulbound_badge_is_revoked_on_chain(world: World) -> None:
    await world.gateway.link("bob", UserWallet())
    earned = reward("bob", nft_type="citizen")
    badge = (await world.rewards.ApplyReward(earned)).outcome
    (mint,) = await world.changes(badge.nft_id, 1)
    item = await world.item(mint)
    assert not item.HasField("revoke_time")
    await take_back(world, earned)
    _, revocation = await world.changes(badge.nft_id, 2)
    assert (revocation.kind, revocation.level) == (REVOKE, 0)
    assert (await world.item(mint)).HasField("revoke_time")


async def test_content_off_chain_is_named_by_its_template(world: World) -> None:
    await world.gateway.link("cy", UserWallet())
    badge = (await world.rewards.ApplyReward(reward("cy", nft_type="hosted"))).outcome
    await world.rewards.ApplyReward(reward("cy", nft_type="hosted", increment=2))
    mint, _ = await world.changes(badge.nft_id, 2)
    uri = f"https://items.example/hosted/{mint.mint_id}/2.json"
    assert dict((await world.item(mint)).content) == {"uri": uri, "mint_id": mint.mint_id}


async def test_a_parked_mint_is_called_off_and_never_comes(world: World) -> None:
    earned = reward("dee", nft_type="guide")
    badge = (await world.rewards.ApplyReward(earned)).outcome
    await world.reaches(badge.mint_id, nft_pb2.MINT_STATE_AWAITING_WALLET)
    call_off = nft_pb2.CancelMintRequest(request_id=new_id(), user_id="dee", mint_id=badge.mint_id)
    assert (await world.people.CancelMint(call_off)).mint.state == nft_pb2.MINT_STATE_CANCELLED
    ask = nft_pb2.RequestMintRequest(request_id=new_id(), user_id="dee", nft_id=badge.nft_id)
    anew = (await world.people.RequestMint(ask)).mint
    await world.reaches(anew.mint_id, nft_pb2.MINT_STATE_AWAITING_WALLET)
    await take_back(world, earned)  # parked at the Gateway: called off there, a moment later
    await world.reaches(anew.mint_id, nft_pb2.MINT_STATE_CANCELLED)
    linked = await world.gateway.link("dee", UserWallet())
    assert linked.released_operations == 0


async def test_record_and_chain_agree_after_all_that(world: World) -> None:
    run, found = await world.reconcile()
    assert (run.items_examined, found) == (3, [])
