"""`go2asia rules simulate`: what the rules would give for events that nobody submits."""

from pathlib import Path
from typing import Annotated

import grpc
import typer
from go2asia.connect.v1 import rules_pb2 as pb
from go2asia.connect.v1.rules_pb2_grpc import RuleServiceStub
from rich.table import Table

from cli.actions import action_table
from cli.documents import read_events
from cli.events import outcome_row
from cli.rules import Rule, rules_of
from cli.session import fail, output, session


def simulate(
    context: typer.Context,
    events: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="JSON Lines, one event a line.")
    ],
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="YAML file with the rule to try."),
    ] = None,
    rule: Annotated[str, typer.Option(help="Which rule of --file, if it has several.")] = "",
    drafts: Annotated[bool, typer.Option(help="Let drafts take part.")] = False,
) -> None:
    """Show what would be given for each event of EVENTS, and why not; write nothing."""
    tried = _rule(file, rule) if file else None
    documents, mistakes = read_events(events)
    if mistakes:
        fail(mistakes)

    async def work(channel: grpc.aio.Channel) -> list[pb.SimulateEventResponse]:
        rules = RuleServiceStub(channel)
        return [
            await rules.SimulateEvent(
                pb.SimulateEventRequest(event=each.message, rule=tried, with_drafts=drafts)
            )
            for each in documents
        ]

    for document, answer in zip(documents, session(context).run(work), strict=True):
        _show(f"{document.message.source}/{document.message.external_id}", answer)


def _rule(file: Path, rule_id: str) -> Rule:
    rules = {each.message.rule_id: each.message for each in rules_of(file)}
    if not rule_id and len(rules) == 1:
        [rule_id] = rules
    if rule_id not in rules:
        fail([f"{file} has the rules {', '.join(rules)}; name the one to try with --rule."])
    return rules[rule_id]


def _show(title: str, answer: pb.SimulateEventResponse) -> None:
    console = output()
    table = Table("rule", "version", "result", "why", title=title)
    for told in answer.explanations:
        table.add_row(*outcome_row(told.outcome))
    console.print(table)
    if answer.omitted:
        console.print(f"and {answer.omitted} more whose condition is false")
    if answer.actions:
        console.print(action_table(answer.actions))
