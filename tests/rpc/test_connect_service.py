"""Connect's three services over mutual TLS on a real Postgres, called by our own client."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from go2asia.connect.v1 import (
    events_pb2,
    reward_actions_pb2,
    rules_pb2,
)

from connect_svc.errors import (
    ActionNotFound,
    ContextTooLarge,
    EventNotFound,
    ExternalIdReused,
    InvalidExpression,
    RuleNotFound,
    SourceNotOwned,
)
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.errors import InvalidArgument, Kind, PageTokenInvalid, PermissionDenied
from mesh.pagination import next_token
from mesh.testing import LoopServer
from tests.integration.connect_replica import event, rule
from tests.rpc.connect_callers import (
    BOOKING,
    MANAGER,
    OPERATOR,
    QUEST,
    Caller,
    add_services,
    callers,
    services_on,
)

RewardAction = reward_actions_pb2.RewardAction


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


async def test_the_story_of_an_event(quest: Caller, manager: Caller) -> None:
    made = rule(
        "story",
        "story.told",
        condition="event.context.pages > 3",
        actions=[
            {"key": "points", "credit_points": {"unit": "G2A", "amount": "150"}},
            {
                "key": "badge",
                "recipient": "event.primary_subject_user_id",
                "increment_progress": {"nft_type": "teller", "counter": "stories"},
            },
        ],
    )
    created = await manager.create(made)
    sent = event(event_type="story.told", primary_subject_user_id="bob", context={"pages": 7})
    receipt = await quest.submit(sent)

    key = events_pb2.ExternalKey(source="quest", external_id=sent.external_id)
    by_id = await quest.events.GetEvent(events_pb2.GetEventRequest(event_id=receipt.event_id))
    by_key = await quest.events.GetEvent(events_pb2.GetEventRequest(external_key=key))
    assert by_id == by_key
    assert by_id.event.context == sent.context
    [outcome] = by_id.evaluation.outcomes
    assert outcome.result == events_pb2.RuleOutcome.RESULT_MATCHED
    assert (outcome.rule_id, outcome.rule_version) == ("story", created.version)
    assert list(outcome.action_ids) == list(receipt.action_ids)
    points, badge = by_id.actions
    assert points.credit_points.amount == 150
    assert (badge.recipient_user_id, badge.increment_progress.amount) == ("bob", 1)
    assert {each.state for each in by_id.actions} == {RewardAction.STATE_PENDING}

    request = reward_actions_pb2.GetRewardActionRequest(action_id=points.action_id)
    assert (await quest.actions.GetRewardAction(request)).action == points


async def test_duplicates_and_reused_ids(quest: Caller) -> None:
    sent = event(event_type="dup.sent")
    first = await quest.submit(sent)
    again = await quest.submit(sent)
    assert (again.event_id, again.duplicate) == (first.event_id, True)
    sent.actor_user_id = "mallory"
    with pytest.raises(ExternalIdReused) as refused:
        await quest.submit(sent)
    assert refused.value.field == "event.external_id"


async def test_a_domain_service_reads_its_own_events_only(
    act: Callable[[str], Caller], quest: Caller, operator: Caller
) -> None:
    sent = event(event_type="mine.mine")
    receipt = await quest.submit(sent)
    booking = act(BOOKING)
    by_id = events_pb2.GetEventRequest(event_id=receipt.event_id)
    by_key = events_pb2.ExplainEventRequest(rule_id="any")
    by_key.external_key.source, by_key.external_key.external_id = sent.source, sent.external_id
    for asked in (booking.events.GetEvent(by_id), booking.events.ExplainEvent(by_key)):
        with pytest.raises(SourceNotOwned):
            await asked
    for reader in (quest, operator):
        assert (await reader.events.GetEvent(by_id)).event.source == "quest"


async def test_a_domain_service_reads_the_rewards_of_its_own_events_only(
    act: Callable[[str], Caller], quest: Caller, manager: Caller
) -> None:
    await manager.create(rule("own-rewards", "reward.owned"))
    [action_id] = (await quest.submit(event(event_type="reward.owned"))).action_ids
    request = reward_actions_pb2.GetRewardActionRequest(action_id=action_id)
    with pytest.raises(SourceNotOwned):
        await act(BOOKING).actions.GetRewardAction(request)
    for reader in (quest, manager):
        assert (await reader.actions.GetRewardAction(request)).action.action_id == action_id


async def test_many_identical_submits_at_once_are_one_event(
    quest: Caller, operator: Caller
) -> None:
    sent = event(event_type="storm.came")
    receipts = await asyncio.gather(*(quest.submit(sent) for _ in range(50)))
    assert len({receipt.event_id for receipt in receipts}) == 1
    assert sum(not receipt.duplicate for receipt in receipts) == 1
    listed = await operator.events.ListEvents(events_pb2.ListEventsRequest(event_type="storm.came"))
    assert len(listed.events) == 1


async def test_each_event_of_a_batch_fails_alone(quest: Caller) -> None:
    batch = [
        event(),
        event(actor_user_id=""),
        event(source="booking"),
        event(context={"text": "x" * 17_000}),
        event(),
    ]
    request = events_pb2.BatchSubmitEventsRequest(events=batch)
    first, no_actor, not_ours, too_large, last = (
        await quest.events.BatchSubmitEvents(request)
    ).results
    assert first.receipt.event_id
    assert last.receipt.event_id
    assert (no_actor.error.reason, no_actor.error.field) == (
        InvalidArgument.reason,
        "events[1].actor_user_id",
    )
    assert (not_ours.error.reason, not_ours.error.field) == (
        SourceNotOwned.reason,
        "events[2].source",
    )
    assert too_large.error.reason == ContextTooLarge.reason
    assert too_large.error.metadata["limit"] == "16384"


async def test_a_source_is_reported_by_its_owner_or_an_operator(
    quest: Caller, manager: Caller, operator: Caller
) -> None:
    with pytest.raises(SourceNotOwned) as refused:
        await quest.submit(event(source="booking"))
    assert refused.value.kind is Kind.PERMISSION_DENIED
    assert (await operator.submit(event(source="booking"))).event_id
    with pytest.raises(PermissionDenied):
        await manager.submit(event())
    with pytest.raises(PermissionDenied):
        await quest.create(rule("not-ours"))


async def test_a_malformed_event_is_refused_whole(quest: Caller) -> None:
    with pytest.raises(InvalidArgument) as refused:
        await quest.submit(event(event_id="01890a5d-ac96-774b-bcce-b302099a8057"))
    assert refused.value.field == "event.event_id"


async def test_a_mistake_in_a_rule_comes_back_with_its_place(manager: Caller) -> None:
    with pytest.raises(InvalidExpression) as refused:
        await manager.create(rule("wrong", condition="true &&\n event.contxt.x"))
    assert refused.value.field == "rule.condition"
    assert refused.value.metadata == {"line": "2", "column": "7"}


async def test_a_rule_is_updated_by_its_etag(manager: Caller, quest: Caller) -> None:
    made = await manager.create(rule("updated", "update.sent"))
    made.priority = 3
    request = rules_pb2.UpdateRuleRequest(request_id="update-1", rule=made)
    updated = (await manager.rules.UpdateRule(request)).rule
    assert (updated.version, updated.priority) == (2, 3)
    assert (await manager.rules.UpdateRule(request)).rule == updated
    found = await quest.rules.GetRule(rules_pb2.GetRuleRequest(rule_id="updated"))
    assert found.rule == updated


async def test_what_is_not_there(quest: Caller) -> None:
    nowhere = "01890a5d-ac96-774b-bcce-b302099a8057"
    with pytest.raises(EventNotFound):
        await quest.events.GetEvent(events_pb2.GetEventRequest(event_id=nowhere))
    unknown = events_pb2.ExternalKey(source="quest", external_id="nope")
    with pytest.raises(EventNotFound, match="quest/nope"):
        await quest.events.GetEvent(events_pb2.GetEventRequest(external_key=unknown))
    with pytest.raises(RuleNotFound):
        await quest.rules.GetRule(rules_pb2.GetRuleRequest(rule_id="nope"))
    with pytest.raises(InvalidArgument):
        await quest.rules.GetRule(rules_pb2.GetRuleRequest(rule_id="no\npe"))
    with pytest.raises(ActionNotFound):
        await quest.actions.GetRewardAction(
            reward_actions_pb2.GetRewardActionRequest(action_id=nowhere)
        )


async def test_a_text_that_no_database_holds_is_refused_with_its_place(operator: Caller) -> None:
    with pytest.raises(InvalidArgument) as rule_id:
        await operator.rules.GetRule(rules_pb2.GetRuleRequest(rule_id="a\0"))
    assert rule_id.value.field == "rule_id"
    with pytest.raises(InvalidArgument) as recipient:
        await operator.actions.ListRewardActions(
            reward_actions_pb2.ListRewardActionsRequest(recipient_user_id="\0")
        )
    assert recipient.value.field == "recipient_user_id"


async def test_a_page_token_that_nobody_gave_out_is_refused(operator: Caller) -> None:
    versions = rules_pb2.ListRuleVersionsRequest(rule_id="paged-0")
    versions.page_token = next_token(versions, (2**31,))
    with pytest.raises(PageTokenInvalid):
        await operator.rules.ListRuleVersions(versions)


async def test_lists_go_page_by_page(quest: Caller, manager: Caller, operator: Caller) -> None:
    for number in range(5):
        await manager.create(rule(f"paged-{number}", "page.turned"))
    receipts = [
        await quest.submit(event(event_type="page.turned", actor_user_id="reader"))
        for _ in range(5)
    ]

    async def pages(call: Any, request: Any, items: str) -> list[Any]:
        found: list[Any] = []
        while True:
            response = await call(request)
            page = getattr(response, items)
            assert len(page) <= request.page_size
            found += page
            if not response.next_page_token:
                return found
            request.page_token = response.next_page_token

    request = events_pb2.ListEventsRequest(actor_user_id="reader", page_size=2)
    found = await pages(operator.events.ListEvents, request, "events")
    newest_first = [receipt.event_id for receipt in reversed(receipts)]
    assert sorted(each.event_id for each in found) == sorted(newest_first)

    rules = rules_pb2.ListRulesRequest(event_type="page.turned", page_size=2)
    listed = await pages(operator.rules.ListRules, rules, "rules")
    assert [each.rule_id for each in listed] == [f"paged-{number}" for number in range(5)]

    actions = reward_actions_pb2.ListRewardActionsRequest(
        recipient_user_id="reader", state=RewardAction.STATE_PENDING, page_size=10
    )
    pending = await pages(operator.actions.ListRewardActions, actions, "actions")
    assert len({each.action_id for each in pending}) == 25
    assert [each.action_id for each in reversed(pending)] == [
        action_id for receipt in receipts for action_id in receipt.action_ids
    ]
    of_rule = reward_actions_pb2.ListRewardActionsRequest(rule_id="paged-3", page_size=10)
    assert len(await pages(operator.actions.ListRewardActions, of_rule, "actions")) == 5
    of_event = reward_actions_pb2.ListRewardActionsRequest(
        event_id=receipts[2].event_id, page_size=2
    )
    listed = await pages(operator.actions.ListRewardActions, of_event, "actions")
    assert [each.action_id for each in reversed(listed)] == list(receipts[2].action_ids)

    request.page_token, request.actor_user_id = "bm9uc2Vuc2U", "other"
    with pytest.raises(PageTokenInvalid):
        await operator.events.ListEvents(request)
