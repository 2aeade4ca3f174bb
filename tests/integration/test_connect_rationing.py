"""Limits hold among replicas, refunds free exactly what was charged, variants stick."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from go2asia.connect.v1 import rules_pb2

from connect_svc.limits import Counter
from connect_svc.normalization import Submission
from connect_svc.operating import cancel_action
from connect_svc.records import Receipt
from connect_svc.store import LimitStore
from devstack.postgres import Cluster
from mesh.idempotency import Key
from tests.integration.connect_replica import (
    POINTS,
    ConnectDatabase,
    Replica,
    migrated,
    replica,
    rule,
    submission,
)

DAY = {"window": "WINDOW_DAY", "count": 1}


@pytest.fixture
async def connect(postgres: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    return await migrated(postgres, make_database)


@pytest.fixture
async def one(connect: ConnectDatabase) -> AsyncIterator[Replica]:
    async with replica(connect) as one:
        yield one


def now() -> str:
    return datetime.now(UTC).isoformat()


def sent(user: str = "ada", **fields: Any) -> Submission:
    return submission(**{"actor_user_id": user, "occurred_time": now()} | fields)


def audit(connect: ConnectDatabase) -> None:
    """Every counter is what the charges that stand come to."""
    counters = connect.query(
        "SELECT rule_id, user_id, window_name, unit, used FROM limit_counters WHERE used <> 0"
    )
    charges = connect.query(
        "SELECT rule_id, user_id, window_name, unit,"
        " CASE unit WHEN '' THEN count(DISTINCT event_id) ELSE sum(amount) END"
        " FROM limit_charges WHERE refund_time IS NULL GROUP BY 1, 2, 3, 4"
    )
    assert sorted(counters) == sorted(charges)


async def test_a_budget_of_100_under_1000_events_through_two_replicas_gives_100_rewards(
    connect: ConnectDatabase, one: Replica
) -> None:
    budget = {"window": "WINDOW_CAMPAIGN", "count": 100}
    points = {"window": "WINDOW_DAY", "amount": {"unit": "G2A", "value": 5_000}}
    await one.create(rule("hundred", budgets=[budget, points]))
    async with replica(connect) as two:
        receipts = await asyncio.gather(
            *((one, two)[n % 2].intake.submit(sent(f"user-{n}")) for n in range(1_000))
        )
    assert sum(len(receipt.action_ids) for receipt in receipts) == 100
    assert connect.count("reward_actions") == connect.count("reward_queue") == 100
    results = connect.query(
        "SELECT outcomes -> 0 ->> 'result', count(*) FROM evaluations GROUP BY 1 ORDER BY 1"
    )
    assert results == [("BUDGET_SPENT", 900), ("MATCHED", 100)]
    audit(connect)


async def test_a_cap_of_3_under_1000_events_of_ten_users_gives_each_3_rewards(
    connect: ConnectDatabase, one: Replica
) -> None:
    await one.create(rule("three", caps=[{"window": "WINDOW_WEEK", "count": 3}]))
    async with replica(connect) as two:
        await asyncio.gather(
            *((one, two)[n % 2].intake.submit(sent(f"user-{n % 10}")) for n in range(1_000))
        )
    per_user = connect.query("SELECT recipient_user_id, count(*) FROM reward_actions GROUP BY 1")
    assert sorted(per_user) == [(f"user-{n}", 3) for n in range(10)]
    audit(connect)


async def test_whoever_needs_a_counter_that_is_being_charged_waits_and_finds_it_spent(
    connect: ConnectDatabase, one: Replica
) -> None:
    await one.create(rule("two", budgets=[{"window": "WINDOW_CAMPAIGN", "count": 2}]))
    await one.intake.submit(sent())
    counter = Counter("two", "", "campaign", "")
    async with replica(connect) as two:
        async with one.database.transaction() as connection:
            store = LimitStore(connection)
            assert await store.lock([counter]) == {counter: 1}
            waiting = asyncio.create_task(two.intake.submit(sent()))
            done, _ = await asyncio.wait([waiting], timeout=0.5)
            assert not done
            await store.charge({counter: 1}, {})
        assert (await waiting).action_ids == ()
    assert connect.query("SELECT used FROM limit_counters") == [(2,)]


async def test_batches_that_share_counters_in_any_order_do_not_deadlock(
    connect: ConnectDatabase, one: Replica
) -> None:
    """The same few users, many rules and windows, refunds in between, no transaction given up."""
    chance = Random(4)
    for number in range(6):
        cap = {"window": "WINDOW_DAY", "count": 5 + number}
        await one.create(rule(f"rule-{number}", caps=[cap], budgets=[cap | {"count": 30}]))
    days = [(datetime.now(UTC) - timedelta(days=n)).isoformat() for n in range(3)]

    async def send(sender: Replica) -> Receipt:
        user, day = f"user-{chance.randrange(6)}", chance.choice(days)
        return await sender.intake.submit(sent(user, occurred_time=day))

    async def refund(sender: Replica, event_id: str) -> None:
        await sender.database.run(lambda c: LimitStore(c).refund(event_id))

    async with replica(connect) as two:
        for _ in range(4):
            receipts = await asyncio.gather(*(send((one, two)[n % 2]) for n in range(100)))
            await asyncio.gather(
                *(send((one, two)[n % 2]) for n in range(40)),
                *(refund((one, two)[n % 2], r.event_id) for n, r in enumerate(receipts[:30])),
            )
    audit(connect)
    for limit, user in ((30, "user_id = ''"), (10, "user_id <> ''")):
        [(most,)] = connect.query(f"SELECT max(used) FROM limit_counters WHERE {user}")
        assert 0 < most <= limit
    [(deadlocks,)] = connect.query(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert deadlocks == 0


async def cancel(one: Replica, action_id: str) -> None:
    key = Key("operator/ops:CancelRewardAction", f"cancel-{action_id}", b"")
    await cancel_action(one.database, key, action_id)


async def test_a_cancelled_reward_frees_the_window_that_it_was_charged_to(
    connect: ConnectDatabase, one: Replica
) -> None:
    created = await one.create(rule("daily", caps=[DAY]))
    yesterday = (datetime.now(UTC) - timedelta(days=1)).isoformat()
    old = await one.intake.submit(sent(occurred_time=yesterday))
    new = await one.intake.submit(sent())
    assert (await one.intake.submit(sent())).action_ids == ()

    # Under another zone the same moment may be another day: what counts is what was charged.
    created.time_zone = "Pacific/Kiritimati"
    await one.update(created)
    await cancel(one, old.action_ids[0])
    used = connect.query("SELECT window_name, used FROM limit_counters ORDER BY 1 LIMIT 2")
    assert [count for _, count in used] == [0, 1]
    await cancel(one, new.action_ids[0])
    await cancel(one, new.action_ids[0])
    audit(connect)


async def test_a_match_is_refunded_with_its_last_action(
    connect: ConnectDatabase, one: Replica
) -> None:
    more = {"key": "more", "credit_points": {"unit": "G2A", "amount": "5"}}
    amount = {"window": "WINDOW_DAY", "amount": {"unit": "G2A", "value": 15}}
    await one.create(rule("pair", actions=[POINTS, more], caps=[DAY], budgets=[amount]))
    receipt = await one.intake.submit(sent())

    async def used() -> list[int]:
        rows = connect.query("SELECT used FROM limit_counters ORDER BY unit")
        return [count for (count,) in rows]

    assert await used() == [1, 15]
    await cancel(one, receipt.action_ids[0])
    assert await used() == [1, 5]
    await cancel(one, receipt.action_ids[1])
    assert await used() == [0, 0]
    assert len((await one.intake.submit(sent())).action_ids) == 2


async def test_an_event_is_refunded_once_however_often_and_at_once(
    connect: ConnectDatabase, one: Replica
) -> None:
    await one.create(rule("a", caps=[DAY], budgets=[DAY | {"count": 9}]))
    await one.create(rule("b", budgets=[DAY]))
    await one.create(rule("free"))
    receipt = await one.intake.submit(sent())
    await asyncio.gather(
        *(one.database.run(lambda c: LimitStore(c).refund(receipt.event_id)) for _ in range(6))
    )
    assert connect.query("SELECT DISTINCT used FROM limit_counters") == [(0,)]
    audit(connect)
    assert len((await one.intake.submit(sent())).action_ids) == 3


async def test_what_has_no_limit_asks_the_database_nothing(connect: ConnectDatabase) -> None:
    scans = (
        "SELECT sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0))::int FROM pg_stat_user_tables"
        " WHERE relname IN ('limit_counters', 'limit_charges', 'variant_assignments')"
    )
    [(made,)] = connect.query(scans)  # a session reports its counts when it ends
    async with replica(connect) as one:
        await one.create(rule("free"))
        await one.create(rule("limited", condition="event.actor_user_id == 'bob'", caps=[DAY]))
        await one.create(rule("stopping", stacking={"group": "g", "stop_after": True}))
        assert len((await one.intake.submit(sent("ada"))).action_ids) == 2
    [(before,)] = connect.query(scans)
    async with replica(connect) as one:
        assert len((await one.intake.submit(sent("bob"))).action_ids) == 3
    [(after,)] = connect.query(scans)
    assert made == before < after


def split(**fields: Any) -> rules_pb2.Rule:
    variants = [{"name": "low", "weight": 1}, {"name": "high", "weight": 1}]
    actions = [
        POINTS | {"variant": "low"},
        {"key": "points", "credit_points": {"unit": "G2A", "amount": "20"}, "variant": "high"},
    ]
    return rule("tested", **{"variants": variants, "actions": actions} | fields)


async def variants_given(
    connect: ConnectDatabase, senders: tuple[Replica, ...]
) -> dict[str, tuple[str, int]]:
    """What twenty users, each through all senders at once, were given last."""
    receipts = await asyncio.gather(
        *(each.intake.submit(sent(f"user-{n}")) for n in range(20) for each in senders)
    )
    events = [receipt.event_id for receipt in receipts]
    rows = connect.query(
        "SELECT DISTINCT recipient_user_id, variant, (command ->> 'amount')::int"
        " FROM reward_actions WHERE event_id = ANY (%s::uuid[])",
        events,
    )
    assert len(rows) == 20
    return {user: (variant, amount) for user, variant, amount in rows}


async def test_a_user_keeps_the_variant_when_weights_change_and_on_every_replica(
    connect: ConnectDatabase, one: Replica
) -> None:
    created = await one.create(split())
    async with replica(connect) as two:
        first = await variants_given(connect, (one, two))
        assert set(first.values()) == {("low", 10), ("high", 20)}
        created.variants[0].weight = 1_000_000
        created.variants.reverse()
        changed = await one.update(created)
        assert await variants_given(connect, (two, one)) == first

        del changed.variants[:]
        changed.MergeFrom(split(variants=[{"name": "low", "weight": 1}], actions=[]))
        changed.variants.add(name="huge", weight=1)
        changed.actions[1].variant = "huge"
        await one.update(changed)
        third = await variants_given(connect, (one, two))
    kept = {user for user, (variant, _) in first.items() if variant == "low"}
    assert all(third[user] == ("low", 10) for user in kept)
    assert {variant for variant, _ in third.values()} == {"low", "huge"}
    assert connect.count("variant_assignments") == 20
