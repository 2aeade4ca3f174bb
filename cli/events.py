"""`go2asia events`: send events from a file, see what became of one, watch them come in."""

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import grpc
import typer
from go2asia.connect.v1 import events_pb2 as pb
from go2asia.connect.v1.events_pb2_grpc import EventServiceStub
from google.protobuf import json_format
from rich.table import Table
from rich.text import Text

from cli.actions import action_table
from cli.documents import Document, Mistake, read_events
from cli.session import fail, output, session
from mesh.clock import new_id
from mesh.status import from_item_error

if TYPE_CHECKING:
    from go2asia.connect.v1.events_pb2_grpc import EventServiceAsyncStub

app = typer.Typer(help="Send events and see what became of them.", no_args_is_help=True)

_BATCH = 100
_PAGE = 200
_POLL_SECONDS = 1.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_MARKS = {
    pb.ConditionPart.VALUE_TRUE: Text("true", "green"),
    pb.ConditionPart.VALUE_FALSE: Text("false", "red"),
    pb.ConditionPart.VALUE_ERROR: Text("error", "yellow"),
}


@app.command()
def submit(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", exists=True, dir_okay=False, help="JSON Lines, one event a line."
        ),
    ],
) -> None:
    """Send the events of FILE; those that were taken in before change nothing.

    A line that cannot be used is told and the others are sent.
    """
    documents, mistakes = events_of(file)

    async def work(channel: grpc.aio.Channel) -> list[pb.EventReceipt]:
        events = EventServiceStub(channel)
        receipts: list[pb.EventReceipt] = []
        for start in range(0, len(documents), _BATCH):
            batch = documents[start : start + _BATCH]
            results = await _send(events, batch)
            for index, (document, result) in enumerate(zip(batch, results, strict=True)):
                if result.HasField("error"):
                    error = from_item_error(result.error)
                    mistakes.append(document.refusal(error, f"events[{index}]"))
                else:
                    receipts.append(result.receipt)
        return receipts

    receipts = session(context).run(work) if documents else []
    again = sum(receipt.duplicate for receipt in receipts)
    actions = sum(len(receipt.action_ids) for receipt in receipts if not receipt.duplicate)
    output().print(
        f"{len(receipts) - again} taken in with {actions} actions, {again} known before, "
        f"{len(mistakes)} refused"
    )
    if mistakes:
        mistakes.sort(key=lambda mistake: mistake.line)
        fail(mistakes)


@app.command()
def show(
    context: typer.Context,
    event: Annotated[str, typer.Argument(help="An event id, or source/external-id.")],
    rule: Annotated[str, typer.Option(help="Explain why this rule did or did not fire.")] = "",
) -> None:
    """Tell the story of an event: what was decided and why, and what became of its actions."""

    async def explain(channel: grpc.aio.Channel) -> pb.ExplainEventResponse:
        request = pb.ExplainEventRequest(rule_id=rule)
        _name(request, event)
        return await EventServiceStub(channel).ExplainEvent(request)

    async def tell(channel: grpc.aio.Channel) -> pb.GetEventResponse:
        request = pb.GetEventRequest()
        _name(request, event)
        return await EventServiceStub(channel).GetEvent(request)

    if rule:
        _show_explanation(session(context).run(explain))
    else:
        _show_story(session(context).run(tell))


@app.command()
def reverse(
    context: typer.Context,
    event: Annotated[str, typer.Argument(help="An event id, or source/external-id.")],
    reason: Annotated[str, typer.Option(help="Why, for those who ask later.")],
) -> None:
    """Take back all that an event gave, once; by source/external-id also before it arrives."""
    request = pb.ReverseEventRequest(request_id=new_id(), reason=reason)
    _name(request, event)

    async def work(channel: grpc.aio.Channel) -> pb.ReverseEventResponse:
        return await EventServiceStub(channel).ReverseEvent(request)

    answer = session(context).run(work)
    console = output()
    console.print(_reversal_line(answer.reversal), soft_wrap=True)
    console.print(action_table(answer.actions))


@app.command()
def tail(
    context: typer.Context,
    event_type: Annotated[str, typer.Option(help="Only events of this type.")] = "",
    actor: Annotated[str, typer.Option(help="Only events of this user.")] = "",
    last: Annotated[int, typer.Option(min=1, max=_PAGE, help="Begin with this many.")] = 10,
    follow: Annotated[bool, typer.Option(help="Go on until Ctrl-C.")] = True,
) -> None:
    """Show the newest events, and further ones as they come in."""
    request = pb.ListEventsRequest(event_type=event_type, actor_user_id=actor, page_size=_PAGE)

    async def work(channel: grpc.aio.Channel) -> None:
        events = EventServiceStub(channel)
        newest = list((await events.ListEvents(request)).events)
        _show_lines(reversed(newest[:last]))
        while follow:
            await asyncio.sleep(_POLL_SECONDS)
            seen = {event.event_id for event in newest}
            newest = await _down_to(events, request, seen)
            _show_lines(reversed([event for event in newest if event.event_id not in seen]))

    session(context).run(work)


def events_of(file: Path) -> tuple[list[Document[pb.Event]], list[Mistake]]:
    """What `read_events` finds in a file; ends the command when that is nothing at all."""
    documents, mistakes = read_events(file)
    if not documents and not mistakes:
        fail([f"{file} has no events; write one a line into it."])
    return documents, mistakes


async def _send(
    events: "EventServiceAsyncStub", batch: list[Document[pb.Event]]
) -> Iterable[pb.SubmitEventResult]:
    request = pb.BatchSubmitEventsRequest(events=[document.message for document in batch])
    return (await events.BatchSubmitEvents(request)).results


async def _down_to(
    events: "EventServiceAsyncStub", request: pb.ListEventsRequest, seen: set[str]
) -> list[pb.Event]:
    """Whole pages, newest first, down to the first that has an event of `seen`."""
    query, found = pb.ListEventsRequest(), list[pb.Event]()
    query.CopyFrom(request)
    while True:
        page = await events.ListEvents(query)
        found += page.events
        if not page.next_page_token or any(event.event_id in seen for event in page.events):
            return found
        query.page_token = page.next_page_token


def _name(
    request: pb.GetEventRequest | pb.ExplainEventRequest | pb.ReverseEventRequest, event: str
) -> None:
    """Puts into the request which event is meant: an id, or source and external id."""
    if _UUID.fullmatch(event):
        request.event_id = event
        return
    source, _, external_id = event.partition("/")
    if not (source and external_id):
        fail([f"{event!r} is no event; give its id, or its source and external id as quest/42."])
    request.external_key.source, request.external_key.external_id = source, external_id


def _show_lines(events: Iterable[pb.Event]) -> None:
    for event in events:
        output().print(
            f"{event.received_time.ToJsonString()}  {event.event_id}  {event.event_type}  "
            f"{event.actor_user_id}  {event.source}/{event.external_id}",
            soft_wrap=True,
        )


def _show_story(story: pb.GetEventResponse) -> None:
    console = output()
    console.print_json(json_format.MessageToJson(story.event, preserving_proto_field_name=True))
    table = Table("rule", "version", "result", "why", title="Decided")
    for outcome in story.evaluation.outcomes:
        table.add_row(*outcome_row(outcome))
    console.print(table)
    if story.HasField("reversal"):
        console.print(_reversal_line(story.reversal), soft_wrap=True)
    console.print(action_table(story.actions))


def _show_explanation(told: pb.ExplainEventResponse) -> None:
    console = output()
    _, version, result, why = outcome_row(told.explanation.outcome)
    console.print(f"{result} (version {version}): {why}")
    for part in told.explanation.parts:
        place = f"{part.line}:{part.column}"
        detail = f"  ({part.detail})" if part.detail else ""
        console.print(" ", _MARKS[part.value], f" {place}  {part.text}{detail}")
    if told.actions:
        console.print(action_table(told.actions))


def _reversal_line(told: pb.EventReversal) -> str:
    early = ", before it arrived," if told.before_arrival else ""
    when = told.reverse_time.ToJsonString()
    return f"Event {told.event_id} taken back{early} by {told.author} at {when}: {told.reason}"


def outcome_row(outcome: pb.RuleOutcome) -> tuple[str, str, str, str]:
    """A rule, its version, what came of it and why, for a table."""
    result = pb.RuleOutcome.Result.Name(outcome.result).removeprefix("RESULT_")
    return outcome.rule_id, str(outcome.rule_version), result, outcome.detail
