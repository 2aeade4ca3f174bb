"""Operators send failed actions again and take back unsent ones, over mutual TLS."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from go2asia.connect.v1 import reward_actions_pb2 as pb

from connect_svc import operating
from connect_svc.errors import ActionNotFound, ActionStateForbidden
from connect_svc.lanes import POINTS, QUEUE
from connect_svc.records import State, Verdict
from connect_svc.store import ActionStore
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.db import Database
from mesh.errors import InvalidArgument, PermissionDenied, RequestIdReused
from mesh.outbox import Claim, Dead
from mesh.testing import LoopServer
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

RewardAction = pb.RewardAction


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


@pytest.fixture
def operator(act: Callable[[str], Caller]) -> Caller:
    return act(OPERATOR)


@pytest.fixture
async def database(connect: ConnectDatabase) -> AsyncIterator[Database]:
    async with Database(connect.app_url, application_name="dispatcher") as database:
        yield database


async def claim_all(database: Database) -> list[Claim]:
    return await database.run(lambda connection: QUEUE.claim(connection, POINTS, 10_000))


async def fail_all(database: Database) -> list[str]:
    """What a dispatcher does when its target refuses everything; returns what it sent."""
    claims = await claim_all(database)
    async with database.transaction() as connection:
        await QUEUE.settle(connection, [(claim, Dead("NO")) for claim in claims])
        verdicts = [Verdict(claim.item_id, State.FAILED, 1, "NO") for claim in claims]
        await ActionStore(connection).settle(verdicts)
    return [claim.item_id for claim in claims]


async def action_of(quest: Caller, event_type: str, user: str = "ada") -> str:
    receipt = await quest.submit(event(event_type=event_type, actor_user_id=user))
    [action_id] = receipt.action_ids
    return action_id


def retry(action_id: str, request_id: str) -> pb.RetryRewardActionRequest:
    return pb.RetryRewardActionRequest(request_id=request_id, action_id=action_id)


def cancel(action_id: str, request_id: str) -> pb.CancelRewardActionRequest:
    return pb.CancelRewardActionRequest(request_id=request_id, action_id=action_id)


async def test_a_retry_puts_a_failed_action_back_in_line_once(
    manager: Caller, quest: Caller, operator: Caller, database: Database
) -> None:
    await manager.create(rule("retried", "retry.asked"))
    action_id = await action_of(quest, "retry.asked")
    with pytest.raises(ActionStateForbidden) as refused:
        await operator.actions.RetryRewardAction(retry(action_id, "too-early"))
    assert refused.value.metadata == {"state": "PENDING"}
    await fail_all(database)
    request = retry(action_id, "retry-once")
    answers = await asyncio.gather(*(operator.actions.RetryRewardAction(request) for _ in range(8)))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0].action.state == RewardAction.STATE_PENDING
    assert [claim.item_id for claim in await claim_all(database)] == [action_id]
    with pytest.raises(RequestIdReused):
        await operator.actions.RetryRewardAction(
            retry("01890a5d-ac96-774b-bcce-b302099a8057", "retry-once")
        )


async def test_many_are_retried_by_rule_and_recipient(
    manager: Caller, quest: Caller, operator: Caller, database: Database
) -> None:
    await manager.create(rule("bulk-a", "bulk.a"))
    await manager.create(rule("bulk-b", "bulk.b"))
    for user in ("ada", "ada", "bob"):
        await action_of(quest, "bulk.a", user)
    await action_of(quest, "bulk.b", "ada")
    await fail_all(database)
    request = pb.RetryRewardActionsRequest(
        request_id="bulk", rule_id="bulk-a", recipient_user_id="ada"
    )
    answers = await asyncio.gather(
        *(operator.actions.RetryRewardActions(request) for _ in range(4))
    )
    assert {(answer.retried, answer.more) for answer in answers} == {(2, False)}
    assert len(await claim_all(database)) == 2
    rest = await operator.actions.RetryRewardActions(
        pb.RetryRewardActionsRequest(request_id="the-rest")
    )
    assert rest.retried == 2
    assert len(await claim_all(database)) == 2


async def test_what_fails_again_gives_way_to_what_failed_longer_ago(
    manager: Caller,
    quest: Caller,
    operator: Caller,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operating, "MAX_RETRIED", 2)
    await manager.create(rule("often", "often.failed"))
    ids = [await action_of(quest, "often.failed") for _ in range(3)]
    await fail_all(database)
    reached = []
    for number in range(2):
        answer = await operator.actions.RetryRewardActions(
            pb.RetryRewardActionsRequest(request_id=f"often-{number}", rule_id="often")
        )
        assert (answer.retried, answer.more) == (2, True)
        reached += await fail_all(database)
    assert set(reached) == set(ids)


async def test_capitals_in_an_id_change_nothing(
    connect: ConnectDatabase, manager: Caller, quest: Caller, operator: Caller, database: Database
) -> None:
    cap = {"window": "WINDOW_CAMPAIGN", "count": 1}
    await manager.create(rule("capitals", "capitals.sent", caps=[cap]))
    action_id = await action_of(quest, "capitals.sent")
    await fail_all(database)
    await operator.actions.RetryRewardAction(retry(action_id.upper(), "retry-capitals"))
    assert [claim.item_id for claim in await claim_all(database)] == [action_id]
    other = await action_of(quest, "capitals.sent", "bob")
    found = await operator.actions.CancelRewardAction(cancel(other.upper(), "cancel-capitals"))
    assert (found.action.action_id, found.action.state) == (other, RewardAction.STATE_CANCELLED)
    used = "SELECT user_id, used FROM limit_counters WHERE rule_id = 'capitals' ORDER BY 1"
    assert connect.query(used) == [("ada", 1), ("bob", 0)]


async def test_what_was_never_claimed_can_be_cancelled_once(
    manager: Caller, quest: Caller, operator: Caller, database: Database
) -> None:
    await manager.create(rule("cancelled", "cancel.asked"))
    action_id = await action_of(quest, "cancel.asked")
    request = cancel(action_id, "cancel-once")
    before = await operator.actions.CountRewardActions(pb.CountRewardActionsRequest())
    answers = await asyncio.gather(
        *(operator.actions.CancelRewardAction(request) for _ in range(8))
    )
    assert {answer.action.state for answer in answers} == {RewardAction.STATE_CANCELLED}
    assert await claim_all(database) == []
    after = await operator.actions.CountRewardActions(pb.CountRewardActionsRequest())
    assert (after.cancelled, after.pending) == (before.cancelled + 1, before.pending - 1)
    listed = await operator.actions.ListRewardActions(
        pb.ListRewardActionsRequest(state=RewardAction.STATE_CANCELLED, rule_id="cancelled")
    )
    assert [action.action_id for action in listed.actions] == [action_id]
    with pytest.raises(ActionStateForbidden):
        await operator.actions.CancelRewardAction(cancel(action_id, "cancel-again"))


async def test_what_a_target_may_have_cannot_be_cancelled(
    manager: Caller, quest: Caller, operator: Caller, database: Database
) -> None:
    await manager.create(rule("claimed", "claim.made"))
    action_id = await action_of(quest, "claim.made")
    claims = await claim_all(database)
    with pytest.raises(ActionStateForbidden) as refused:
        await operator.actions.CancelRewardAction(cancel(action_id, "cancel-claimed"))
    assert refused.value.metadata == {"state": "DISPATCHED"}
    async with database.transaction() as connection:
        await QUEUE.settle(connection, [(claim, Dead("NO")) for claim in claims])
        await ActionStore(connection).settle([Verdict(action_id, State.FAILED, 1, "NO")])
    await operator.actions.RetryRewardAction(retry(action_id, "retry-claimed"))
    with pytest.raises(ActionStateForbidden, match="ever claimed"):
        await operator.actions.CancelRewardAction(cancel(action_id, "cancel-retried"))
    await claim_all(database)


async def test_a_cancel_that_races_claims_never_takes_what_was_claimed(
    manager: Caller, quest: Caller, operator: Caller, database: Database
) -> None:
    await manager.create(rule("raced", "race.run"))
    ids = [await action_of(quest, "race.run") for _ in range(30)]

    async def cancelled(action_id: str) -> str | None:
        try:
            await operator.actions.CancelRewardAction(cancel(action_id, f"race-{action_id}"))
        except ActionStateForbidden:
            return None
        return action_id

    async def claimed() -> list[str]:
        claims: list[Claim] = []
        for _ in range(15):
            claims += await database.run(lambda connection: QUEUE.claim(connection, POINTS, 2))
        return [claim.item_id for claim in claims]

    held, *gone = await asyncio.gather(claimed(), *map(cancelled, ids))
    held += [claim.item_id for claim in await claim_all(database)]
    taken_back = [action_id for action_id in gone if action_id]
    assert sorted([*held, *taken_back]) == sorted(ids)


async def test_who_may_and_what_is_malformed(quest: Caller, operator: Caller) -> None:
    nowhere = "01890a5d-ac96-774b-bcce-b302099a8057"
    with pytest.raises(PermissionDenied):
        await quest.actions.RetryRewardAction(retry(nowhere, "r"))
    with pytest.raises(PermissionDenied):
        await quest.actions.RetryRewardActions(pb.RetryRewardActionsRequest(request_id="r"))
    with pytest.raises(PermissionDenied):
        await quest.actions.CancelRewardAction(cancel(nowhere, "r"))
    with pytest.raises(ActionNotFound):
        await operator.actions.RetryRewardAction(retry(nowhere, "r"))
    with pytest.raises(ActionNotFound):
        await operator.actions.CancelRewardAction(cancel(nowhere, "c"))
    with pytest.raises(InvalidArgument):
        await operator.actions.CancelRewardAction(cancel("nope", "c"))
