"""Rules that ask for order get it: two replicas, and a target that fails at times."""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable

import pytest
from go2asia.points.v1 import points_pb2

from connect_svc.lanes import QUEUE
from connect_svc.records import State
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.errors import MeshError, NotFound, Unavailable
from tests.integration.connect_replica import ConnectDatabase, migrated, rule, submission
from tests.rpc.connect_dispatching import dispatching, until

USERS = ("ada", "bob", "cyd", "dan")
EVENTS = 10
ORDERED = rule("in-order", ordered=True)


@pytest.fixture
async def connect(postgres: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    return await migrated(postgres, make_database)


async def test_a_recipients_rewards_arrive_in_the_order_of_their_events(
    connect: ConnectDatabase, authority: Authority
) -> None:
    chance = random.Random(11)
    arrived: dict[str, list[str]] = defaultdict(list)
    under_way: set[str] = set()

    async def answer(award: points_pb2.AwardRequest) -> MeshError | None:
        user = award.posting.user_id
        assert user not in under_way
        under_way.add(user)
        await asyncio.sleep(chance.random() * 0.01)
        under_way.remove(user)
        if chance.random() < 0.2:
            return Unavailable("at times")
        arrived[user].append(award.request_id)
        return None

    sent: dict[str, list[str]] = defaultdict(list)
    async with (
        dispatching(connect, authority, answer, [ORDERED]) as (one, _),
        dispatching(connect, authority, answer, []) as (two, _),
    ):
        for number in range(EVENTS):
            replica = (one, two)[number % 2]
            receipts = await asyncio.gather(
                *(replica.intake.submit(submission(actor_user_id=user)) for user in USERS)
            )
            for user, receipt in zip(USERS, receipts, strict=True):
                sent[user] += receipt.action_ids
        for user in USERS:
            await until(one, sent[user][-1], lambda record: record.state is State.COMPLETED)
    assert arrived == sent
    assert connect.count("reward_queue") == 0


async def test_who_holds_up_a_line_is_seen_and_who_is_refused_lets_the_others_pass(
    connect: ConnectDatabase, authority: Authority
) -> None:
    arrived: list[int] = []
    answers: dict[int, MeshError] = {1: NotFound("no such unit"), 2: Unavailable("not now")}

    async def answer(award: points_pb2.AwardRequest) -> MeshError | None:
        if (error := answers.get(award.posting.amount)) is None:
            arrived.append(award.posting.amount)
        return error

    amount = {"key": "points", "credit_points": {"unit": "G2A", "amount": "int(event.context.n)"}}
    rules = [
        rule("in-order", ordered=True, actions=[amount]),
        rule("whenever", event_type="quest.started", actions=[amount]),
    ]
    async with dispatching(connect, authority, answer, rules) as (one, _):

        async def give(number: int, **fields: str) -> str:
            [action_id] = (
                await one.intake.submit(submission(context={"n": number}, **fields))
            ).action_ids
            return action_id

        refused, held_up, waiting = [await give(number) for number in (1, 2, 3)]
        others = await give(4, actor_user_id="bob")
        unordered = await give(5, event_type="quest.started")
        await until(one, refused, lambda record: record.state is State.FAILED)
        await until(one, held_up, lambda record: record.last_error != "")
        for passed in (others, unordered):
            await until(one, passed, lambda record: record.state is State.COMPLETED)
        assert sorted(arrived) == [4, 5]
        assert (await one.database.run(QUEUE.depth))["points"].waiting == 1
        answers.clear()
        await until(one, waiting, lambda record: record.state is State.COMPLETED)
    assert arrived[2:] == [2, 3]
