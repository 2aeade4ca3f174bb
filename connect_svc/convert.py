"""Between the contract's messages and the service's terms; pure."""

from collections.abc import Sequence

from go2asia.connect.v1 import backfills_pb2, events_pb2, reward_actions_pb2, rules_pb2

from connect_svc.explanations import Explanation, PartValue, Simulation
from connect_svc.records import ActionRecord, BackfillRecord, Receipt, Reversal, State, Story
from connect_svc.rules import Action, Outcome
from connect_svc.tallies import Tally
from mesh.outbox import Work


def canonical(uuid: str) -> str:
    """A UUID as it is stored: the contract allows capitals, the queue knows ids as texts."""
    return uuid.lower()


def receipt(answer: Receipt) -> events_pb2.EventReceipt:
    """The durable answer to an event as the contract shows it."""
    return events_pb2.EventReceipt(
        event_id=answer.event_id,
        action_ids=answer.action_ids,
        duplicate=answer.duplicate,
        reversed=answer.reversed,
    )


def reward_action(action: Action) -> reward_actions_pb2.RewardAction:
    """An action as it was decided; also its form in the queue."""
    message = reward_actions_pb2.RewardAction(
        action_id=action.action_id,
        event_id=action.event_id,
        rule_id=action.rule_id,
        rule_version=action.rule_version,
        action_key=action.key,
        recipient_user_id=action.recipient,
        variant=action.variant,
    )
    command = getattr(message, action.kind)
    for name, value in action.command.items():
        setattr(command, name, value)
    return message


def action_record(record: ActionRecord) -> reward_actions_pb2.RewardAction:
    """A stored action with its present state as the contract shows it."""
    message = reward_action(record.action)
    message.state = reward_actions_pb2.RewardAction.State.Value(f"STATE_{record.state}")
    message.attempts = record.attempts
    message.last_error = record.last_error
    message.result = record.result
    message.create_time.FromDatetime(record.create_time)
    message.update_time.FromDatetime(record.update_time)
    message.reversal_error = record.reversal_error
    message.reversal_result = record.reversal_result
    message.backfill_id = record.backfill_id
    return message


def wanted_state(state: reward_actions_pb2.RewardAction.State.ValueType) -> State | None:
    """The state to filter by; None for all."""
    name = reward_actions_pb2.RewardAction.State.Name(state).removeprefix("STATE_")
    return State(name) if state else None


def story(told: Story, records: Sequence[ActionRecord]) -> events_pb2.GetEventResponse:
    """An event, what was decided about it, and its actions as the contract shows them."""
    return events_pb2.GetEventResponse(
        event=told.event,
        evaluation=events_pb2.Evaluation(
            catalog_version=told.catalog_version,
            outcomes=[_outcome(outcome) for outcome in told.outcomes],
        ),
        actions=[action_record(record) for record in records],
        reversal=event_reversal(told.reversal) if told.reversal else None,
    )


def event_reversal(told: Reversal) -> events_pb2.EventReversal:
    """How an event was taken back as the contract shows it."""
    message = events_pb2.EventReversal(
        event_id=told.event_id,
        reason=told.reason,
        author=told.author,
        before_arrival=told.before_arrival,
    )
    message.reverse_time.FromDatetime(told.reverse_time)
    return message


def explanation(told: Explanation) -> events_pb2.RuleExplanation:
    """What a rule did with an event, and why, as the contract shows it."""
    return events_pb2.RuleExplanation(
        outcome=_outcome(told.outcome), parts=[_part(value) for value in told.parts]
    )


def simulation(tried: Simulation) -> rules_pb2.SimulateEventResponse:
    """What would be decided about an event as the contract shows it."""
    return rules_pb2.SimulateEventResponse(
        catalog_version=tried.decision.catalog_version,
        explanations=[explanation(each) for each in tried.explanations],
        actions=[reward_action(action) for action in tried.decision.actions],
        omitted=tried.omitted,
    )


def counts(by_state: dict[State, int]) -> reward_actions_pb2.CountRewardActionsResponse:
    """How many actions are in each state as the contract shows it."""
    return reward_actions_pb2.CountRewardActionsResponse(
        pending=by_state[State.PENDING],
        dispatched=by_state[State.DISPATCHED],
        completed=by_state[State.COMPLETED],
        failed=by_state[State.FAILED],
        cancelled=by_state[State.CANCELLED],
        reversing=by_state[State.REVERSING],
        reversed=by_state[State.REVERSED],
        reversal_failed=by_state[State.REVERSAL_FAILED],
    )


def work(action: Action, lane: str, traceparent: str | None = None) -> Work:
    """An action as it waits in a lane; in the present trace unless another is given."""
    payload = reward_action(action).SerializeToString()
    line = action.recipient if action.ordered else None
    return Work(action.action_id, lane, payload, line, traceparent)


def backfill(record: BackfillRecord) -> backfills_pb2.Backfill:
    """A backfill as the contract shows it."""
    message = backfills_pb2.Backfill(
        backfill_id=record.backfill_id,
        rule_id=record.rule_id,
        rule_version=record.rule_version,
        state=backfills_pb2.Backfill.State.Value(f"STATE_{record.state}"),
        events_seen=record.events_seen,
        preview=_tally(record.preview),
        result=None if record.previewing else _tally(record.result),
        author=record.author,
    )
    if record.create_time is not None and record.update_time is not None:
        message.create_time.FromDatetime(record.create_time)
        message.update_time.FromDatetime(record.update_time)
    return message


def _part(value: PartValue) -> events_pb2.ConditionPart:
    return events_pb2.ConditionPart(
        text=value.part.expression.source,
        line=value.part.line,
        column=value.part.column,
        value=events_pb2.ConditionPart.Value.Value(f"VALUE_{value.value}"),
        detail=value.detail,
    )


def _outcome(outcome: Outcome) -> events_pb2.RuleOutcome:
    return events_pb2.RuleOutcome(
        rule_id=outcome.rule_id,
        rule_version=outcome.rule_version,
        result=events_pb2.RuleOutcome.Result.Value(f"RESULT_{outcome.result}"),
        detail=outcome.detail,
        action_ids=outcome.action_ids,
        variant=outcome.variant,
    )


def _tally(tally: Tally) -> backfills_pb2.BackfillTally:
    return backfills_pb2.BackfillTally(
        events=tally.events,
        held=tally.held,
        reversed=tally.reversed,
        stopped={result.value: count for result, count in tally.stopped.items()},
        totals=[
            backfills_pb2.BackfillTotal(
                kind=kind, what=what, actions=total.actions, amount=total.amount
            )
            for (kind, what), total in sorted(tally.totals.items())
        ],
    )
