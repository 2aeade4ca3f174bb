"""Rules tried on stored events, over mutual TLS: previewed, applied exactly, nobody paid twice."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from go2asia.connect.v1 import backfills_pb2 as pb
from go2asia.connect.v1 import events_pb2, rules_pb2
from sqlalchemy import text

from connect_svc import pacing
from connect_svc.backfilling import Backfiller, carry_on
from connect_svc.catalog import CatalogCache
from connect_svc.errors import BackfillNotFound, BackfillStateForbidden, RuleNotFound
from connect_svc.intake import Batch
from connect_svc.rationing import ration
from connect_svc.store import EventStore, RuleStore
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.db import Database
from mesh.errors import PermissionDenied, RequestIdReused
from mesh.testing import LoopServer
from tests.integration.connect_replica import ConnectDatabase, event, rule, submission
from tests.rpc.connect_callers import (
    MANAGER,
    OPERATOR,
    QUEST,
    Caller,
    add_services,
    callers,
    services_on,
)

Backfill = pb.Backfill
BADGE = {"key": "badge", "grant_nft": {"nft_type": "explorer"}}
AMOUNT = {
    "key": "points",
    "credit_points": {"unit": "G2A", "amount": "int(event.context.n)"},
}


class Undone(Exception):
    """Ends a transaction without a commit."""


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


async def submit(caller: Caller, event_type: str, count: int) -> list[events_pb2.Event]:
    sent = [
        event(event_type=event_type, actor_user_id=f"user-{n % 3}", context={"n": n})
        for n in range(1, count + 1)
    ]
    for one in sent:
        await caller.submit(one)
    return sent


async def reverse(caller: Caller, sent: events_pb2.Event) -> None:
    key = events_pb2.ExternalKey(source=sent.source, external_id=sent.external_id)
    await caller.events.ReverseEvent(
        events_pb2.ReverseEventRequest(
            request_id=f"back-{sent.external_id}", external_key=key, reason="test"
        )
    )


async def start(manager: Caller, rule_id: str, request_id: str = "") -> Backfill:
    request = pb.BackfillRuleRequest(
        request_id=request_id or f"preview-{random.random()}", rule_id=rule_id
    )
    return (await manager.backfills.BackfillRule(request)).backfill


async def apply(manager: Caller, backfill: Backfill, request_id: str = "") -> Backfill:
    request = pb.ApplyBackfillRequest(
        request_id=request_id or f"apply-{backfill.backfill_id}", backfill_id=backfill.backfill_id
    )
    return (await manager.backfills.ApplyBackfill(request)).backfill


async def read(manager: Caller, backfill: Backfill) -> Backfill:
    request = pb.GetBackfillRequest(backfill_id=backfill.backfill_id)
    return (await manager.backfills.GetBackfill(request)).backfill


async def carry_all(database: Database, size: int = 4) -> None:
    """What the workers do, in small chunks, until nothing is under way."""
    under_way = text("SELECT 1 FROM backfills WHERE state IN ('PREVIEWING', 'APPLYING')")
    while True:
        while await database.run(lambda c: carry_on(c, size)):
            pass
        async with database.transaction(read_only=True) as connection:
            if (await connection.execute(under_way)).first() is None:
                return
        await asyncio.sleep(0.01)  # something older than the backfill has yet to end


async def reaches(manager: Caller, backfill: Backfill, state: Backfill.State.ValueType) -> Backfill:
    """The backfill, once a worker brought it there."""
    deadline = time.monotonic() + 15
    while True:
        found = await read(manager, backfill)
        if found.state == state:
            return found
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.05)


def totals(tally: pb.BackfillTally) -> list[tuple[str, str, int, int]]:
    return [(each.kind, each.what, each.actions, each.amount) for each in tally.totals]


async def test_a_preview_tells_the_difference_and_is_applied_exactly(
    act: Callable[[str], Caller], database: Database, connect: ConnectDatabase
) -> None:
    manager, quest = act(MANAGER), act(QUEST)
    sent = await submit(quest, "first.told", 10)
    await reverse(act(OPERATOR), sent[9])
    made = rule("first", "first.told", condition="event.context.n > 2.0", actions=[AMOUNT, BADGE])
    await manager.create(made)
    since = await submit(quest, "first.told", 3)  # the third is rewarded as it comes in
    started = await start(manager, "first", "first-preview")
    assert started.state == Backfill.STATE_PREVIEWING
    await carry_all(database)
    preview = await read(manager, started)
    assert preview.state == Backfill.STATE_PREVIEWED
    assert (preview.events_seen, preview.preview.events) == (13, 7)
    assert (preview.preview.held, preview.preview.reversed) == (1, 1)
    assert totals(preview.preview) == [
        ("credit_points", "G2A", 7, sum(range(3, 10))),
        ("grant_nft", "explorer", 7, 0),
    ]
    assert not preview.HasField("result")
    assert connect.query("SELECT count(*) FROM reward_actions WHERE rule_id = 'first'") == [(2,)]
    found: list[str] = []
    listing = pb.ListBackfillEventsRequest(backfill_id=started.backfill_id, page_size=3)
    while True:
        page = await manager.backfills.ListBackfillEvents(listing)
        found += page.event_ids
        if not page.next_page_token:
            break
        listing.page_token = page.next_page_token
    assert len(found) == len(set(found)) == 7

    await submit(quest, "first.told", 1)
    await reverse(act(OPERATOR), sent[8])
    # A later version changes nothing about what was previewed.
    current = (await manager.rules.GetRule(rules_pb2.GetRuleRequest(rule_id="first"))).rule
    current.actions[0].credit_points.amount = "1"
    await manager.rules.UpdateRule(rules_pb2.UpdateRuleRequest(request_id="first-2", rule=current))
    answer = await apply(manager, started)
    assert answer.state == Backfill.STATE_APPLYING
    await carry_all(database)
    done = await read(manager, started)
    assert done.state == Backfill.STATE_APPLIED
    assert (done.result.events, done.result.reversed) == (6, 1)
    assert totals(done.result)[0] == ("credit_points", "G2A", 6, sum(range(3, 9)))
    assert await apply(manager, started) == answer, "asked twice, applied once"
    with pytest.raises(BackfillStateForbidden):
        await apply(manager, started, "first-again")

    story = await quest.events.GetEvent(events_pb2.GetEventRequest(event_id=found[0]))
    assert [each.backfill_id for each in story.actions] == [started.backfill_id] * 2
    assert (story.actions[0].rule_version, story.actions[0].credit_points.amount) == (1, 3)
    queued = "SELECT count(*) FROM reward_queue WHERE item_id = %s"
    assert connect.query(queued, story.actions[0].action_id) == [(1,)]
    explained = await quest.events.ExplainEvent(
        events_pb2.ExplainEventRequest(event_id=found[0], rule_id="first")
    )
    assert len(explained.actions) == 2
    assert (await quest.submit(since[0])).duplicate

    again = await start(manager, "first")
    await carry_all(database)
    assert (await read(manager, again)).preview.events == 0, "all are paid"


async def test_an_event_on_its_way_in_is_not_missed(
    act: Callable[[str], Caller], database: Database
) -> None:
    """It is decided by the rules before, and stored after the preview was asked for."""
    async with database.transaction() as connection:
        store = EventStore(connection)
        moment = await store.arrival()
        rules = await CatalogCache().at(moment.catalog_version, RuleStore(connection))
        await act(MANAGER).create(rule("overtaking", "overtaken.told"))
        started = await start(act(MANAGER), "overtaking")
        assert not await database.run(carry_on), "it waits"
        batch = Batch(rules, moment, {})
        batch.enter(submission(event_type="overtaken.told"), None)
        batch.conclude(await ration(connection, batch.trials))
        assert not batch.actions
        await store.add(batch.taken)
    await carry_all(database)
    assert (await read(act(MANAGER), started)).preview.events == 1


async def test_slow_rules_make_for_short_chunks(
    act: Callable[[str], Caller], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = await submit(act(QUEST), "slow.told", 6)
    for taken_back in (sent[0], sent[3], sent[5]):
        await reverse(act(OPERATOR), taken_back)
    await act(MANAGER).create(rule("slow", "slow.told", actions=[AMOUNT]))
    started = await start(act(MANAGER), "slow")
    monkeypatch.setattr(pacing, "LONGEST_SECONDS", 0.0)
    await carry_all(database, 100)
    await apply(act(MANAGER), started)
    await carry_all(database, 100)
    done = await read(act(MANAGER), started)
    assert (done.preview.events, done.preview.reversed, done.events_seen) == (3, 3, 3)
    assert totals(done.preview) == totals(done.result) == [("credit_points", "G2A", 3, 2 + 3 + 5)]


async def test_limits_decide_again_when_it_is_applied(
    act: Callable[[str], Caller], database: Database
) -> None:
    manager = act(MANAGER)
    await submit(act(QUEST), "scarce.told", 9)
    budget = {"window": "WINDOW_CAMPAIGN", "count": "4"}
    await manager.create(rule("scarce", "scarce.told", actions=[AMOUNT], budgets=[budget]))
    await submit(act(QUEST), "scarce.told", 1)
    started = await start(manager, "scarce")
    await carry_all(database)
    assert (await read(manager, started)).preview.events == 9
    await apply(manager, started)
    await carry_all(database, 2)
    done = (await read(manager, started)).result
    assert (done.events, dict(done.stopped)) == (3, {"BUDGET_SPENT": 6})
    assert totals(done) == [("credit_points", "G2A", 3, 1 + 2 + 3)]


@pytest.mark.parametrize("seed", range(3))
async def test_nobody_is_paid_twice_or_after_a_reversal(
    act: Callable[[str], Caller], database: Database, connect: ConnectDatabase, seed: int
) -> None:
    """Two backfills of one rule on two replicas, amid clawbacks."""
    chance, name = random.Random(seed), f"raced-{seed}"
    event_type = f"raced{seed}.told"
    sent = await submit(act(QUEST), event_type, 60)
    await act(MANAGER).create(rule(name, event_type, actions=[AMOUNT]))
    backfills = [await start(act(MANAGER), name) for _ in range(2)]
    await carry_all(database, 50)
    for each in backfills:
        await apply(act(MANAGER), each)
    taken = chance.sample(sent, 25)

    async def claw_back(one: events_pb2.Event) -> None:
        await asyncio.sleep(chance.uniform(0, 0.2))
        await reverse(act(OPERATOR), one)

    async with Database(connect.app_url, application_name="connect-other") as other:
        await asyncio.gather(
            carry_all(database, 3), carry_all(other, 3), *(claw_back(one) for one in taken)
        )
    done = [await read(act(MANAGER), each) for each in backfills]
    assert {each.state for each in done} == {Backfill.STATE_APPLIED}
    states = dict(
        connect.query(
            "SELECT k.external_id, a.state FROM reward_actions AS a"
            " JOIN event_keys AS k USING (event_id) WHERE a.rule_id = %s",
            name,
        )
    )
    gone = {one.external_id for one in taken}
    assert {key for key, state in states.items() if state == "PENDING"} == {
        one.external_id for one in sent
    } - gone, f"seed {seed}"
    assert {state for key, state in states.items() if key in gone} <= {"CANCELLED"}
    assert sum(each.result.events for each in done) == len(states)


async def test_what_was_not_committed_is_done_anew(
    act: Callable[[str], Caller], database: Database, connect: ConnectDatabase
) -> None:
    await submit(act(QUEST), "broken.told", 10)
    await act(MANAGER).create(rule("broken", "broken.told", actions=[AMOUNT]))
    started = await start(act(MANAGER), "broken")

    async def break_off() -> None:
        async with database.transaction() as connection:
            await carry_on(connection, 4)
            raise Undone

    for state in (Backfill.STATE_PREVIEWED, Backfill.STATE_APPLIED):
        while (await read(act(MANAGER), started)).state != state:
            with pytest.raises(Undone):
                await break_off()
            await database.run(lambda c: carry_on(c, 4))
        if state == Backfill.STATE_PREVIEWED:
            await apply(act(MANAGER), started)
    done = await read(act(MANAGER), started)
    assert (done.state, done.events_seen) == (Backfill.STATE_APPLIED, 10)
    assert totals(done.preview) == totals(done.result) == [("credit_points", "G2A", 10, 55)]
    query = "SELECT count(*) FROM reward_actions WHERE rule_id = 'broken'"
    assert connect.query(query) == [(10,)]


async def test_the_worker_carries_on_and_wakes_the_dispatcher(
    act: Callable[[str], Caller], database: Database
) -> None:
    await submit(act(QUEST), "worked.told", 5)
    await act(MANAGER).create(rule("worked", "worked.told"))
    woken = asyncio.Event()
    async with Backfiller(database, dispatch=woken.set) as worker:
        started = await start(act(MANAGER), "worked")
        worker.wake()
        await reaches(act(MANAGER), started, Backfill.STATE_PREVIEWED)
        woken.clear()
        await apply(act(MANAGER), started)
        await asyncio.wait_for(woken.wait(), 15)
        done = await reaches(act(MANAGER), started, Backfill.STATE_APPLIED)
    assert done.result.events == 5


async def test_what_is_refused(act: Callable[[str], Caller], database: Database) -> None:
    manager = act(MANAGER)
    with pytest.raises(RuleNotFound):
        await start(manager, "never-written")
    unknown = Backfill(backfill_id="01890a5d-ac96-774b-bcce-b302099a8057")
    with pytest.raises(BackfillNotFound):
        await apply(manager, unknown)
    with pytest.raises(BackfillNotFound):
        await read(manager, unknown)
    await manager.create(rule("sketch", "sketch.told", state="STATE_DRAFT"))
    with pytest.raises(PermissionDenied):
        await start(act(OPERATOR), "sketch")
    started = await start(manager, "sketch", "sketch")
    assert await start(manager, "sketch", "sketch") == started
    with pytest.raises(RequestIdReused):
        await start(manager, "first", "sketch")
    await carry_all(database)
    with pytest.raises(BackfillStateForbidden, match="enable its rule"):
        await apply(manager, started)
    await manager.create(rule("ready", "ready.told"))
    early = await start(manager, "ready")
    with pytest.raises(BackfillStateForbidden, match="only a finished preview"):
        await apply(manager, early)
