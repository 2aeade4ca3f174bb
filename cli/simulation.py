"""`go2asia rules simulate`: what the rules would give for events that nobody submits."""

from pathlib import Path
from typing import Annotated

import grpc
import typer
from go2asia.connect.v1 import rules_pb2 as pb
from go2asia.connect.v1.rules_pb2_grpc import RuleServiceStub
from rich.table import Table

from cli.actions import action_table
from cli.documents import Document
from cli.events import events_of, outcome_row
from cli.rules import Rule, rules_of
from cli.session import dooms_all, fail, output, session
from mesh.errors import MeshError


def simulate(
    context: typer.Context,
    events: Annotated[
        Path,
        typer.Argument(
            metavar="EVENTS", exists=True, dir_okay=False, help="JSON Lines, one event a line."
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="YAML file with the rule to try."),
    ] = None,
    rule: Annotated[str, typer.Option(help="Which rule of --file, if it has several.")] = "",
    drafts: Annotated[bool, typer.Option(help="Let drafts take part.")] = False,
) -> None:
    """Show what would be given for each event of EVENTS, and why not; write nothing.

    A line that cannot be used is told and the others are tried.
    """
    if rule and not file:
        fail(["--rule chooses among the rules of a file; give that with --file."])
    tried = _rule(file, rule) if file else None
    documents, mistakes = events_of(events)

    async def work(channel: grpc.aio.Channel) -> None:
        rules = RuleServiceStub(channel)
        for each in documents:
            request = pb.SimulateEventRequest(
                event=each.message, rule=tried.message if tried else None, with_drafts=drafts
            )
            try:
                answer = await rules.SimulateEvent(request)
            except MeshError as error:
                if dooms_all(error):
                    raise
                if tried and (error.field or "").startswith("rule"):
                    fail([tried.refusal(error, "rule")])
                mistakes.append(each.refusal(error, "event"))
            else:
                _show(f"{each.message.source}/{each.message.external_id}", answer)

    session(context).run(work)
    if mistakes:
        mistakes.sort(key=lambda mistake: mistake.line)
        fail(mistakes)


def _rule(file: Path, rule_id: str) -> Document[Rule]:
    rules = {each.message.rule_id: each for each in rules_of(file)}
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
