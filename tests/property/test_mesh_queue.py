"""The queue against a model of it: any history of claims, verdicts, lost leases and revivals."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any, ClassVar, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import MetaData, text

from mesh.db import Connection, Database
from mesh.outbox import Backoff, Claim, Dead, Done, Outcome, Queue, Retry, Work, queue_table

T = TypeVar("T")

METADATA = MetaData()
MAX_ATTEMPTS = 2
LONG = timedelta(hours=1)


class Pause(Backoff):
    """Without jitter, so that the model knows what is due."""

    def delay(self, attempts: int, draw: float) -> timedelta:
        return LONG


QUEUE = Queue(queue_table(METADATA, "jobs"), lease=LONG, max_attempts=MAX_ATTEMPTS, backoff=Pause())


@dataclass
class Item:
    """What the model knows of an item; `place` is its place in the line of its key.

    The token of a lost lease still counts until the item is claimed anew.
    """

    place: int
    key: str | None
    attempts: int = 0
    token: str | None = None
    leased: bool = False
    due: bool = True
    dead: bool = False


class QueueMachine(RuleBasedStateMachine):
    """Time is moved by hand: leases and pauses are long, and rules end them."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = Database(self.url, application_name="test", pool_size=1)
        self.numbers = count()
        self.items: dict[str, Item] = {}
        self.claims: list[Claim] = []

    def teardown(self) -> None:
        self.runner.run(self.database.__aexit__(None, None, None))
        self.runner.close()

    def run(self, work: Callable[[Connection], Coroutine[Any, Any, T]]) -> T:
        return self.runner.run(self.database.run(work))

    def execute(self, statement: str) -> None:
        async def work(connection: Connection) -> None:
            await connection.execute(text(statement))

        self.run(work)

    @initialize()
    def empty(self) -> None:
        self.execute("TRUNCATE jobs")

    @rule(keys=st.lists(st.sampled_from([None, "a", "b"]), min_size=1, max_size=4))
    def enqueue(self, keys: list[str | None]) -> None:
        numbers = [next(self.numbers) for _ in keys]
        works = [Work(f"i{n}", "lane", b"", key) for n, key in zip(numbers, keys, strict=True)]
        self.run(lambda c: QUEUE.enqueue(c, works))
        for number, work in zip(numbers, works, strict=True):
            self.items[work.item_id] = Item(number, work.ordering_key)

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def enqueue_again(self, data: st.DataObject) -> None:
        item_id = data.draw(st.sampled_from(sorted(self.items)))
        self.run(lambda c: QUEUE.enqueue(c, [Work(item_id, "lane", b"other", None)]))

    @rule(limit=st.integers(1, 5))
    def claim(self, limit: int) -> None:
        claims = self.run(lambda c: QUEUE.claim(c, "lane", limit))
        claimable = {item_id for item_id, item in self.items.items() if self.is_claimable(item)}
        claimed = [claim.item_id for claim in claims]
        assert set(claimed) <= claimable
        assert len(claimed) == len(set(claimed)) == min(limit, len(claimable))
        for claim in claims:
            item = self.items[claim.item_id]
            item.attempts += 1
            item.token, item.leased = claim.token, True
            assert claim.attempts == item.attempts
        self.claims += claims

    def is_claimable(self, item: Item) -> bool:
        if item.dead or item.leased or not item.due:
            return False
        return item.key is None or not any(
            other.key == item.key and other.place < item.place and not other.dead
            for other in self.items.values()
        )

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        outcome=st.sampled_from([Done(), Retry("busy"), Dead("refused")]),
    )
    def settle(self, data: st.DataObject, outcome: Outcome) -> None:
        """Any claim ever made may be settled, stale or not, again or not."""
        chosen = self.choose(data)
        ended = self.run(lambda c: QUEUE.settle(c, [(claim, outcome) for claim in chosen]))
        fresh = [claim for claim in chosen if self.holds(claim)]
        assert [claim for claim, _ in ended] == fresh
        for claim, verdict in ended:
            item = self.items[claim.item_id]
            spent = isinstance(outcome, Retry) and item.attempts >= MAX_ATTEMPTS
            assert type(verdict) is (Dead if spent else type(outcome))
            item.token, item.leased = None, False
            if isinstance(verdict, Done):
                del self.items[claim.item_id]
            elif isinstance(verdict, Dead):
                item.dead = True
            else:
                item.due = False

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        chosen = self.choose(data)
        fresh = [claim for claim in chosen if self.holds(claim)]
        self.run(lambda c: QUEUE.release(c, chosen))
        for claim in fresh:
            item = self.items[claim.item_id]
            item.token, item.leased = None, False
            item.attempts -= 1

    @rule()
    def lose_all_leases(self) -> None:
        self.execute("UPDATE jobs SET lease_expire_time = now() WHERE lease_expire_time > now()")
        for item in self.items.values():
            item.leased = False

    @rule()
    def end_all_pauses(self) -> None:
        self.execute("UPDATE jobs SET due_time = now() WHERE due_time > now()")
        for item in self.items.values():
            item.due = True

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def revive(self, data: st.DataObject) -> None:
        item_id = data.draw(st.sampled_from(sorted(self.items)))
        item = self.items[item_id]
        revived = self.run(lambda c: QUEUE.revive(c, [item_id]))
        assert revived == ({item_id} if item.dead else set())
        if item.dead:
            self.items[item_id] = Item(next(self.numbers), item.key)

    @invariant()
    def depth_agrees(self) -> None:
        depth = self.run(QUEUE.depth).get("lane")
        live = [item for item in self.items.values() if not item.dead]
        expected = (
            sum(not item.leased and item.due for item in live),
            sum(item.leased for item in live),
            sum(not item.leased and not item.due for item in live),
            len(self.items) - len(live),
        )
        found = (depth.ready, depth.leased, depth.delayed, depth.dead) if depth else (0, 0, 0, 0)
        assert found == expected

    def choose(self, data: st.DataObject) -> list[Claim]:
        """Some of all the claims ever made, stale or not, at most one of each item."""
        claims = st.sampled_from(self.claims)
        return data.draw(
            st.lists(claims, min_size=1, max_size=4, unique_by=lambda claim: claim.item_id)
        )

    def holds(self, claim: Claim) -> bool:
        item = self.items.get(claim.item_id)
        return item is not None and item.token == claim.token


def test_the_queue_behaves_as_its_model(database_url: str) -> None:
    async def create() -> None:
        async with (
            Database(database_url, application_name="test") as database,
            database.transaction() as connection,
        ):
            await connection.run_sync(METADATA.create_all)

    asyncio.run(create())
    QueueMachine.url = database_url
    run_state_machine_as_test(
        QueueMachine,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
