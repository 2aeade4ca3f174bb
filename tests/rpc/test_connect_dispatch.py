"""Dispatching to a real server that answers as the test says: states, attempts, errors."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
from go2asia.connect.v1.reward_actions_pb2 import RewardAction
from go2asia.points.v1 import points_pb2

from connect_svc.operating import retry_action
from connect_svc.records import State
from connect_svc.store import ActionStore
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh import telemetry
from mesh.errors import Internal, MeshError, NotFound, Unavailable
from mesh.idempotency import Key
from tests.integration.connect_replica import ConnectDatabase, Replica, migrated, submission
from tests.rpc.connect_dispatching import dispatching, until


@pytest.fixture
async def connect(postgres: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    return await migrated(postgres, make_database)


async def counted(one: Replica) -> dict[State, int]:
    async with one.database.transaction(read_only=True) as connection:
        return await ActionStore(connection).count()


async def test_an_action_is_dispatched_while_its_target_works_and_then_completed(
    connect: ConnectDatabase, authority: Authority
) -> None:
    may_finish = asyncio.Event()

    async def answer(award: points_pb2.AwardRequest) -> None:
        await may_finish.wait()

    async with dispatching(connect, authority, answer) as (one, _):
        [action_id] = (await one.intake.submit(submission())).action_ids
        held = await until(one, action_id, lambda record: record.state is State.DISPATCHED)
        assert held.attempts == 1
        assert held.update_time > held.create_time
        assert (await counted(one))[State.DISPATCHED] == 1
        assert (await counted(one))[State.PENDING] == 0
        may_finish.set()
        done = await until(one, action_id, lambda record: record.state is State.COMPLETED)
        assert (done.attempts, done.result, done.last_error) == (1, action_id, "")
        assert (await counted(one))[State.COMPLETED] == 1
    assert connect.count("reward_queue") == 0


async def test_an_item_that_fails_for_now_comes_again_alone(
    connect: ConnectDatabase, authority: Authority
) -> None:
    failures = {"bob": [Unavailable("Come back later.")]}

    async def answer(award: points_pb2.AwardRequest) -> MeshError | None:
        waiting = failures.get(award.posting.user_id)
        return waiting.pop() if waiting else None

    async with dispatching(connect, authority, answer) as (one, _):
        [ada, bob] = await one.intake.submit_many([submission(), submission(actor_user_id="bob")])
        assert not isinstance(ada, Exception)
        assert not isinstance(bob, Exception)
        waiting = await until(one, bob.action_ids[0], lambda record: record.last_error != "")
        assert (waiting.state, waiting.attempts) == (State.PENDING, 1)
        assert waiting.last_error == "UNAVAILABLE: Come back later."
        done = await until(one, bob.action_ids[0], lambda record: record.state is State.COMPLETED)
        assert (done.attempts, done.last_error) == (2, "")
        first = await until(one, ada.action_ids[0], lambda record: record.state is State.COMPLETED)
        assert first.attempts == 1


async def test_an_item_that_is_refused_fails_with_the_reason(
    connect: ConnectDatabase, authority: Authority
) -> None:
    async def answer(award: points_pb2.AwardRequest) -> MeshError | None:
        return NotFound("There is no such unit.") if award.posting.user_id == "bob" else None

    async with dispatching(connect, authority, answer) as (one, _):
        await one.intake.submit(submission())
        [action_id] = (await one.intake.submit(submission(actor_user_id="bob"))).action_ids
        failed = await until(one, action_id, lambda record: record.state is State.FAILED)
        assert failed.last_error == "NOT_FOUND: There is no such unit."
        assert failed.result == ""
    [(dead_reason,)] = connect.query("SELECT dead_reason FROM reward_queue")
    assert dead_reason == failed.last_error


async def test_a_failed_action_is_sent_again_when_asked(
    connect: ConnectDatabase, authority: Authority
) -> None:
    refusals = [NotFound("There is no such unit.")]

    async def answer(award: points_pb2.AwardRequest) -> MeshError | None:
        return refusals.pop() if refusals else None

    async with dispatching(connect, authority, answer) as (one, _):
        [action_id] = (await one.intake.submit(submission())).action_ids
        await until(one, action_id, lambda record: record.state is State.FAILED)
        key = Key("operator/ops:RetryRewardAction", "retry-1", b"x")
        again = await retry_action(one.database, key, action_id)
        assert again.state == RewardAction.STATE_PENDING
        done = await until(one, action_id, lambda record: record.state is State.COMPLETED)
        assert (done.attempts, done.last_error, done.result) == (1, "", action_id)
        assert await retry_action(one.database, key, action_id) == again
        assert (await counted(one))[State.COMPLETED] == 1
    assert connect.count("reward_queue") == 0


async def test_an_item_that_breaks_the_call_is_found_and_the_others_go_through(
    connect: ConnectDatabase, authority: Authority
) -> None:
    async def answer(award: points_pb2.AwardRequest) -> MeshError | None:
        return Internal() if award.posting.user_id == "poison" else None

    async with dispatching(connect, authority, answer) as (one, points):
        receipts = await one.intake.submit_many(
            [submission(actor_user_id="poison" if n == 5 else f"user-{n}") for n in range(16)]
        )
        for number, receipt in enumerate(receipts):
            assert not isinstance(receipt, Exception)
            if number != 5:
                await until(one, receipt.action_ids[0], lambda r: r.state is State.COMPLETED)
        poison = receipts[5]
        assert not isinstance(poison, Exception)
        held = await until(one, poison.action_ids[0], lambda record: record.last_error != "")
        assert held.state is not State.FAILED
        assert held.last_error.startswith("INTERNAL: ")
        assert len(points.calls) < 16


async def test_what_was_decided_is_not_given_twice(
    connect: ConnectDatabase, authority: Authority
) -> None:
    seen: list[str] = []

    async def answer(award: points_pb2.AwardRequest) -> None:
        seen.append(award.request_id)

    async with dispatching(connect, authority, answer) as (one, _):
        sent = submission()
        receipts = [await one.intake.submit(sent) for _ in range(3)]
        [action_id] = receipts[0].action_ids
        await until(one, action_id, lambda record: record.state is State.COMPLETED)
        assert receipts[1:] == [replace(receipts[0], duplicate=True)] * 2
        await one.intake.submit(sent)
    assert seen == [action_id]


async def test_the_trace_leads_from_the_event_to_its_reward(
    connect: ConnectDatabase, authority: Authority
) -> None:
    async def answer(award: points_pb2.AwardRequest) -> None:
        return None

    async with dispatching(connect, authority, answer) as (one, points):
        with telemetry.continue_trace(f"00-{'ab' * 16}-{'cd' * 8}-01", "test"):
            [action_id] = (await one.intake.submit(submission())).action_ids
        await until(one, action_id, lambda record: record.state is State.COMPLETED)
    assert points.traces == ["ab" * 16]
