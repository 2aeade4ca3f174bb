"""Limits over mutual TLS: refused when malformed, simulated, explained, freed by a cancel."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2, reward_actions_pb2, rules_pb2

from connect_svc.errors import InvalidRule
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.errors import InvalidArgument
from mesh.testing import LoopServer
from tests.integration.connect_replica import POINTS, ConnectDatabase, event, rule
from tests.rpc.connect_callers import (
    MANAGER,
    OPERATOR,
    QUEST,
    Caller,
    add_services,
    callers,
    services_on,
)

Outcome = events_pb2.RuleOutcome
ONCE = {"window": "WINDOW_DAY", "count": 1}


@pytest.fixture(scope="module")
def grpc_add_to_server() -> Any:
    return add_services


@pytest.fixture(scope="module")
def connect(postgres: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    return ConnectDatabase(postgres, make_database())


@pytest.fixture(scope="module")
def grpc_servicer(_grpc_server: LoopServer, connect: ConnectDatabase) -> Iterator[tuple[Any, ...]]:
    with services_on(_grpc_server, connect.cluster, connect.name) as services:
        yield services


@pytest.fixture
async def act(
    grpc_server: object, grpc_addr: str, authority: Authority
) -> AsyncIterator[Callable[[str], Caller]]:
    async with callers(grpc_addr, authority) as act:
        yield act


@pytest.fixture
def quest(act: Callable[[str], Caller]) -> Caller:
    return act(QUEST)


@pytest.fixture
def manager(act: Callable[[str], Caller]) -> Caller:
    return act(MANAGER)


def now(**ago: int) -> str:
    return (datetime.now(UTC) - timedelta(**ago)).isoformat()


async def outcome(quest: Caller, event_id: str) -> events_pb2.RuleOutcome:
    story = await quest.events.GetEvent(events_pb2.GetEventRequest(event_id=event_id))
    [found] = story.evaluation.outcomes
    return found


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"caps": [ONCE | {"count": 0}]}, "rule.caps[0].count"),
        ({"caps": [ONCE | {"count": -1}]}, "rule.caps[0].count"),
        ({"caps": [{"count": 1}]}, "rule.caps[0].window"),
        ({"caps": [{"window": "WINDOW_DAY"}]}, "rule.caps[0].maximum"),
        (
            {"budgets": [{"window": "WINDOW_DAY", "amount": {"unit": "G2A", "value": -5}}]},
            "rule.budgets[0].amount.value",
        ),
        (
            {"budgets": [{"window": "WINDOW_DAY", "amount": {"value": 5}}]},
            "rule.budgets[0].amount.unit",
        ),
        ({"caps": [ONCE] * 11}, "rule.caps"),
        ({"stacking": {"stop_after": True}}, "rule.stacking.group"),
        (
            {"variants": [{"name": "a", "weight": 0}, {"name": "b", "weight": 1}]},
            "rule.variants[0].weight",
        ),
        ({"first_date": "7 June 2025"}, "rule.first_date"),
    ],
)
async def test_malformed_limits_are_refused_by_the_contract(
    manager: Caller, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await manager.create(rule("malformed", **fields))
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"time_zone": "Mars/Olympus_Mons"}, "rule.time_zone"),
        ({"last_date": "2025-02-30"}, "rule.last_date"),
        ({"caps": [ONCE, ONCE]}, "rule.caps[1]"),
        ({"variants": [{"name": "a", "weight": 1}]}, "rule.variants"),
        ({"actions": [POINTS | {"variant": "b"}]}, "rule.actions[0].variant"),
    ],
)
async def test_limits_that_contradict_the_rule_are_refused_by_connect(
    manager: Caller, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRule) as refused:
        await manager.create(rule("contradiction", **fields))
    assert refused.value.field == field


async def test_a_reached_cap_is_told_simulated_and_freed_by_a_cancel(
    connect: ConnectDatabase, act: Callable[[str], Caller], quest: Caller, manager: Caller
) -> None:
    await manager.create(rule("capped", "cap.tried", caps=[ONCE]))
    sent = {"event_type": "cap.tried", "occurred_time": now()}
    simulate = rules_pb2.SimulateEventRequest(event=event(**sent))

    before = await manager.rules.SimulateEvent(simulate)
    assert before.explanations[0].outcome.result == Outcome.RESULT_MATCHED
    assert connect.count("limit_counters") == connect.count("limit_charges") == 0

    first = await quest.submit(event(**sent))
    second = await quest.submit(event(**sent))
    told = await outcome(quest, second.event_id)
    assert told.result == Outcome.RESULT_CAP_REACHED
    assert told.detail.startswith("User ada has 1 of 1 matches of the day ")
    request = events_pb2.ExplainEventRequest(event_id=second.event_id, rule_id="capped")
    assert (await quest.events.ExplainEvent(request)).explanation.outcome == told
    after = await manager.rules.SimulateEvent(simulate)
    assert after.explanations[0].outcome == told
    assert not after.actions

    cancel = reward_actions_pb2.CancelRewardActionRequest(
        request_id="cancel-capped", action_id=first.action_ids[0]
    )
    for _ in range(2):
        await act(OPERATOR).actions.CancelRewardAction(cancel)
    freed = await manager.rules.SimulateEvent(simulate)
    assert freed.explanations[0].outcome.result == Outcome.RESULT_MATCHED
    assert connect.query("SELECT used FROM limit_counters") == [(0,)]
    assert len((await quest.submit(event(**sent))).action_ids) == 1
    assert not (await quest.submit(event(**sent))).action_ids


async def test_a_capped_rule_frees_its_place_for_the_next_of_its_group(
    manager: Caller, quest: Caller
) -> None:
    stop = {"group": "offers", "stop_after": True}
    await manager.create(rule("best", "offer.made", priority=1, stacking=stop, caps=[ONCE]))
    await manager.create(rule("next", "offer.made", stacking=stop))
    results = []
    for _ in range(2):
        receipt = await quest.submit(event(event_type="offer.made", occurred_time=now()))
        request = events_pb2.GetEventRequest(event_id=receipt.event_id)
        story = await quest.events.GetEvent(request)
        results.append([Outcome.Result.Name(o.result) for o in story.evaluation.outcomes])
    assert results == [
        ["RESULT_MATCHED", "RESULT_STACKED_OUT"],
        ["RESULT_CAP_REACHED", "RESULT_MATCHED"],
    ]


async def test_an_event_reported_weeks_later_is_too_late_for_a_daily_budget(
    manager: Caller, quest: Caller
) -> None:
    await manager.create(rule("punctual", "report.sent", budgets=[ONCE]))
    late = await quest.submit(event(event_type="report.sent", occurred_time=now(days=9)))
    in_time = await quest.submit(event(event_type="report.sent", occurred_time=now(days=6)))
    assert (await outcome(quest, late.event_id)).result == Outcome.RESULT_TOO_LATE
    assert (await outcome(quest, in_time.event_id)).result == Outcome.RESULT_MATCHED


async def test_a_variant_is_foretold_recorded_and_told(
    connect: ConnectDatabase, manager: Caller, quest: Caller
) -> None:
    shares = [{"name": "low", "weight": 1}, {"name": "high", "weight": 1}]
    actions = [
        POINTS | {"variant": "low"},
        POINTS | {"variant": "high", "credit_points": {"unit": "G2A", "amount": "20"}},
    ]
    await manager.create(rule("tested", "ab.tested", variants=shares, actions=actions))
    found = set()
    for user in ("ada", "bob", "cy", "dan", "eve", "fay", "gus", "hal"):
        sent = event(event_type="ab.tested", actor_user_id=user)
        foretold = await manager.rules.SimulateEvent(rules_pb2.SimulateEventRequest(event=sent))
        assert connect.count("variant_assignments") == len(found)
        receipt = await quest.submit(sent)
        story = await quest.events.GetEvent(events_pb2.GetEventRequest(event_id=receipt.event_id))
        [action], [told] = story.actions, story.evaluation.outcomes
        assert action.variant == told.variant == foretold.actions[0].variant
        assert action.credit_points == foretold.actions[0].credit_points
        assert action.credit_points.amount == {"low": 10, "high": 20}[action.variant]
        found.add((user, action.variant))
    assert {variant for _, variant in found} == {"low", "high"}
