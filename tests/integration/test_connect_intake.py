"""Events are taken in once, whole, and with the rules as they are."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from connect_svc import pacing
from connect_svc.deciding import propose, settle
from connect_svc.errors import ExternalIdReused, OccurredInFuture
from connect_svc.intake import Batch
from connect_svc.limits import Usage
from connect_svc.records import Moment, Receipt, State
from connect_svc.rules import Catalogue
from connect_svc.store import EventStore
from devstack.postgres import Cluster
from tests.integration.connect_replica import (
    POINTS,
    ConnectDatabase,
    Replica,
    migrated,
    replica,
    rule,
    submission,
)

BADGE = {"key": "badge", "increment_progress": {"nft_type": "explorer", "counter": "quests"}}


@pytest.fixture
async def connect(postgres: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    return await migrated(postgres, make_database)


@pytest.fixture
async def one(connect: ConnectDatabase) -> AsyncIterator[Replica]:
    async with replica(connect) as one:
        yield one


async def test_an_event_its_decision_and_its_actions_are_stored(
    connect: ConnectDatabase, one: Replica
) -> None:
    created = await one.create(rule("quest-reward", actions=[POINTS, BADGE]))
    await one.create(rule("broken", condition="event.context.nope == 1.0", priority=1))
    sent = submission(context={"n": 5, "deep": {"list": [1, "é", None]}})
    receipt = await one.intake.submit(sent)

    async with one.database.transaction(read_only=True) as connection:
        story = await EventStore(connection).story(receipt.event_id)
    assert story is not None
    event = story.event
    assert (event.source, event.external_id) == sent.key
    assert event.context == sent.event.context
    assert event.occurred_time == sent.event.occurred_time
    assert abs(event.received_time.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(seconds=30)
    assert story.catalog_version == 2
    assert [(o.rule_id, o.rule_version, o.result) for o in story.outcomes] == [
        ("broken", 1, "ERROR"),
        ("quest-reward", created.version, "MATCHED"),
    ]
    assert story.outcomes[1].action_ids == receipt.action_ids

    actions = await one.actions_of(receipt.event_id)
    assert tuple(each.action.action_id for each in actions) == receipt.action_ids
    assert [(each.action.key, each.state, each.attempts) for each in actions] == [
        ("points", State.PENDING, 0),
        ("badge", State.PENDING, 0),
    ]
    lanes = connect.query("SELECT item_id, lane FROM reward_queue ORDER BY sequence")
    assert lanes == list(zip(receipt.action_ids, ("points", "nft"), strict=True))


async def test_the_same_event_again_is_answered_as_at_first(
    connect: ConnectDatabase, one: Replica
) -> None:
    await one.create(rule("quest-reward"))
    sent = submission()
    first = await one.intake.submit(sent)
    await one.create(rule("later"))
    again = await one.intake.submit(sent)
    assert again == Receipt(first.event_id, first.action_ids, duplicate=True)
    assert (connect.count("events"), connect.count("reward_actions")) == (1, 1)


async def test_an_external_id_with_another_content_is_refused(
    connect: ConnectDatabase, one: Replica
) -> None:
    first = await one.intake.submit(submission(external_id="x"))
    with pytest.raises(ExternalIdReused) as refused:
        await one.intake.submit(submission(external_id="x", actor_user_id="mallory"))
    assert refused.value.metadata == {"event_id": first.event_id}
    assert connect.count("events") == 1
    other_source = await one.intake.submit(submission(external_id="x", source="booking"))
    assert not other_source.duplicate


async def test_one_batch_with_everything_in_it(connect: ConnectDatabase, one: Replica) -> None:
    known = await one.intake.submit(submission(external_id="known"))
    soon = (datetime.now(UTC) + timedelta(minutes=4)).isoformat()
    late = (datetime.now(UTC) + timedelta(minutes=6)).isoformat()
    answers = await one.intake.submit_many(
        [
            submission(external_id="known"),
            submission(external_id="a"),
            submission(external_id="a"),
            submission(external_id="a", actor_user_id="bob"),
            submission(external_id="b", occurred_time=late),
            submission(external_id="b", occurred_time=soon),
        ]
    )
    assert answers[0] == known.again()
    assert isinstance(answers[1], Receipt)
    assert answers[2] == answers[1].again()
    assert isinstance(answers[3], ExternalIdReused)
    assert isinstance(answers[4], OccurredInFuture)
    assert isinstance(answers[5], Receipt)
    assert not answers[5].duplicate
    assert connect.count("events") == connect.count("evaluations") == 3


async def test_slow_rules_spread_a_batch_over_transactions(
    connect: ConnectDatabase, one: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    await one.create(rule("quest-reward"))
    known = await one.intake.submit(submission(external_id="known"))
    sent = [submission(external_id=name) for name in ("a", "known", "b", "a", "c")]
    monkeypatch.setattr(pacing, "LONGEST_SECONDS", 0.0)
    answers = await one.intake.submit_many(sent)
    first, *others = [each for each in answers if isinstance(each, Receipt)]
    assert others == [known.again(), others[1], first.again(), others[3]]
    assert not any(each.duplicate for each in (first, others[1], others[3]))
    assert connect.query("SELECT count(*), count(DISTINCT xmin::text) FROM events") == [(4, 4)]
    assert connect.count("reward_actions") == connect.count("reward_queue") == 4


def test_a_batch_answers_up_to_the_first_undecided_event() -> None:
    batch = Batch(Catalogue(1, ()), Moment(datetime.now(UTC), 1), {})
    for name in ("a", "a", "b", "a", "c"):
        batch.enter(submission(external_id=name), None)
    first, *_ = [settle(propose(trial, {}), Usage()) for trial in batch.trials]
    batch.conclude([first])
    [taken] = batch.taken
    assert batch.answers == [taken.receipt, taken.receipt.again()]


async def test_replicas_that_take_in_the_same_events_take_each_once(
    connect: ConnectDatabase, one: Replica
) -> None:
    await one.create(rule("quest-reward"))
    sent = [submission(external_id=f"e-{number}") for number in range(40)]
    async with replica(connect) as two:
        answers = await asyncio.gather(
            *(
                each.intake.submit(submission)
                for submission in sent
                for each in (one, two, one, two)
            )
        )
    receipts = [answers[number : number + 4] for number in range(0, len(answers), 4)]
    for same in receipts:
        assert len({(each.event_id, each.action_ids) for each in same}) == 1
        assert sum(not each.duplicate for each in same) == 1
    counts = [connect.count(table) for table in ("event_keys", "events", "evaluations")]
    assert counts == [40, 40, 40]
    assert connect.count("reward_actions") == connect.count("reward_queue") == 40


async def test_a_rule_is_seen_by_the_next_event_on_any_replica(
    connect: ConnectDatabase, one: Replica
) -> None:
    async with replica(connect) as two:
        for each in (one, two):
            assert (await each.intake.submit(submission())).action_ids == ()
        created = await one.create(rule("quest-reward"))
        for each in (one, two):
            assert len((await each.intake.submit(submission())).action_ids) == 1

        created.state = created.STATE_PAUSED
        paused = await two.update(created)
        for each in (one, two):
            assert (await each.intake.submit(submission())).action_ids == ()

        paused.state = paused.STATE_ENABLED
        paused.actions[0].credit_points.amount = "99"
        await one.update(paused)
        for each in (one, two):
            receipt = await each.intake.submit(submission())
            [record] = await each.actions_of(receipt.event_id)
            assert record.action.command == {"unit": "G2A", "amount": 99}
            assert record.action.rule_version == 3


async def test_rules_and_events_written_at_once_agree(
    connect: ConnectDatabase, one: Replica
) -> None:
    """Each event names a catalogue version; recomputing from it gives what was stored."""

    async def write_rules() -> None:
        for number in range(12):
            await one.create(rule(f"rule-{number}"))

    async def send_events(sender: Replica) -> list[Receipt]:
        return [await sender.intake.submit(submission()) for _ in range(25)]

    async with replica(connect) as two:
        await asyncio.gather(write_rules(), send_events(one), send_events(two))
    rows = connect.query("SELECT catalog_version, jsonb_array_length(outcomes) FROM evaluations")
    assert len(rows) == 50
    assert all(version == outcomes for version, outcomes in rows)
    [(written, version)] = connect.query(
        "SELECT count(*), (SELECT version FROM rule_catalog) FROM rule_versions"
    )
    assert written == version == 12
