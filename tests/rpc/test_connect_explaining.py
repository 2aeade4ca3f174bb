"""A rule author's questions over mutual TLS: what would happen, and why something did not."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2, rules_pb2

from connect_svc.errors import (
    ContextTooLarge,
    EtagMismatch,
    EventNotFound,
    InvalidExpression,
    RuleNotFound,
    RuleStateForbidden,
)
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.errors import InvalidArgument, PermissionDenied, RequestIdReused
from mesh.testing import LoopServer
from tests.integration.connect_replica import event, rule
from tests.rpc.connect_callers import (
    MANAGER,
    OPERATOR,
    QUEST,
    Caller,
    add_services,
    callers,
    services_on,
)

Rule = rules_pb2.Rule
Outcome = events_pb2.RuleOutcome
Part = events_pb2.ConditionPart


@pytest.fixture(scope="module")
def grpc_add_to_server() -> Any:
    return add_services


@pytest.fixture(scope="module")
def grpc_servicer(
    _grpc_server: LoopServer, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[tuple[Any, ...]]:
    with services_on(_grpc_server, postgres, make_database()) as services:
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


async def moved(manager: Caller, made: Rule, state: Rule.State.ValueType) -> Rule:
    request = rules_pb2.SetRuleStateRequest(
        request_id=f"{made.rule_id}-{made.version}-to-{state}",
        rule_id=made.rule_id,
        etag=made.etag,
        state=state,
    )
    return (await manager.rules.SetRuleState(request)).rule


async def explained(caller: Caller, event_id: str, rule_id: str) -> events_pb2.ExplainEventResponse:
    request = events_pb2.ExplainEventRequest(event_id=event_id, rule_id=rule_id)
    return await caller.events.ExplainEvent(request)


async def test_a_rule_goes_through_its_life(manager: Caller, operator: Caller) -> None:
    current = await manager.create(rule("life", "life.lived", state="STATE_DRAFT"))
    made = [current]
    for state in (Rule.STATE_ENABLED, Rule.STATE_PAUSED, Rule.STATE_ENABLED, Rule.STATE_PAUSED):
        current = await moved(manager, current, state)
        made.append(current)
    made.append(await moved(manager, current, Rule.STATE_ARCHIVED))
    assert [each.version for each in made] == [1, 2, 3, 4, 5, 6]
    assert made[-1].actions == made[0].actions
    with pytest.raises(RuleStateForbidden) as refused:
        await moved(manager, made[-1], Rule.STATE_ENABLED)
    assert refused.value.metadata == {"from": "ARCHIVED", "to": "ENABLED"}
    assert refused.value.field == "state"

    request = rules_pb2.ListRuleVersionsRequest(rule_id="life", page_size=4)
    first = await operator.rules.ListRuleVersions(request)
    request.page_token = first.next_page_token
    second = await operator.rules.ListRuleVersions(request)
    versions = [*first.versions, *second.versions]
    assert [version.rule for version in versions] == made[::-1]
    assert not second.next_page_token
    assert {version.author for version in versions} == {MANAGER}
    catalog_versions = [version.catalog_version for version in versions]
    assert catalog_versions == sorted(catalog_versions, reverse=True)


async def test_a_state_is_set_by_etag_and_once(manager: Caller, quest: Caller) -> None:
    made = await manager.create(rule("etag", "etag.used"))
    request = rules_pb2.SetRuleStateRequest(
        request_id="pause-etag", rule_id="etag", etag=made.etag, state=Rule.STATE_PAUSED
    )
    paused = await manager.rules.SetRuleState(request)
    assert await manager.rules.SetRuleState(request) == paused
    request.state = Rule.STATE_ARCHIVED
    with pytest.raises(RequestIdReused):
        await manager.rules.SetRuleState(request)
    request.request_id = "archive-etag"
    with pytest.raises(EtagMismatch) as refused:
        await manager.rules.SetRuleState(request)
    assert refused.value.field == "etag"
    with pytest.raises(PermissionDenied):
        await quest.rules.SetRuleState(request)
    with pytest.raises(RuleStateForbidden):
        await moved(manager, paused.rule, Rule.STATE_PAUSED)


async def test_malformed_requests_are_refused(manager: Caller, operator: Caller) -> None:
    request = rules_pb2.SetRuleStateRequest(request_id="x", rule_id="x", etag="v1")
    with pytest.raises(InvalidArgument) as refused:
        await manager.rules.SetRuleState(request)
    assert refused.value.field == "state"
    with pytest.raises(RuleNotFound):
        await operator.rules.ListRuleVersions(rules_pb2.ListRuleVersionsRequest(rule_id="nope"))


async def test_a_paused_rule_stops_at_once(manager: Caller, quest: Caller) -> None:
    made = await manager.create(rule("pausing", "pause.tried"))
    assert (await quest.submit(event(event_type="pause.tried"))).action_ids
    await moved(manager, made, Rule.STATE_PAUSED)
    assert not (await quest.submit(event(event_type="pause.tried"))).action_ids


async def test_the_false_part_of_a_condition_is_named(manager: Caller, quest: Caller) -> None:
    condition = "event.context.tier == 'gold' &&\n  event.context.nights > 2.0"
    await manager.create(rule("nights", "stay.ended", condition=condition))
    sent = event(event_type="stay.ended", context={"tier": "silver", "nights": 3})
    receipt = await quest.submit(sent)
    told = await explained(quest, receipt.event_id, "nights")
    assert told.explanation.outcome.result == Outcome.RESULT_CONDITION_FALSE
    tier, nights = told.explanation.parts
    assert (tier.text, tier.value) == ("event.context.tier == 'gold'", Part.VALUE_FALSE)
    assert (nights.text, nights.value) == ("event.context.nights > 2.0", Part.VALUE_TRUE)
    assert (nights.line, nights.column) == (2, 3)
    assert not told.actions
    by_key = events_pb2.ExplainEventRequest(
        external_key=events_pb2.ExternalKey(source="quest", external_id=sent.external_id),
        rule_id="nights",
    )
    assert await quest.events.ExplainEvent(by_key) == told


async def test_what_fired_is_told_with_its_rewards(manager: Caller, quest: Caller) -> None:
    await manager.create(rule("fired", "fire.lit", condition="event.actor_user_id == 'ada'"))
    await manager.create(rule("other", "fire.lit"))
    receipt = await quest.submit(event(event_type="fire.lit"))
    told = await explained(quest, receipt.event_id, "fired")
    assert told.explanation.outcome.result == Outcome.RESULT_MATCHED
    assert [part.value for part in told.explanation.parts] == [Part.VALUE_TRUE]
    [action] = told.actions
    assert (action.rule_id, action.credit_points.amount) == ("fired", 10)
    assert list(told.explanation.outcome.action_ids) == [action.action_id]


async def test_an_explanation_keeps_to_the_catalogue_that_decided(
    manager: Caller, quest: Caller
) -> None:
    made = await manager.create(rule("kept", "keep.sent", condition="event.context.n > 5.0"))
    receipt = await quest.submit(event(event_type="keep.sent", context={"n": 3}))
    await manager.create(rule("later", "keep.sent"))
    made.condition = "event.context.n > 1.0"
    await manager.rules.UpdateRule(rules_pb2.UpdateRuleRequest(request_id="update-kept", rule=made))
    told = await explained(quest, receipt.event_id, "kept")
    assert told.explanation.outcome.rule_version == 1
    assert told.explanation.parts[0].text == "event.context.n > 5.0"
    later = (await explained(quest, receipt.event_id, "later")).explanation.outcome
    assert later.result == Outcome.RESULT_NOT_ENABLED
    assert "not written yet" in later.detail


async def test_other_reasons_not_to_fire(manager: Caller, quest: Caller) -> None:
    await manager.create(rule("draft", "why.asked", state="STATE_DRAFT"))
    await manager.create(rule("elsewhere", "why.answered"))
    await manager.create(rule("closed", "why.asked", valid_to="2025-01-01T00:00:00Z"))
    await manager.create(rule("errs", "why.asked", condition="event.context.nope == 1.0"))
    receipt = await quest.submit(event(event_type="why.asked"))
    results = {
        rule_id: (await explained(quest, receipt.event_id, rule_id)).explanation.outcome.result
        for rule_id in ("draft", "elsewhere", "closed", "errs")
    }
    assert results == {
        "draft": Outcome.RESULT_NOT_ENABLED,
        "elsewhere": Outcome.RESULT_OTHER_EVENT_TYPE,
        "closed": Outcome.RESULT_OUTSIDE_WINDOW,
        "errs": Outcome.RESULT_ERROR,
    }
    with pytest.raises(RuleNotFound):
        await explained(quest, receipt.event_id, "nowhere")
    with pytest.raises(EventNotFound):
        await explained(quest, "01890a5d-ac96-774b-bcce-b302099a8057", "draft")


async def test_a_simulation_decides_as_the_real_thing_does_and_writes_nothing(
    manager: Caller, quest: Caller, operator: Caller
) -> None:
    await manager.create(rule("small", "trial.run", condition="event.context.n > 1.0"))
    await manager.create(rule("large", "trial.run", condition="event.context.n > 9.0"))
    sent = event(event_type="trial.run", context={"n": 3})
    tried = await manager.rules.SimulateEvent(rules_pb2.SimulateEventRequest(event=sent))
    listed = events_pb2.ListEventsRequest(event_type="trial.run")
    assert not (await operator.events.ListEvents(listed)).events

    receipt = await quest.submit(sent)
    assert not receipt.duplicate
    key = events_pb2.GetEventRequest(event_id=receipt.event_id)
    story = await quest.events.GetEvent(key)
    assert tried.catalog_version == story.evaluation.catalog_version
    large, small = tried.explanations
    assert small.outcome.result == story.evaluation.outcomes[0].result == Outcome.RESULT_MATCHED
    assert large.outcome.result == Outcome.RESULT_CONDITION_FALSE
    assert [part.value for part in large.parts] == [Part.VALUE_FALSE]
    assert [action.credit_points for action in tried.actions] == [
        action.credit_points for action in story.actions
    ]


async def test_drafts_and_a_rule_at_hand_can_be_tried(manager: Caller) -> None:
    await manager.create(rule("draft-tried", "draft.tried", state="STATE_DRAFT"))
    stored = await manager.create(rule("stored", "draft.tried", condition="false"))
    request = rules_pb2.SimulateEventRequest(event=event(event_type="draft.tried"))
    assert not (await manager.rules.SimulateEvent(request)).actions
    request.with_drafts = True
    tried = await manager.rules.SimulateEvent(request)
    assert [action.rule_id for action in tried.actions] == ["draft-tried"]
    request.rule.CopyFrom(stored)
    request.rule.condition = "true"
    tried = await manager.rules.SimulateEvent(request)
    assert [action.rule_id for action in tried.actions] == ["draft-tried", "stored"]
    request.rule.condition = "event.nope"
    with pytest.raises(InvalidExpression) as refused:
        await manager.rules.SimulateEvent(request)
    assert refused.value.metadata == {"line": "1", "column": "6"}


async def test_a_simulated_event_keeps_to_the_bounds_of_a_real_one(manager: Caller) -> None:
    request = rules_pb2.SimulateEventRequest(event=event(context={"text": "x" * 17_000}))
    with pytest.raises(ContextTooLarge):
        await manager.rules.SimulateEvent(request)
    request.event.CopyFrom(event(event_type="NOT A TYPE"))
    with pytest.raises(InvalidArgument) as refused:
        await manager.rules.SimulateEvent(request)
    assert refused.value.field == "event.event_type"
