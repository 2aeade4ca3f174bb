"""Events taken back over mutual TLS: once, whatever state their actions are in, also too early."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2, reward_actions_pb2

from connect_svc.errors import ActionStateForbidden, EventNotFound, ExternalIdReused, SourceNotOwned
from connect_svc.lanes import POINTS, POINTS_REVERSALS, QUEUE
from connect_svc.records import ReversalVerdict, State, Verdict
from connect_svc.store import ActionStore
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.db import Database
from mesh.errors import InvalidArgument, RequestIdReused
from mesh.outbox import Claim, Dead, Done, Outcome, Retry
from mesh.testing import LoopServer
from tests.integration.connect_replica import POINTS as TEN_POINTS
from tests.integration.connect_replica import ConnectDatabase, event, rule
from tests.rpc.connect_callers import (
    MANAGER,
    OPERATOR,
    QUEST,
    Caller,
    add_services,
    callers,
    services_on,
)

RewardAction = reward_actions_pb2.RewardAction
SPARE = {"key": "spare", "credit_points": {"unit": "XP", "amount": "1"}}


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
async def database(connect: ConnectDatabase) -> AsyncIterator[Database]:
    async with Database(connect.app_url, application_name="connect-test") as database:
        yield database


async def claim(database: Database, lane: str, *action_ids: str) -> list[Claim]:
    """Claims as a worker does; what other tests left is left to them."""
    found = await database.run(lambda c: QUEUE.claim(c, lane, 1_000))
    return [each for each in found if each.item_id in action_ids]


async def settle(database: Database, claim: Claim, outcome: Outcome, verdict: Any) -> bool:
    """Settles as a worker does; False when the claim was stale."""

    async def work(connection: Any) -> bool:
        if not await QUEUE.settle(connection, [(claim, outcome)]):
            return False
        store = ActionStore(connection)
        if isinstance(verdict, Verdict):
            await store.settle([verdict])
        else:
            await store.settle_reversals([verdict])
        return True

    return await database.run(work)


def request(
    event: events_pb2.Event | str, request_id: str, reason: str = "It was fraud."
) -> events_pb2.ReverseEventRequest:
    made = events_pb2.ReverseEventRequest(request_id=request_id, reason=reason)
    if isinstance(event, str):
        made.event_id = event
    else:
        made.external_key.source = event.source
        made.external_key.external_id = event.external_id
    return made


async def states(caller: Caller, event_id: str) -> list[str]:
    story = await caller.events.GetEvent(events_pb2.GetEventRequest(event_id=event_id))
    return [RewardAction.State.Name(each.state).removeprefix("STATE_") for each in story.actions]


async def test_each_action_goes_back_from_where_it_was(
    act: Callable[[str], Caller], database: Database, connect: ConnectDatabase
) -> None:
    actions = [
        {"key": key, "credit_points": {"unit": "G2A", "amount": "10"}}
        for key in ("completed", "failed", "in-flight", "tried")
    ]
    badge = {"key": "waiting", "grant_nft": {"nft_type": "explorer"}}
    await act(MANAGER).create(rule("every-state", "every.state", actions=[*actions, badge]))
    receipt = await act(QUEST).submit(event(event_type="every.state"))
    completed, failed, in_flight, tried, waiting = receipt.action_ids
    claims = {c.item_id: c for c in await claim(database, POINTS, *receipt.action_ids)}
    won = Verdict(completed, State.COMPLETED, 1, result="transaction")
    assert await settle(database, claims[completed], Done("transaction"), won)
    lost = Verdict(failed, State.FAILED, 1, last_error="refused")
    assert await settle(database, claims[failed], Dead("refused"), lost)
    later = Verdict(tried, State.PENDING, 1, last_error="later")
    assert await settle(database, claims[tried], Retry("later"), later)

    answer = await act(OPERATOR).events.ReverseEvent(request(receipt.event_id, "every-state"))
    assert (answer.reversal.reason, answer.reversal.author) == ("It was fraud.", OPERATOR)
    back = ["REVERSING"] * 4
    assert await states(act(QUEST), receipt.event_id) == [*back, "CANCELLED"]
    assert [each.state for each in answer.actions] == [
        *[RewardAction.STATE_REVERSING] * 4,
        RewardAction.STATE_CANCELLED,
    ]
    assert await claim(database, POINTS, *receipt.action_ids) == []
    late = Verdict(in_flight, State.COMPLETED, 1, result="late")
    assert not await settle(database, claims[in_flight], Done("late"), late), "counts no more"
    assert connect.query("SELECT 1 FROM reward_queue WHERE item_id = %s", waiting) == []

    returning = await claim(database, POINTS_REVERSALS, *receipt.action_ids)
    assert {each.item_id for each in returning} == {completed, failed, in_flight, tried}
    for each in returning:
        assert RewardAction.FromString(each.payload).credit_points.amount == 10
        verdict = ReversalVerdict(each.item_id, State.REVERSED, result="reversal")
        assert await settle(database, each, Done("reversal"), verdict)
    assert await states(act(QUEST), receipt.event_id) == [*["REVERSED"] * 4, "CANCELLED"]
    story = await act(QUEST).events.GetEvent(events_pb2.GetEventRequest(event_id=receipt.event_id))
    assert (story.actions[0].result, story.actions[0].reversal_result) == (
        "transaction",
        "reversal",
    )
    assert story.actions[1].last_error == "refused"
    assert story.reversal == answer.reversal


async def test_an_event_is_taken_back_once_whoever_asks(act: Callable[[str], Caller]) -> None:
    await act(MANAGER).create(rule("once", "once.told", actions=[TEN_POINTS, SPARE]))
    sent = event(event_type="once.told")
    receipt = await act(QUEST).submit(sent)
    ways: list[tuple[str, events_pb2.Event | str]] = [
        (OPERATOR, receipt.event_id),
        (QUEST, sent),
        (MANAGER, receipt.event_id),
    ]
    asked = [
        act(caller).events.ReverseEvent(request(which, f"once-{n % 3}", f"reason {n % 3}"))
        for n, (caller, which) in enumerate(ways * 4)
    ]
    answers = await asyncio.gather(*asked)
    assert len({answer.reversal.SerializeToString() for answer in answers}) == 1
    assert await states(act(QUEST), receipt.event_id) == ["CANCELLED", "CANCELLED"]
    with pytest.raises(RequestIdReused):
        await act(OPERATOR).events.ReverseEvent(request(receipt.event_id, "once-0", "another"))
    again = await act(QUEST).submit(sent)
    assert (again.duplicate, again.reversed) == (True, False)
    assert again.action_ids == receipt.action_ids, "the first answer, for ever"


async def test_a_reversal_that_is_there_first_turns_the_event_into_nothing(
    act: Callable[[str], Caller], connect: ConnectDatabase
) -> None:
    await act(MANAGER).create(rule("late", "late.told"))
    sent = event(event_type="late.told")
    answer = await act(QUEST).events.ReverseEvent(request(sent, "too-early"))
    assert answer.reversal.before_arrival
    assert list(answer.actions) == []
    key = events_pb2.ExternalKey(source=sent.source, external_id=sent.external_id)
    with pytest.raises(EventNotFound):
        await act(QUEST).events.GetEvent(events_pb2.GetEventRequest(external_key=key))

    receipts = await asyncio.gather(*(act(QUEST).submit(sent) for _ in range(5)))
    assert {receipt.event_id for receipt in receipts} == {answer.reversal.event_id}
    assert [receipt.duplicate for receipt in receipts].count(False) == 1
    assert all(receipt.reversed and not receipt.action_ids for receipt in receipts)
    other = event(event_type="late.told", external_id=sent.external_id, actor_user_id="bob")
    with pytest.raises(ExternalIdReused):
        await act(QUEST).submit(other)

    story = await act(QUEST).events.GetEvent(events_pb2.GetEventRequest(external_key=key))
    assert (story.event.actor_user_id, story.reversal) == ("ada", answer.reversal)
    assert list(story.actions) == []
    explained = await act(QUEST).events.ExplainEvent(
        events_pb2.ExplainEventRequest(external_key=key, rule_id="late")
    )
    assert explained.explanation.outcome.result == events_pb2.RuleOutcome.RESULT_EVENT_REVERSED
    assert connect.query(
        "SELECT count(*) FROM event_reversals WHERE event_id = %s", answer.reversal.event_id
    ) == [(1,)]


async def test_arrival_and_reversal_race_to_nothing(act: Callable[[str], Caller]) -> None:
    await act(MANAGER).create(rule("racing", "racing.told"))
    for number in range(20):
        sent = event(event_type="racing.told")
        receipt, answer = await asyncio.gather(
            act(QUEST).submit(sent),
            act(OPERATOR).events.ReverseEvent(request(sent, f"racing-{number}")),
        )
        assert answer.reversal.event_id == receipt.event_id
        assert answer.reversal.before_arrival == receipt.reversed
        assert await states(act(QUEST), receipt.event_id) == ["CANCELLED"] * len(receipt.action_ids)


async def test_what_could_not_be_taken_back_is_said_and_tried_again_when_asked(
    act: Callable[[str], Caller], database: Database
) -> None:
    await act(MANAGER).create(rule("stuck", "stuck.told"))
    receipt = await act(QUEST).submit(event(event_type="stuck.told"))
    [action_id] = receipt.action_ids
    await claim(database, POINTS, action_id)
    await act(OPERATOR).events.ReverseEvent(request(receipt.event_id, "stuck"))
    [back] = await claim(database, POINTS_REVERSALS, action_id)
    failed = ReversalVerdict(action_id, State.REVERSAL_FAILED, "NOT_REVERSIBLE: no.")
    assert await settle(database, back, Dead("NOT_REVERSIBLE: no."), failed)
    story = await act(QUEST).events.GetEvent(events_pb2.GetEventRequest(event_id=receipt.event_id))
    assert story.actions[0].reversal_error == "NOT_REVERSIBLE: no."

    retry = reward_actions_pb2.RetryRewardActionRequest(request_id="stuck", action_id=action_id)
    again = (await act(OPERATOR).actions.RetryRewardAction(retry)).action
    assert again.state == RewardAction.STATE_REVERSING
    cancel = reward_actions_pb2.CancelRewardActionRequest(request_id="stuck", action_id=action_id)
    with pytest.raises(ActionStateForbidden):
        await act(OPERATOR).actions.CancelRewardAction(cancel)
    counts = await act(OPERATOR).actions.CountRewardActions(
        reward_actions_pb2.CountRewardActionsRequest()
    )
    assert counts.reversing >= 1
    [back] = await claim(database, POINTS_REVERSALS, action_id)
    assert back.attempts == 1


async def test_who_may_take_back_what(act: Callable[[str], Caller]) -> None:
    unknown = "01890a5d-ac96-774b-bcce-b302099a8057"
    with pytest.raises(EventNotFound):
        await act(OPERATOR).events.ReverseEvent(request(unknown, "who-1"))
    foreign = event(source="booking")
    with pytest.raises(SourceNotOwned):
        await act(QUEST).events.ReverseEvent(request(foreign, "who-2"))
    receipt = await act(OPERATOR).submit(foreign)
    with pytest.raises(SourceNotOwned):
        await act(QUEST).events.ReverseEvent(request(receipt.event_id, "who-2"))
    for bad in (
        request(unknown, ""),
        request(unknown, "who-3", reason=""),
        events_pb2.ReverseEventRequest(request_id="who-4", reason="x"),
        request(events_pb2.Event(source="quest", external_id="a b"), "who-5"),
    ):
        with pytest.raises(InvalidArgument):
            await act(OPERATOR).events.ReverseEvent(bad)


async def test_what_is_taken_back_counts_no_more_once(act: Callable[[str], Caller]) -> None:
    budget = {"window": "WINDOW_CAMPAIGN", "count": "2"}
    await act(MANAGER).create(rule("scarce", "scarce.told", budgets=[budget]))
    first, second, third, fourth, fifth = (event(event_type="scarce.told") for _ in range(5))
    given = [len((await act(QUEST).submit(one)).action_ids) for one in (first, second, third)]
    assert given == [1, 1, 0]
    for number in range(3):
        await act(OPERATOR).events.ReverseEvent(request(first, f"scarce-{number}"))
    given = [len((await act(QUEST).submit(one)).action_ids) for one in (fourth, fifth)]
    assert given == [1, 0]
