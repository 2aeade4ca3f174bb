"""Rewards taken back on a real Postgres: once, in any order, also before they arrive."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from random import Random

import pytest
import pytest_asyncio

from devstack.postgres import Cluster
from mesh.errors import RequestIdReused
from nft_svc.audit import Origin
from nft_svc.definitions import LevelRule, OnchainPolicy
from nft_svc.errors import LevelTakenBack, MintingNotOffered, UnknownNftType
from nft_svc.mints import MintState
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(postgres: Cluster, make_database: Callable[[], str]) -> NftDatabase:
    return await migrated(postgres, make_database)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(nft: NftDatabase) -> AsyncIterator[Replica]:
    async with replica(nft) as running:
        yield running


def standing(nft: NftDatabase, user_id: str) -> list[tuple[object, ...]]:
    """The user's counters, level and grants, and the level and metadata of the instance."""
    return nft.query(
        "SELECT p.counters, p.level, p.grants, i.level, i.metadata FROM nft_progress AS p"
        " LEFT JOIN nft_instances AS i USING (user_id, nft_type) WHERE p.user_id = %s",
        user_id,
    )


async def test_counter_level_and_instance_go_down_and_up_again(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    first, second = reward(ada, 2), reward(ada, 4)
    applied = await service.rewards.apply(first)
    await service.rewards.apply(second)
    taken = await revert(service, second)
    assert (taken.counter_value, taken.level, taken.level_lowered) == (2, 1, True)
    assert taken.nft_id == applied.nft_id
    assert standing(nft, ada) == [({"quests": 2}, 1, 0, 1, {"name": "Explorer I"})]
    await revert(service, first)
    assert standing(nft, ada) == [({"quests": 0}, 0, 0, 0, {})]
    with pytest.raises(LevelTakenBack):
        await service.requests.request(key(), ada, applied.nft_id, CONNECT)
    again = await service.rewards.apply(reward(ada, 3))
    assert (again.nft_id, again.level) == (applied.nft_id, 2)
    ((before, after, nft_id),) = nft.query(
        "SELECT before, after, nft_id::text FROM nft_audit_log"
        " WHERE user_id = %s AND action = 'reward.revert' ORDER BY entry_id LIMIT 1",
        ada,
    )
    assert before == {"counter": "quests", "value": 6, "level": 3}
    assert after == {"counter": "quests", "value": 2, "level": 1}
    assert nft_id == applied.nft_id


async def test_a_reward_is_taken_back_once_whoever_asks_how_often(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    kept, taken = reward(ada, 1), reward(ada, 1)
    await service.rewards.apply_many([kept, taken])
    async with replica(nft) as other:
        answers = await asyncio.gather(
            *(
                revert((service, other)[n % 2], taken, "same" if n % 3 == 0 else None)
                for n in range(30)
            )
        )
    assert {answer.SerializeToString() for answer in answers} == {answers[0].SerializeToString()}
    assert standing(nft, ada)[0][0] == {"quests": 1}
    with pytest.raises(RequestIdReused):
        await service.reverts.revert(
            replace(key("same"), scope="connect/connect:RevertReward"), "s", "o", "", CONNECT
        )


async def test_a_tombstone_turns_the_arrival_into_a_no_op(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    late, late_badge, other = reward(ada, 3), grant(ada), reward(ada, 1)
    assert (await revert(service, late)).tombstone
    assert (await revert(service, late_badge)).tombstone
    outcomes = await service.rewards.apply_many([late, other, late_badge])
    assert [outcome.reverted for outcome in outcomes] == [True, False, True]
    assert standing(nft, ada)[0][:3] == ({"quests": 1}, 1, 0)
    assert (await service.rewards.apply(late)).reverted, "and so for ever"
    assert (await revert(service, late)).tombstone
    lines = nft.query(
        "SELECT actor, user_id, after, reference FROM nft_audit_log"
        " WHERE action = 'reward.revert' AND subject = %s",
        f"request/{late.key.request_id}",
    )
    told = {"tombstone": True, "original_request_id": late.key.request_id}
    assert lines == [("connect/connect", None, told, "reversal-1")], "said once"


@pytest.mark.parametrize("seed", range(3))
async def test_arrivals_and_reverts_race_to_one_end(
    nft: NftDatabase, service: Replica, seed: int
) -> None:
    random, ada = Random(seed), a_user()
    given = [grant(ada) if n % 5 == 0 else reward(ada, random.randint(1, 3)) for n in range(40)]
    taken = random.sample(given, 25)
    async with replica(nft) as other:
        works = [random.choice((service, other)).rewards.apply(one) for one in given]
        works += [revert(random.choice((service, other)), one) for one in taken for _ in range(2)]
        random.shuffle(works)
        await asyncio.gather(*works)
    kept = [one.reward for one in given if one not in taken]
    quests = sum(getattr(one, "increment", 0) for one in kept)
    grants = sum(not hasattr(one, "increment") for one in kept)
    level = max((rule.level for rule in EXPLORER.levels if quests >= rule.thresholds["quests"]),
                default=min(grants, 1))  # fmt: skip
    ((counters, reached, held, shown, _),) = standing(nft, ada)
    assert isinstance(counters, dict)
    assert (counters.get("quests", 0), reached, held) == (quests, level, grants), f"seed {seed}"
    assert shown in (None, level)


async def test_a_badge_is_given_without_progress_and_held_by_any_grant(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    first, second = grant(ada), grant(ada)
    outcome = await service.rewards.apply(first)
    assert (outcome.counter_value, outcome.level, outcome.level_raised) == (0, 1, True)
    assert await service.rewards.apply(first) == outcome
    again = await service.rewards.apply(second)
    assert (again.nft_id, again.level_raised) == (outcome.nft_id, False)
    assert standing(nft, ada) == [({}, 1, 2, 1, {"name": "Explorer I"})]
    assert not (await revert(service, first)).level_lowered
    lowered = await revert(service, second)
    assert (lowered.level, lowered.level_lowered) == (0, True)
    pirate = replace(grant(ada).reward, nft_type="pirate")
    with pytest.raises(UnknownNftType):
        await service.rewards.apply(replace(grant(ada), reward=pirate))
    with pytest.raises(RequestIdReused):
        await service.rewards.apply(reward(ada, request_id=first.key.request_id))


async def test_a_mint_that_nobody_took_is_called_off_with_the_last_level(
    nft: NftDatabase, service: Replica
) -> None:
    ada, bob = a_user(), a_user()
    waiting, under_way = reward(ada, 3), reward(bob, 3)
    mint_id = (await service.rewards.apply(waiting)).mint_id
    taken = await revert(service, waiting)
    assert taken.cancelled_mint_id == mint_id
    assert nft.query("SELECT state FROM nft_mint_queue WHERE user_id = %s", ada) == [
        (MintState.CANCELLED,)
    ]
    assert not nft.query("SELECT 1 FROM nft_submissions WHERE item_id = %s", mint_id)

    sent = (await service.rewards.apply(under_way)).mint_id
    await service.reports.apply([report(sent, MintState.SUBMITTED, 2)])
    assert not (await revert(service, under_way)).cancelled_mint_id
    assert nft.query("SELECT state FROM nft_mint_queue WHERE user_id = %s", bob) == [
        (MintState.SUBMITTED,)
    ]


async def test_a_level_above_newer_thresholds_stands_until_something_is_taken_back(
    service: Replica,
) -> None:
    ada = a_user()
    origin = Origin("economy-manager/ann")
    scout = replace(EXPLORER, code="scout")
    created = await service.catalog.create(key("scout"), scout, origin)
    small, large = reward(ada, 1, nft_type="scout"), reward(ada, 5, nft_type="scout")
    await service.rewards.apply_many([small, large])
    harder = replace(scout, levels=(scout.levels[0], LevelRule(2, {"quests": 50}, {}, False)))
    await service.catalog.update(key(), harder, created.etag, origin)
    assert (await service.rewards.apply(reward(ada, 1, nft_type="scout"))).level == 3
    assert (await revert(service, small)).level == 1


async def test_a_badge_is_given_and_put_on_chain_in_one_commit(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    first, second = grant(ada, mint=True), grant(ada, mint=True)
    outcome = await service.rewards.apply(first)
    assert outcome.level == 1
    assert nft.query("SELECT mint_id::text, state FROM nft_mint_queue WHERE user_id = %s", ada) == [
        (outcome.mint_id, MintState.QUEUED)
    ]
    again = await service.rewards.apply(second)
    assert (again.nft_id, again.mint_id) == (outcome.nft_id, ""), "one mint an instance"

    await service.rewards.apply(reward(ada, 1))
    for given in (second, first):
        kept = await revert(service, given)
        assert (kept.level, kept.cancelled_mint_id) == (1, ""), "progress holds the badge"

    hidden = replace(EXPLORER, code="hidden", onchain_policy=OnchainPolicy.NONE)
    await service.catalog.create(key("hidden"), hidden, Origin("economy-manager/ann"))
    refused = grant(ada, mint=True)
    with pytest.raises(MintingNotOffered):
        await service.rewards.apply(
            replace(refused, reward=replace(refused.reward, nft_type="hidden"))
        )
