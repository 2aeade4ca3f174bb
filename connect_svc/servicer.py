"""The RPCs of Connect: convert, hand over, convert back."""

from collections.abc import Callable
from typing import Any

import grpc
from go2asia.connect.v1 import (
    backfills_pb2,
    backfills_pb2_grpc,
    events_pb2,
    events_pb2_grpc,
    reward_actions_pb2,
    reward_actions_pb2_grpc,
    rules_pb2,
    rules_pb2_grpc,
)
from go2asia.mesh.v1.item_error_pb2 import ItemError

from connect_svc import authoring, backfilling, convert, inquiry, operating, reversing
from connect_svc.catalog import CatalogCache
from connect_svc.errors import RuleNotFound
from connect_svc.intake import Intake
from connect_svc.normalization import admit
from connect_svc.records import Receipt
from connect_svc.store import ActionStore, BackfillStore, EventStore, RuleStore
from mesh import idempotency, pagination
from mesh.db import Database
from mesh.identity import caller
from mesh.items import Batch

Mutation = (
    events_pb2.ReverseEventRequest
    | rules_pb2.CreateRuleRequest
    | rules_pb2.UpdateRuleRequest
    | rules_pb2.SetRuleStateRequest
    | backfills_pb2.BackfillRuleRequest
    | backfills_pb2.ApplyBackfillRequest
    | reward_actions_pb2.RetryRewardActionRequest
    | reward_actions_pb2.RetryRewardActionsRequest
    | reward_actions_pb2.CancelRewardActionRequest
)
Context = grpc.aio.ServicerContext[Any, Any]
_LAST_VERSION = 2**31 - 1


class EventServicer(events_pb2_grpc.EventServiceServicer):
    """Takes events in and back and tells their stories.

    `wake` is called when an event's rewards are to be taken back.
    """

    def __init__(self, intake: Intake, database: Database, *, wake: Callable[[], None]) -> None:
        self._intake = intake
        self._database = database
        self._wake = wake

    async def SubmitEvent(
        self, request: events_pb2.SubmitEventRequest, context: Context
    ) -> events_pb2.SubmitEventResponse:
        """Takes in one event."""
        receipt = await self._intake.submit(admit(request.event, caller(), "event"))
        return events_pb2.SubmitEventResponse(receipt=convert.receipt(receipt))

    async def BatchSubmitEvents(
        self, request: events_pb2.BatchSubmitEventsRequest, context: Context
    ) -> events_pb2.BatchSubmitEventsResponse:
        """Takes in events that are accepted or refused each by itself."""
        batch = Batch("events", request.events, lambda event: admit(event, caller(), path=""))
        answers = await batch.answers(self._intake.submit_many)
        return events_pb2.BatchSubmitEventsResponse(results=[_result(each) for each in answers])

    async def GetEvent(
        self, request: events_pb2.GetEventRequest, context: Context
    ) -> events_pb2.GetEventResponse:
        """Tells what was decided about an event and what became of it."""
        async with self._database.transaction(read_only=True) as connection:
            story = await inquiry.find_story(connection, _event_key(request), caller())
            records = await ActionStore(connection).of_event(story.event.event_id)
        return convert.story(story, records)

    async def ExplainEvent(
        self, request: events_pb2.ExplainEventRequest, context: Context
    ) -> events_pb2.ExplainEventResponse:
        """Tells what one rule did with an event, and why."""
        told = await inquiry.explain_event(
            self._database, _event_key(request), request.rule_id, caller()
        )
        return events_pb2.ExplainEventResponse(
            catalog_version=told.catalog_version,
            explanation=convert.explanation(told.explanation),
            actions=[convert.action_record(record) for record in told.actions],
        )

    async def ReverseEvent(
        self, request: events_pb2.ReverseEventRequest, context: Context
    ) -> events_pb2.ReverseEventResponse:
        """Takes back what an event gave."""
        author = caller()
        key = _key(str(author), "ReverseEvent", request)
        answer = await reversing.reverse_event(
            self._database, key, author, _event_key(request), request.reason
        )
        self._wake()
        return answer

    async def ListEvents(
        self, request: events_pb2.ListEventsRequest, context: Context
    ) -> events_pb2.ListEventsResponse:
        """Lists events, newest first."""
        page = pagination.open_page(request)
        async with self._database.transaction(read_only=True) as connection:
            found = await EventStore(connection).page(
                request.actor_user_id,
                request.event_type,
                before=page.after_id(),
                size=page.limit,
            )
        events, token = page.fill(found, lambda event: event, lambda event: (event.event_id,))
        return events_pb2.ListEventsResponse(events=events, next_page_token=token)


class RuleServicer(rules_pb2_grpc.RuleServiceServicer):
    """Where economy managers write the rules and try them."""

    def __init__(self, database: Database, catalog: CatalogCache) -> None:
        self._database = database
        self._catalog = catalog

    async def CreateRule(
        self, request: rules_pb2.CreateRuleRequest, context: Context
    ) -> rules_pb2.CreateRuleResponse:
        """Creates a rule."""
        author = str(caller())
        rule = await authoring.create_rule(
            self._database, author, _key(author, "CreateRule", request), request.rule
        )
        return rules_pb2.CreateRuleResponse(rule=rule)

    async def UpdateRule(
        self, request: rules_pb2.UpdateRuleRequest, context: Context
    ) -> rules_pb2.UpdateRuleResponse:
        """Writes a rule's next version."""
        author = str(caller())
        rule = await authoring.update_rule(
            self._database, author, _key(author, "UpdateRule", request), request.rule
        )
        return rules_pb2.UpdateRuleResponse(rule=rule)

    async def SetRuleState(
        self, request: rules_pb2.SetRuleStateRequest, context: Context
    ) -> rules_pb2.SetRuleStateResponse:
        """Moves a rule to another state."""
        author = str(caller())
        key = _key(author, "SetRuleState", request)
        rule = await authoring.set_rule_state(
            self._database, author, key, request.rule_id, request.etag, request.state
        )
        return rules_pb2.SetRuleStateResponse(rule=rule)

    async def SimulateEvent(
        self, request: rules_pb2.SimulateEventRequest, context: Context
    ) -> rules_pb2.SimulateEventResponse:
        """Tells what would be decided about an event."""
        simulation = await inquiry.simulate_event(
            self._database,
            self._catalog,
            request.event,
            request.rule if request.HasField("rule") else None,
            with_drafts=request.with_drafts,
        )
        return convert.simulation(simulation)

    async def GetRule(
        self, request: rules_pb2.GetRuleRequest, context: Context
    ) -> rules_pb2.GetRuleResponse:
        """Reads a rule."""
        async with self._database.transaction(read_only=True) as connection:
            rule = await RuleStore(connection).current(request.rule_id)
        if rule is None:
            raise RuleNotFound(request.rule_id)
        return rules_pb2.GetRuleResponse(rule=rule)

    async def ListRules(
        self, request: rules_pb2.ListRulesRequest, context: Context
    ) -> rules_pb2.ListRulesResponse:
        """Lists rules, by rule id."""
        page = pagination.open_page(request)
        async with self._database.transaction(read_only=True) as connection:
            found = await RuleStore(connection).page(
                request.event_type, after=page.after_text() or "", size=page.limit
            )
        rules, token = page.fill(found, lambda rule: rule, lambda rule: (rule.rule_id,))
        return rules_pb2.ListRulesResponse(rules=rules, next_page_token=token)

    async def ListRuleVersions(
        self, request: rules_pb2.ListRuleVersionsRequest, context: Context
    ) -> rules_pb2.ListRuleVersionsResponse:
        """Lists a rule's versions, newest first."""
        page = pagination.open_page(request)
        async with self._database.transaction(read_only=True) as connection:
            found = await RuleStore(connection).versions(
                request.rule_id, before=page.after_number(_LAST_VERSION), size=page.limit
            )
        if not found and page.after is None:
            raise RuleNotFound(request.rule_id)
        versions, token = page.fill(
            found, lambda version: version, lambda version: (version.rule.version,)
        )
        return rules_pb2.ListRuleVersionsResponse(versions=versions, next_page_token=token)


class BackfillServicer(backfills_pb2_grpc.BackfillServiceServicer):
    """Where rules are tried on stored events; `wake` is called when one is to be."""

    def __init__(self, database: Database, *, wake: Callable[[], None]) -> None:
        self._database = database
        self._wake = wake

    async def BackfillRule(
        self, request: backfills_pb2.BackfillRuleRequest, context: Context
    ) -> backfills_pb2.BackfillRuleResponse:
        """Starts a preview."""
        author = str(caller())
        key = _key(author, "BackfillRule", request)
        started = await backfilling.start_backfill(self._database, key, author, request.rule_id)
        self._wake()
        return backfills_pb2.BackfillRuleResponse(backfill=started)

    async def ApplyBackfill(
        self, request: backfills_pb2.ApplyBackfillRequest, context: Context
    ) -> backfills_pb2.ApplyBackfillResponse:
        """Applies a preview."""
        key = _key(str(caller()), "ApplyBackfill", request)
        applying = await backfilling.apply_backfill(self._database, key, request.backfill_id)
        self._wake()
        return backfills_pb2.ApplyBackfillResponse(backfill=applying)

    async def GetBackfill(
        self, request: backfills_pb2.GetBackfillRequest, context: Context
    ) -> backfills_pb2.GetBackfillResponse:
        """Reads a backfill."""
        async with self._database.transaction(read_only=True) as connection:
            found = await backfilling.read_backfill(connection, request.backfill_id)
        return backfills_pb2.GetBackfillResponse(backfill=found)

    async def ListBackfillEvents(
        self, request: backfills_pb2.ListBackfillEventsRequest, context: Context
    ) -> backfills_pb2.ListBackfillEventsResponse:
        """Lists the events that a preview would reward."""
        page = pagination.open_page(request)
        async with self._database.transaction(read_only=True) as connection:
            await backfilling.read_backfill(connection, request.backfill_id)
            found = await BackfillStore(connection).page(
                request.backfill_id, after=page.after_id(), size=page.limit
            )
        response = backfills_pb2.ListBackfillEventsResponse(event_ids=found[: page.size])
        if len(found) > page.size:
            last = response.event_ids[-1]
            response.next_page_token = pagination.next_token(request, (last,))
        return response


class RewardActionServicer(reward_actions_pb2_grpc.RewardActionServiceServicer):
    """Shows the rewards on their way; `wake` is called when some are to be sent again."""

    def __init__(self, database: Database, *, wake: Callable[[], None]) -> None:
        self._database = database
        self._wake = wake

    async def GetRewardAction(
        self, request: reward_actions_pb2.GetRewardActionRequest, context: Context
    ) -> reward_actions_pb2.GetRewardActionResponse:
        """Reads one action."""
        async with self._database.transaction(read_only=True) as connection:
            action_id = convert.canonical(request.action_id)
            record = await inquiry.find_action(connection, action_id, caller())
        return reward_actions_pb2.GetRewardActionResponse(action=convert.action_record(record))

    async def ListRewardActions(
        self, request: reward_actions_pb2.ListRewardActionsRequest, context: Context
    ) -> reward_actions_pb2.ListRewardActionsResponse:
        """Lists actions, newest first."""
        page = pagination.open_page(request)
        async with self._database.transaction(read_only=True) as connection:
            found = await ActionStore(connection).page(
                event_id=request.event_id,
                state=convert.wanted_state(request.state),
                recipient_user_id=request.recipient_user_id,
                rule_id=request.rule_id,
                before=page.after_number(),
                size=page.limit,
            )
        actions, token = page.fill(found, convert.action_record, lambda record: (record.sequence,))
        return reward_actions_pb2.ListRewardActionsResponse(actions=actions, next_page_token=token)

    async def RetryRewardAction(
        self, request: reward_actions_pb2.RetryRewardActionRequest, context: Context
    ) -> reward_actions_pb2.RetryRewardActionResponse:
        """Sends a failed action again."""
        key = _key(str(caller()), "RetryRewardAction", request)
        action_id = convert.canonical(request.action_id)
        action = await operating.retry_action(self._database, key, action_id)
        self._wake()
        return reward_actions_pb2.RetryRewardActionResponse(action=action)

    async def RetryRewardActions(
        self, request: reward_actions_pb2.RetryRewardActionsRequest, context: Context
    ) -> reward_actions_pb2.RetryRewardActionsResponse:
        """Sends the failed actions of a filter again."""
        key = _key(str(caller()), "RetryRewardActions", request)
        answer = await operating.retry_actions(
            self._database, key, request.rule_id, request.recipient_user_id
        )
        self._wake()
        return answer

    async def CancelRewardAction(
        self, request: reward_actions_pb2.CancelRewardActionRequest, context: Context
    ) -> reward_actions_pb2.CancelRewardActionResponse:
        """Takes back an action that was never sent."""
        key = _key(str(caller()), "CancelRewardAction", request)
        action_id = convert.canonical(request.action_id)
        action = await operating.cancel_action(self._database, key, action_id)
        return reward_actions_pb2.CancelRewardActionResponse(action=action)

    async def CountRewardActions(
        self, request: reward_actions_pb2.CountRewardActionsRequest, context: Context
    ) -> reward_actions_pb2.CountRewardActionsResponse:
        """Counts actions by state."""
        async with self._database.transaction(read_only=True) as connection:
            return convert.counts(await ActionStore(connection).count())


def _event_key(
    request: events_pb2.GetEventRequest
    | events_pb2.ExplainEventRequest
    | events_pb2.ReverseEventRequest,
) -> events_pb2.ExternalKey | str:
    by_source = request.WhichOneof("key") == "external_key"
    return request.external_key if by_source else convert.canonical(request.event_id)


def _key(author: str, method: str, request: Mutation) -> idempotency.Key:
    fingerprint = idempotency.fingerprint(request)
    return idempotency.Key(f"{author}:{method}", request.request_id, fingerprint)


def _result(answer: Receipt | ItemError) -> events_pb2.SubmitEventResult:
    if isinstance(answer, Receipt):
        return events_pb2.SubmitEventResult(receipt=convert.receipt(answer))
    return events_pb2.SubmitEventResult(error=answer)
