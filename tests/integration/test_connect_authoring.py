"""Rule writes: versions, etags, states, request ids."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from go2asia.connect.v1 import rules_pb2

from connect_svc.catalog import CatalogCache, CatalogFollower
from connect_svc.errors import (
    EtagMismatch,
    InvalidExpression,
    InvalidRule,
    RuleExists,
    RuleNotFound,
    RuleStateForbidden,
)
from connect_svc.store import RuleStore
from devstack.postgres import Cluster
from mesh.errors import RequestIdReused
from tests.integration.connect_replica import (
    ConnectDatabase,
    Replica,
    migrated,
    replica,
    rule,
)

Rule = rules_pb2.Rule


@pytest.fixture
async def connect(postgres: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    return await migrated(postgres, make_database)


@pytest.fixture
async def one(connect: ConnectDatabase) -> AsyncIterator[Replica]:
    async with replica(connect) as one:
        yield one


def changed(current: Rule, **fields: object) -> Rule:
    copy = Rule()
    copy.CopyFrom(current)
    for name, value in fields.items():
        setattr(copy, name, value)
    return copy


async def test_versions_count_up_and_stay(connect: ConnectDatabase, one: Replica) -> None:
    first = await one.create(rule("r", display_name="first"))
    assert (first.version, first.state) == (1, Rule.STATE_ENABLED)
    second = await one.update(changed(first, display_name="second"))
    assert (second.version, second.display_name) == (2, "second")
    assert second.etag != first.etag
    async with one.database.transaction(read_only=True) as connection:
        assert await RuleStore(connection).current("r") == second
        assert await RuleStore(connection).changes(after=0, until=1) == [first]
    authors = connect.query("SELECT DISTINCT author FROM rule_versions")
    assert authors == [("economy-manager/ann",)]


async def test_a_request_is_answered_once_and_again(connect: ConnectDatabase, one: Replica) -> None:
    first = await one.create(rule("r"), "create-r")
    assert await one.create(rule("r"), "create-r") == first
    with pytest.raises(RequestIdReused):
        await one.create(rule("other"), "create-r")
    with pytest.raises(RuleExists):
        await one.create(rule("r"), "another-request")
    assert connect.count("rule_versions") == 1
    assert connect.query("SELECT version FROM rule_catalog") == [(1,)]


async def test_the_same_request_at_the_same_time_on_two_replicas(
    connect: ConnectDatabase, one: Replica
) -> None:
    async with replica(connect) as two:
        answers = await asyncio.gather(
            *(each.create(rule("r"), "create-r") for each in (one, two, one, two))
        )
    assert all(answer == answers[0] for answer in answers)
    assert connect.count("rule_versions") == 1


async def test_of_two_updates_one_wins(connect: ConnectDatabase, one: Replica) -> None:
    first = await one.create(rule("r"))
    answers = await asyncio.gather(
        *(one.update(changed(first, priority=number)) for number in (1, 2)),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers].count(EtagMismatch) == 1
    assert connect.count("rule_versions") == 2


@pytest.mark.parametrize("etag", ["", "v7", "nonsense"])
async def test_an_update_names_what_it_replaces(one: Replica, etag: str) -> None:
    first = await one.create(rule("r"))
    with pytest.raises(EtagMismatch) as refused:
        await one.update(changed(first, etag=etag))
    assert not refused.value.transient
    with pytest.raises(RuleNotFound):
        await one.update(rule("unknown"))


async def test_states_go_their_ways(one: Replica) -> None:
    current = await one.create(rule("r", state="STATE_DRAFT"))
    for state in ("ENABLED", "PAUSED", "ENABLED", "PAUSED", "ARCHIVED"):
        current = await one.update(changed(current, state=Rule.State.Value(f"STATE_{state}")))
    with pytest.raises(RuleStateForbidden) as refused:
        await one.update(changed(current, state=Rule.STATE_ENABLED))
    assert refused.value.metadata == {"from": "ARCHIVED", "to": "ENABLED"}


@pytest.mark.parametrize(
    ("old", "new"),
    [("DRAFT", "PAUSED"), ("DRAFT", "ARCHIVED"), ("ENABLED", "DRAFT"), ("ENABLED", "ARCHIVED")],
)
async def test_states_go_no_other_way(one: Replica, old: str, new: str) -> None:
    current = await one.create(rule("r", state=f"STATE_{old}"))
    with pytest.raises(RuleStateForbidden):
        await one.update(changed(current, state=Rule.State.Value(f"STATE_{new}")))


async def test_a_state_left_out_stays(one: Replica) -> None:
    current = await one.create(rule("r", state="STATE_DRAFT"))
    assert (await one.update(changed(current, state=0))).state == Rule.STATE_DRAFT


async def test_a_refused_rule_leaves_no_trace(connect: ConnectDatabase, one: Replica) -> None:
    with pytest.raises(InvalidExpression):
        await one.create(rule("r", condition="event.nope"), "create-r")
    with pytest.raises(InvalidRule, match="draft or enabled"):
        await one.create(rule("r", state="STATE_ARCHIVED"), "create-r")
    assert connect.query("SELECT version FROM rule_catalog") == [(0,)]
    assert (await one.create(rule("r"), "create-r")).version == 1


async def test_a_database_that_was_set_back_is_believed(
    postgres: Cluster, make_database: Callable[[], str], one: Replica
) -> None:
    cache = CatalogCache()
    for name in ("a", "b"):
        await one.create(rule(name))
    async with one.database.transaction(read_only=True) as connection:
        assert len((await cache.at(2, RuleStore(connection))).rules_for("quest.completed")) == 2
    async with replica(await migrated(postgres, make_database)) as restored:
        await restored.create(rule("c"))
        async with restored.database.transaction(read_only=True) as connection:
            catalogue = await cache.at(1, RuleStore(connection))
    assert [each.rule_id for each in catalogue.rules_for("quest.completed")] == ["c"]


async def test_a_rule_written_on_one_replica_is_compiled_on_the_others(
    connect: ConnectDatabase, one: Replica
) -> None:
    cache = CatalogCache()
    async with (
        replica(connect) as two,
        CatalogFollower(one.database, connect.app_url, cache),
    ):
        # The first write may come before the follower listens; then its first look finds it.
        for version, name in enumerate(("a", "b", "c"), start=1):
            await two.create(rule(name))
            for _ in range(300):  # three seconds, well before the periodic check
                if cache.version == version:
                    break
                await asyncio.sleep(0.01)
            assert cache.version == version
    async with one.database.transaction(read_only=True) as connection:
        catalogue = await cache.at(3, RuleStore(connection))
    assert [each.rule_id for each in catalogue.rules_for("quest.completed")] == ["a", "b", "c"]
