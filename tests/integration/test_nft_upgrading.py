"""Badges on chain follow their level: by one change at a time, and none is lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import pytest_asyncio
from go2asia.gateway.v1 import minting_pb2
from go2asia.nft.v1 import nft_pb2

from devstack.postgres import Cluster
from nft_svc.audit import Origin
from nft_svc.convert_orders import order
from nft_svc.definitions import TokenStandard, UpgradePolicy
from nft_svc.errors import ChangeNotCancellable, MintExists, MintNotRetryable
from nft_svc.mints import Mint, MintKind, MintState
from nft_svc.rewards import RewardRequest
from nft_svc.store import mints, reads
from nft_svc.submissions import submission_queue
from nft_svc.upgrading import ACTOR
from tests.integration.nft_service import (
    CONNECT,
    EXPLORER,
    NftDatabase,
    Replica,
    a_user,
    grant,
    key,
    migrated,
    replica,
    report,
    revert,
    reward,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
ORIGIN = Origin(ACTOR)
SOULBOUND = replace(EXPLORER, code="soulbound", token_standard=TokenStandard.SBT)
SERIAL = replace(EXPLORER, code="serial", upgrade_policy=UpgradePolicy.NEW_ITEM)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(postgres: Cluster, make_database: Callable[[], str]) -> NftDatabase:
    nft = await migrated(postgres, make_database)
    async with replica(nft) as running:
        for nft_type in (SOULBOUND, SERIAL):
            await running.catalog.create(key(nft_type.code), nft_type, ORIGIN)
    return nft


@pytest_asyncio.fixture(loop_scope="module")
async def service(nft: NftDatabase) -> AsyncIterator[Replica]:
    async with replica(nft) as running:
        nft.execute("DELETE FROM nft_submissions")
        async with running.upgrading.worker():
            yield running


async def history(service: Replica, nft_id: str) -> list[Mint]:
    async with service.database.transaction(read_only=True) as connection:
        return await mints.history(connection, nft_id)


async def eventually(check: Callable[[], Awaitable[object]]) -> None:
    async with asyncio.timeout(10):
        while not await check():  # noqa: ASYNC110 - the condition lives in the database
            await asyncio.sleep(0.02)


async def latest(service: Replica, nft_id: str, count: int) -> Mint:
    """The newest of an instance's mints, once there are so many."""

    async def there() -> bool:
        return len(await history(service, nft_id)) >= count

    await eventually(there)
    found = await history(service, nft_id)
    assert len(found) == count
    return found[-1]


async def quiet(nft: NftDatabase) -> None:
    """Waits until all that was asked for has been looked at."""

    async def looked_at() -> bool:
        return not nft.query("SELECT 1 FROM nft_submissions WHERE lane = 'upgrade'")

    await eventually(looked_at)


async def end(service: Replica, mint_id: str, state: MintState = MintState.FINALIZED) -> None:
    assert await service.reports.apply([report(mint_id, state, 9)]) == 1


async def test_a_rise_changes_the_item_of_a_minted_badge(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    first = await service.rewards.apply(reward(ada, 3))
    await end(service, first.mint_id)
    await service.rewards.apply(reward(ada, 3))
    change = await latest(service, first.nft_id, 2)
    assert (change.kind, change.item_mint_id, change.level) == (MintKind.UPDATE, first.mint_id, 3)
    assert (change.content.name, change.state) == ("Explorer III", MintState.QUEUED)
    ((lane,),) = nft.query("SELECT lane FROM nft_submissions WHERE item_id = %s", change.mint_id)
    assert lane == "update"
    with pytest.raises(ChangeNotCancellable):
        await service.requests.cancel(key(), ada, change.mint_id, CONNECT)
    with pytest.raises(MintExists):
        await service.requests.request(key(), ada, first.nft_id, CONNECT)
    await end(service, change.mint_id)
    await quiet(nft)
    assert len(await history(service, first.nft_id)) == 2
    async with service.database.transaction(read_only=True) as connection:
        row = await reads.nft(connection, first.nft_id)
    assert row is not None
    assert row["mint_id"] == first.mint_id, "a change is not the badge's mint"


async def test_a_change_waits_for_the_mint_before_it(nft: NftDatabase, service: Replica) -> None:
    ada = a_user()
    first = await service.rewards.apply(reward(ada, 3))
    await service.rewards.apply(reward(ada, 3))
    await quiet(nft)
    assert len(await history(service, first.nft_id)) == 1
    await end(service, first.mint_id)
    change = await latest(service, first.nft_id, 2)
    assert (change.kind, change.level) == (MintKind.UPDATE, 3)


async def test_a_level_passed_within_the_batch_of_its_mint_is_followed(service: Replica) -> None:
    ada = a_user()
    outcomes = await service.rewards.apply_many([reward(ada, 3), reward(ada, 3)])
    first = outcomes[0]
    assert not isinstance(first, Exception)
    await end(service, first.mint_id)
    assert (await latest(service, first.nft_id, 2)).level == 3


async def test_levels_that_move_while_mints_end_are_never_lost(
    nft: NftDatabase, service: Replica
) -> None:
    """Rewards and ends race: what is on chain in the end is the level in the end."""
    for _ in range(15):
        ada = a_user()
        first = await service.rewards.apply(reward(ada, 3))
        rise = reward(ada, 3)
        await asyncio.gather(service.rewards.apply(rise), end(service, first.mint_id))
        change = await latest(service, first.nft_id, 2)
        assert change.level == 3
        await asyncio.gather(revert(service, rise), end(service, change.mint_id))
        back = await latest(service, first.nft_id, 3)
        assert back.level == 2


async def test_a_soulbound_badge_taken_back_is_revoked_and_may_be_earned_anew(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    earned = reward(ada, 3, nft_type="soulbound")
    first = await service.rewards.apply(earned)
    assert (await latest(service, first.nft_id, 1)).token_standard is TokenStandard.SBT
    await end(service, first.mint_id)
    await revert(service, earned)
    revocation = await latest(service, first.nft_id, 2)
    assert (revocation.kind, revocation.item_mint_id) == (MintKind.REVOKE, first.mint_id)
    await end(service, revocation.mint_id)
    anew = await service.rewards.apply(reward(ada, 3, nft_type="soulbound"))
    assert anew.nft_id == first.nft_id
    assert anew.mint_id not in ("", first.mint_id), "a new item, since the old one is revoked"


@pytest.mark.parametrize("again", [reward, grant])
async def test_a_badge_earned_again_during_its_revocation_is_minted_anew(
    nft: NftDatabase, service: Replica, again: Callable[..., RewardRequest]
) -> None:
    ada = a_user()
    earned = reward(ada, 3, nft_type="soulbound")
    first = await service.rewards.apply(earned)
    await end(service, first.mint_id)
    await revert(service, earned)
    revocation = await latest(service, first.nft_id, 2)
    outcome = await service.rewards.apply(again(ada, nft_type="soulbound"))
    assert (outcome.level, outcome.mint_id) == (1, "")
    await quiet(nft)
    assert len(await history(service, first.nft_id)) == 2, "one change at a time"
    await end(service, revocation.mint_id)
    anew = await latest(service, first.nft_id, 3)
    assert (anew.kind, anew.level) == (MintKind.MINT, 1)
    assert anew.token_standard is TokenStandard.SBT


async def test_a_revocation_that_ends_before_anybody_looks_again_makes_way(
    nft: NftDatabase,
) -> None:
    ada = a_user()
    earned = reward(ada, 3, nft_type="soulbound")
    async with replica(nft) as service:
        first = await service.rewards.apply(earned)
        await end(service, first.mint_id)
        await revert(service, earned)
        await service.upgrading.follow(first.nft_id, ORIGIN)
        revocation = await latest(service, first.nft_id, 2)
        assert not (await service.rewards.apply(reward(ada, 3, nft_type="soulbound"))).mint_id
        await end(service, revocation.mint_id)
        async with service.upgrading.worker():
            anew = await latest(service, first.nft_id, 3)
    assert (anew.kind, anew.level) == (MintKind.MINT, 2)


async def test_a_revocation_that_fails_leaves_the_item_to_the_level(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    earned = reward(ada, 3, nft_type="soulbound")
    first = await service.rewards.apply(earned)
    await end(service, first.mint_id)
    await revert(service, earned)
    revocation = await latest(service, first.nft_id, 2)
    await service.rewards.apply(reward(ada, 6, nft_type="soulbound"))
    await quiet(nft)
    await end(service, revocation.mint_id, MintState.FAILED)
    change = await latest(service, first.nft_id, 2)
    assert (change.kind, change.item_mint_id, change.level) == (MintKind.UPDATE, first.mint_id, 3)


async def test_a_transferable_badge_taken_back_is_marked(service: Replica) -> None:
    ada = a_user()
    earned = reward(ada, 3)
    first = await service.rewards.apply(earned)
    await end(service, first.mint_id)
    await revert(service, earned)
    mark = await latest(service, first.nft_id, 2)
    assert (mark.kind, mark.level) == (MintKind.UPDATE, 0)
    assert mark.content.attributes[-1] == ("status", "revoked")


async def test_a_mint_at_the_gateway_is_called_off_with_the_last_level(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    earned = reward(ada, 3)
    first = await service.rewards.apply(earned)
    queue = submission_queue()
    async with service.database.transaction() as connection:
        await queue.claim(connection, "mint", 10)  # so that nobody can tell where it is
    taken = await revert(service, earned)
    assert not taken.cancelled_mint_id

    async def gone() -> bool:
        return not await history(service, first.nft_id)

    await eventually(gone)
    assert first.mint_id in service.gateway.called_off


async def test_a_badge_earned_again_while_its_mint_is_called_off_is_minted_anew(
    nft: NftDatabase, service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = a_user()
    earned = reward(ada, 3)
    first = await service.rewards.apply(earned)
    async with service.database.transaction() as connection:
        await submission_queue().claim(connection, "mint", 10)  # nobody can tell where it is
    call_off, again = service.gateway.cancel, reward(ada, 3)

    async def earn_meanwhile(mint_id: str) -> minting_pb2.Operation | None:
        assert not (await service.rewards.apply(again)).mint_id, "the other one is under way still"
        return await call_off(mint_id)

    monkeypatch.setattr(service.gateway, "cancel", earn_meanwhile)
    await revert(service, earned)

    async def replaced() -> bool:
        return first.mint_id not in [mint.mint_id for mint in await history(service, first.nft_id)]

    await eventually(replaced)
    await quiet(nft)
    (anew,) = await history(service, first.nft_id)
    assert (anew.kind, anew.level) == (MintKind.MINT, 2)


async def test_a_mint_that_was_sent_is_taken_back_once_it_is_there(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    earned = reward(ada, 3)
    first = await service.rewards.apply(earned)
    (mint,) = await history(service, first.nft_id)
    await service.gateway.submit(order(mint))
    service.gateway.send(first.mint_id)
    await service.reports.apply([report(first.mint_id, MintState.SUBMITTED, 2)])
    await revert(service, earned)
    await quiet(nft)
    await end(service, first.mint_id)
    assert (await latest(service, first.nft_id, 2)).level == 0


async def test_a_level_of_its_own_item_is_minted_beside_the_others(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    first = await service.rewards.apply(reward(ada, 3, nft_type="serial"))
    await end(service, first.mint_id)
    with pytest.raises(MintExists):
        await service.requests.request(key(), ada, first.nft_id, CONNECT)
    await service.rewards.apply(reward(ada, 3, nft_type="serial"))
    second = await latest(service, first.nft_id, 2)
    assert (second.kind, second.level) == (MintKind.MINT, 3)


async def test_without_a_level_all_items_are_taken_back_and_none_is_added(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    earned, more = reward(ada, 3, nft_type="serial"), reward(ada, 3, nft_type="serial")
    first = await service.rewards.apply(earned)
    await end(service, first.mint_id)
    await service.rewards.apply(more)
    second = await latest(service, first.nft_id, 2)
    await revert(service, more)  # noted at the second mint, which nobody handed over yet
    await quiet(nft)
    taken = await revert(service, earned)
    assert taken.cancelled_mint_id == second.mint_id
    mark = await latest(service, first.nft_id, 2)
    assert (mark.kind, mark.item_mint_id, mark.level) == (MintKind.UPDATE, first.mint_id, 0)


async def test_a_failed_change_is_retried_as_what_is_due_then(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    given = grant(ada)
    badge = await service.rewards.apply(given)
    asked = await service.requests.request(key(), ada, badge.nft_id, CONNECT)
    await end(service, asked.mint_id)
    rise = reward(ada, 3)
    await service.rewards.apply(rise)
    change = await latest(service, badge.nft_id, 2)
    failed = report(change.mint_id, MintState.FAILED, 9)
    failed = replace(failed, content=replace(failed.content, retryable=True))
    assert await service.reports.apply([failed]) == 1
    again = await service.requests.retry(key(), ada, change.mint_id, CONNECT)
    assert again.kind == nft_pb2.MINT_KIND_UPDATE
    assert (again.retry_of, again.level) == (change.mint_id, 2)
    await end(service, again.mint_id)
    with pytest.raises(MintNotRetryable, match="no change of it is due"):
        await service.requests.retry(key(), ada, change.mint_id, CONNECT)
