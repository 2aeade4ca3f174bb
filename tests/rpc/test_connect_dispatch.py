"""Dispatching to a real server that answers as the test says: states, attempts, errors."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from go2asia.connect.v1.reward_actions_pb2 import RewardAction
from go2asia.points.v1 import points_pb2, points_pb2_grpc

from connect_svc.clients import Clients
from connect_svc.config import ConnectSettings
from connect_svc.dispatcher import Dispatcher
from connect_svc.operating import retry_action
from connect_svc.records import ActionRecord, State
from connect_svc.store import ActionStore
from connect_svc.targets import PointsTarget
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh import status, telemetry
from mesh.errors import Internal, MeshError, NotFound, Unavailable
from mesh.idempotency import Key
from mesh.server import Registration, running
from tests.integration.connect_replica import (
    ConnectDatabase,
    Replica,
    migrated,
    replica,
    rule,
    submission,
)

POINTS = points_pb2.DESCRIPTOR.services_by_name["PointsService"].full_name
Answer = Callable[[points_pb2.AwardRequest], Awaitable[MeshError | None]]


class TinyPoints(points_pb2_grpc.PointsServiceServicer):
    """BatchPost asks the test about each award; the transaction's id is the request's."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.calls: list[int] = []
        self.traces: list[str] = []

    async def BatchPost(self, request: Any, context: Any) -> points_pb2.BatchPostResponse:
        self.calls.append(len(request.items))
        self.traces.append((telemetry.traceparent() or "").split("-")[1])
        response = points_pb2.BatchPostResponse()
        for item in request.items:
            error = await self._answer(item.award)
            if error is None:
                response.results.add().transaction.transaction_id = item.award.request_id
            elif isinstance(error, Internal):
                raise error
            else:
                response.results.add().error.CopyFrom(status.to_item_error(error))
        return response


@asynccontextmanager
async def dispatching(
    connect: ConnectDatabase, authority: Authority, answer: Answer
) -> AsyncIterator[tuple[Replica, TinyPoints]]:
    """Connect's intake and its dispatcher, with a Points that answers so."""
    tls, points_tls = authority.issue("connect/connect"), authority.issue("points/points")
    settings = ConnectSettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "database_url": connect.app_url,
            "tls_cert": points_tls.cert,
            "tls_key": points_tls.key,
            "tls_ca": points_tls.ca,
            "points_address": "127.0.0.1:1",
            "nft_address": "127.0.0.1:1",
            "gateway_address": "127.0.0.1:1",
            "nats_url": "tls://127.0.0.1:1",
            "drain_seconds": 1,
        }
    )
    points = TinyPoints(answer)
    served = Registration(POINTS, points_pb2_grpc.add_PointsServiceServicer_to_server, points)
    async with running(settings, [served], probes={}) as port:
        own = {"tls_cert": tls.cert, "tls_key": tls.key, "points_address": f"localhost:{port}"}
        async with (
            replica(connect) as one,
            Clients(settings.model_copy(update=own)) as clients,
            Dispatcher(one.database, [PointsTarget(clients)]) as dispatcher,
            replica(connect, dispatcher.wake) as sending,
        ):
            await sending.create(rule("quest-reward"))
            yield sending, points


@pytest.fixture
async def connect(postgres: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    return await migrated(postgres, make_database)


async def until(
    one: Replica, action_id: str, wanted: Callable[[ActionRecord], bool]
) -> ActionRecord:
    deadline = time.monotonic() + 15
    while True:
        async with one.database.transaction(read_only=True) as connection:
            record = await ActionStore(connection).get(action_id)
        assert record is not None
        if wanted(record):
            return record
        assert time.monotonic() < deadline, record
        await asyncio.sleep(0.02)


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
