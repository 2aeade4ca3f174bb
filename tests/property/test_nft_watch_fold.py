"""Whatever order things happen in, what a watcher has seen, folded, is what the database holds.

The Gateway here is a script: it takes orders, loses answers, and reports its walk through the state
machine shuffled and repeatedly. The orchestrator is killed in the middle of its work, and watchers
hang up whenever they like and go on with their token on either of two replicas. `SEED=…` plays
another order. Real processes are killed in tests/fault/test_nft_kills.py.
"""

import asyncio
import base64
import os
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import Any, cast

import pytest
from go2asia.gateway.v1 import minting_pb2

from devstack.postgres import Cluster
from mesh.clock import new_id
from mesh.errors import MeshError, Unavailable
from mesh.outbox import Backoff
from nft_svc import convert
from nft_svc.fanout import FeedLimits
from nft_svc.feed import entry
from nft_svc.mints import STEPS, MintState, Verdict, follow, judge
from nft_svc.orchestrator import Orchestrator
from nft_svc.reports import News
from nft_svc.store import feed, mints, reads
from nft_svc.submissions import submission_queue
from tests.integration.nft_service import GATEWAY, Replica, migrated, of_user, replica, reward
from tests.integration.nft_watching import Knowledge

USERS = 12
SEEDS = [int(os.environ["SEED"])] if "SEED" in os.environ else [1, 2, 3, 4]
LIMITS = FeedLimits(checkpoint=timedelta(seconds=0.2))
QUEUE = replace(
    submission_queue(),
    lease=timedelta(seconds=1),
    backoff=Backoff(timedelta(milliseconds=50), timedelta(milliseconds=200)),
)


class ScriptedGateway:
    """Each operation walks at random; `walks` holds its states by mint, version by version."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self.walks: dict[str, list[minting_pb2.Operation]] = {}

    async def submit_mints(
        self, orders: Sequence[minting_pb2.MintOrder]
    ) -> list[minting_pb2.Operation | MeshError]:
        """Takes the orders; half of the time the caller never learns of it."""
        answers = [self._take(order) for order in orders]
        await asyncio.sleep(self._random.uniform(0, 0.05))
        if self._random.random() < 0.5:
            raise Unavailable
        return answers

    def _take(self, order: minting_pb2.MintOrder) -> minting_pb2.Operation | MeshError:
        if self._random.random() < 0.2:
            return Unavailable()
        walk = self.walks.setdefault(order.mint_id, self._walk(order.mint_id))
        return self._random.choice(walk)

    def _walk(self, mint_id: str) -> list[minting_pb2.Operation]:
        state, states = MintState.QUEUED, [MintState.QUEUED]
        while STEPS[state] and len(states) < 12:
            state = self._random.choice(sorted(STEPS[state]))
            states.append(state)
        operation_id = new_id()
        return [
            minting_pb2.Operation(
                operation_id=operation_id,
                mint_id=mint_id,
                version=version,
                state=minting_pb2.OperationState.Value(f"OPERATION_STATE_{state}"),
            )
            for version, state in enumerate(states, start=1)
        ]


class Watcher:
    """Follows one user through hang-ups, and checks every message against what it knows."""

    def __init__(self, user_id: str, replicas: Sequence[Replica], random: Random) -> None:
        self.knowledge = Knowledge()
        self._user_id = user_id
        self._replicas = replicas
        self._random = random

    async def watch(self, head: "asyncio.Future[int]") -> None:
        """Until a checkpoint promises everything up to the feed's head, once that is known.

        An earlier one will not do: a checkpoint speaks for what its replica has read so far.
        """
        while True:
            messages = self._random.randint(1, 4)
            stream: Any = self._random.choice(self._replicas).feed.watch(
                of_user(self._user_id), self.knowledge.token
            )
            async with aclosing(stream):
                async for message in stream:
                    self.knowledge.fold(message)
                    last = message.HasField("checkpoint") and head.done()
                    last = last and position_of(message.resume_token) >= head.result()
                    messages -= 1
                    if last or not messages:
                        break
            if last:
                return


def position_of(token: str) -> int:
    """The feed position inside a resume token."""
    return int.from_bytes(base64.urlsafe_b64decode(token)[1:9], "big")


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_watchers_fold_is_the_final_state(
    postgres: Cluster, make_database: Callable[[], str], seed: int
) -> None:
    nft = await migrated(postgres, make_database)
    random, head = Random(seed), asyncio.get_running_loop().create_future()
    gateway = ScriptedGateway(random)
    users = [f"user-{number}" for number in range(USERS)]
    async with (
        asyncio.timeout(45),
        replica(nft, LIMITS) as first,
        replica(nft, LIMITS) as second,
        asyncio.TaskGroup() as tasks,
    ):
        replicas = (first, second)
        orchestrating = tasks.create_task(orchestrate(gateway, replicas, random))
        watchers = [Watcher(user, replicas, random) for user in users]
        watching = [tasks.create_task(watcher.watch(head)) for watcher in watchers]
        for user in users:
            await random.choice(replicas).rewards.apply(reward(user, 3))
            await asyncio.sleep(random.uniform(0, 0.05))
        await report_all(gateway, replicas, random)
        orchestrating.cancel()
        await asyncio.wait([orchestrating])
        async with first.database.transaction(read_only=True) as connection:
            head.set_result((await feed.extent(connection)).head)
        await asyncio.gather(*watching)
        for watcher, user in zip(watchers, users, strict=True):
            async with first.database.transaction(read_only=True) as connection:
                stored = await reads.mints(connection, user, None, None, 10)
            assert len(stored) == 1
            assert watcher.knowledge.mints == {mint.mint_id: convert.mint(mint) for mint in stored}
            last = gateway.walks[stored[0].mint_id][-1]
            assert convert.operation_report(last).state == stored[0].state
            assert stored[0].operation_version == last.version


async def orchestrate(
    gateway: ScriptedGateway, replicas: Sequence[Replica], random: Random
) -> None:
    """An orchestrator after the other, each killed wherever it happens to be."""
    while True:
        running = random.choice(replicas)
        worker = Orchestrator(gateway, running.reports).worker(running.database, QUEUE)
        await worker.__aenter__()
        try:
            await asyncio.sleep(random.uniform(0.05, 0.4))
        finally:
            for task in worker._loops:
                task.cancel()
            await asyncio.gather(*worker._loops, return_exceptions=True)


async def report_all(gateway: ScriptedGateway, replicas: Sequence[Replica], random: Random) -> None:
    """Every walk, once its mint was taken: shuffled, repeated, some through a slow transaction."""
    while len(gateway.walks) < USERS:  # noqa: ASYNC110 - the script announces nothing
        await asyncio.sleep(0.05)
    reports = [one for walk in gateway.walks.values() for one in (*walk, random.choice(walk))]
    random.shuffle(reports)

    async def deliver(operation: minting_pb2.Operation) -> None:
        await asyncio.sleep(random.uniform(0, 1.5))
        running = random.choice(replicas)
        news = News(convert.operation_report(operation), GATEWAY)
        if random.random() < 0.1:
            await report_slowly(running, news, random.uniform(0.1, 0.5))
        else:
            await running.reports.apply([news])

    await asyncio.gather(*(deliver(operation) for operation in reports))


async def report_slowly(running: Replica, news: News, seconds: float) -> None:
    """Applies a report in a transaction that lingers with its position in hand."""
    report = cast(Any, news.content)
    async with running.database.transaction() as connection:
        now, known = await mints.lock(connection, [report.mint_id])
        mint = known[report.mint_id]
        if now is None or judge(mint, report) is not Verdict.NEWS:
            return
        change = follow(mint, report, now)
        await mints.update(connection, [change.mint])
        await feed.append(connection, [entry(change)])
        await asyncio.sleep(seconds)
