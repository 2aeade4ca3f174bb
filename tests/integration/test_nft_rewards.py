"""Rewards on a real Postgres: once, for the right ones, under contention."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from devstack.postgres import Cluster
from mesh.errors import RequestIdReused, Unstorable
from nft_svc.audit import Origin
from nft_svc.definitions import LevelRule
from nft_svc.errors import (
    CounterOverflow,
    EtagMismatch,
    NftTypeExists,
    UnknownCounter,
    UnknownNftType,
)
from nft_svc.mints import MintState
from nft_svc.progress import MAX_COUNTER
from tests.integration.nft_service import (
    EXPLORER,
    NftDatabase,
    Replica,
    a_user,
    key,
    migrated,
    replica,
    report,
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


async def test_a_reward_raises_the_level_and_creates_the_instance(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    outcome = await service.rewards.apply(reward(ada))
    assert (outcome.counter_value, outcome.level, outcome.level_raised) == (1, 1, True)
    assert not outcome.mint_id
    rows = nft.query(
        "SELECT nft_id::text, level, metadata FROM nft_instances WHERE user_id=%s", ada
    )
    assert rows == [(outcome.nft_id, 1, {"name": "Explorer I"})]


async def test_a_rise_past_the_auto_mint_level_queues_one_mint_for_ever(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    outcomes = [await service.rewards.apply(reward(ada, step)) for step in (2, 1, 1, 2, 9)]
    assert [outcome.level for outcome in outcomes] == [1, 2, 2, 3, 3]
    assert [bool(outcome.mint_id) for outcome in outcomes] == [False, True, False, False, False]
    ((mint_id, content),) = nft.query(
        "SELECT mint_id::text, content FROM nft_mint_queue WHERE user_id = %s", ada
    )
    assert mint_id == outcomes[1].mint_id
    assert content["name"] == "Explorer II", "content is frozen at the level that queued the mint"
    assert content["attributes"] == [["level", "2"]]
    (queued,) = nft.query("SELECT count(*) FROM nft_submissions WHERE item_id = %s", mint_id)
    assert queued == (1,)


async def test_a_failed_mint_makes_way_for_the_next_level(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    first = await service.rewards.apply(reward(ada, 3))
    await service.reports.apply([report(first.mint_id, MintState.FAILED, 2)])
    second = await service.rewards.apply(reward(ada, 3))
    assert second.mint_id
    assert second.mint_id != first.mint_id


async def test_concurrent_rewards_of_one_user_all_count(nft: NftDatabase, service: Replica) -> None:
    ada = a_user()
    async with replica(nft) as other:
        outcomes = await asyncio.gather(
            *((service, other)[n % 2].rewards.apply(reward(ada)) for n in range(60))
        )
    assert sorted(outcome.counter_value for outcome in outcomes) == list(range(1, 61))
    assert sum(outcome.level_raised for outcome in outcomes) == 3
    assert len({outcome.mint_id for outcome in outcomes if outcome.mint_id}) == 1
    assert nft.query("SELECT counters, level FROM nft_progress WHERE user_id = %s", ada) == [
        ({"quests": 60}, 3)
    ]


async def test_many_users_in_opposite_order_do_not_deadlock(
    nft: NftDatabase, service: Replica
) -> None:
    users = [a_user() for _ in range(40)]
    async with replica(nft) as other:
        results = await asyncio.gather(
            service.rewards.apply_many([reward(user) for user in users * 3]),
            other.rewards.apply_many([reward(user) for user in reversed(users * 3)]),
        )
    assert not [result for batch in results for result in batch if isinstance(result, Exception)]
    counted = nft.query("SELECT DISTINCT counters FROM nft_progress WHERE user_id = ANY(%s)", users)
    assert counted == [({"quests": 6},)]


async def test_the_same_request_fifty_times_at_once_has_one_effect(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    same = reward(ada, 3, request_id="fifty")
    async with replica(nft) as other:
        outcomes = await asyncio.gather(
            *((service, other)[n % 2].rewards.apply(same) for n in range(50))
        )
    assert {outcome.SerializeToString() for outcome in outcomes} == {
        outcomes[0].SerializeToString()
    }
    assert outcomes[0].counter_value == 3
    ((audited,),) = nft.query(
        "SELECT count(*) FROM nft_audit_log WHERE user_id = %s AND action = 'reward.apply'", ada
    )
    assert audited == 1


async def test_a_request_id_with_another_input_is_refused(service: Replica) -> None:
    ada = a_user()
    together = await service.rewards.apply_many(
        [reward(ada, 1, request_id="twice"), reward(ada, 2, request_id="twice")]
    )
    assert isinstance(together[1], RequestIdReused)
    with pytest.raises(RequestIdReused):
        await service.rewards.apply(reward(ada, 4, request_id="twice"))
    assert (await service.rewards.apply(reward(ada, 1))).counter_value == 2


async def test_what_cannot_be_applied_fails_alone(nft: NftDatabase, service: Replica) -> None:
    users = [a_user() for _ in range(5)]
    batch = [
        reward(users[0]),
        reward(users[1], counter="towns"),
        reward(users[2], nft_type="pirate"),
        reward(users[3] + "\0"),  # Postgres text holds no NUL: a poison item
        reward(users[4]),
    ]
    results = await service.rewards.apply_many(batch)
    assert [isinstance(result, Exception) for result in results] == [False, *[True] * 3, False]
    assert isinstance(results[1], UnknownCounter)
    assert results[1].metadata == {"nft_type": "explorer", "counter": "towns"}
    assert isinstance(results[2], UnknownNftType)
    assert isinstance(results[3], Unstorable)


async def test_a_refusal_leaves_no_trace_and_may_be_tried_again(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    await service.rewards.apply(reward(ada))
    nft.execute(
        "UPDATE nft_progress SET counters = jsonb_build_object('quests', %s::bigint)"
        " WHERE user_id = %s",
        MAX_COUNTER,
        ada,
    )
    again = reward(ada, request_id="overflow")
    with pytest.raises(CounterOverflow):
        await service.rewards.apply(again)
    nft.execute("UPDATE nft_progress SET counters = '{\"quests\": 1}' WHERE user_id = %s", ada)
    assert (await service.rewards.apply(again)).counter_value == 2


async def test_the_audit_log_tells_who_what_before_and_after(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    outcome = await service.rewards.apply(reward(ada, 3, request_id="audited"))
    await service.reports.apply([report(outcome.mint_id, MintState.SUBMITTED, 2)])
    rows = nft.query(
        "SELECT actor, action, subject, before, after, reference, request_id, trace_id"
        " FROM nft_audit_log WHERE user_id = %s ORDER BY entry_id",
        ada,
    )
    assert rows[0] == (
        "connect/connect",
        "reward.apply",
        "progress/explorer",
        {"counter": "quests", "value": 0, "level": 0},
        {"counter": "quests", "value": 3, "level": 2, "mint_id": outcome.mint_id},
        "event-1",
        "audited",
        "ab" * 16,
    )
    assert [row[:2] for row in rows[1:]] == [
        ("connect/connect", "mint.queue"),
        ("gateway/gateway", "mint.report"),
    ]
    ((carried,),) = nft.query(
        "SELECT traceparent FROM nft_submissions WHERE item_id = %s", outcome.mint_id
    )
    assert carried.split("-")[1] == "ab" * 16, "the order goes on in the trace of its reward"


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE nft_audit_log SET actor = 'nobody'",
        "DELETE FROM nft_audit_log",
        "DELETE FROM idempotency_keys",
        "DELETE FROM nft_mint_queue",
        "UPDATE nft_feed SET position = 0",
    ],
)
async def test_the_service_cannot_rewrite_history(nft: NftDatabase, statement: str) -> None:
    with nft.cluster.connect(nft.name) as connection:
        connection.execute("SET ROLE nft_app")
        with pytest.raises(Exception, match="permission denied"):
            connection.execute(statement.encode())


async def test_a_changed_type_counts_from_the_next_reward_on(service: Replica) -> None:
    ada = a_user()
    guide = replace(EXPLORER, code="guide")
    origin = Origin("economy-manager/ann")
    created = await service.catalog.create(key("guide"), guide, origin)
    assert (created.version, created.state) == (1, 1)
    assert (await service.rewards.apply(reward(ada, nft_type="guide"))).level == 1

    easier = replace(guide, levels=(guide.levels[0], LevelRule(2, {"quests": 2}, {}, False)))
    updated = await service.catalog.update(key("guide-2"), easier, created.etag, origin)
    assert updated.version == 2
    assert (await service.rewards.apply(reward(ada, nft_type="guide"))).level == 2

    again = await service.catalog.update(key("guide-2"), easier, created.etag, origin)
    assert again == updated, "a repeated request gets the first answer, though the etag is old"
    with pytest.raises(EtagMismatch):
        await service.catalog.update(key(), easier, created.etag, origin)
    with pytest.raises(NftTypeExists):
        await service.catalog.create(key(), guide, origin)
