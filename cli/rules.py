"""`go2asia rules`: bring a file of rules into force, or see what that would change."""

import difflib
import hashlib
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import grpc
import typer
import yaml
from go2asia.connect.v1 import rules_pb2 as pb
from go2asia.connect.v1.rules_pb2_grpc import RuleServiceStub
from google.protobuf import json_format
from google.protobuf.message import Message
from rich.table import Table

from cli.documents import Document, Mistake, read_catalogue
from cli.session import dooms_all, fail, output, session
from mesh.errors import Kind, MeshError

if TYPE_CHECKING:
    from go2asia.connect.v1.rules_pb2_grpc import RuleServiceAsyncStub

app = typer.Typer(help="Write and list rules.", no_args_is_help=True)
File = Annotated[
    Path,
    typer.Argument(
        metavar="FILE", exists=True, dir_okay=False, help="YAML with a top-level list `rules:`."
    ),
]
Rule = pb.Rule


class State(StrEnum):
    """What a person may make of a rule."""

    ENABLED = "enabled"
    PAUSED = "paused"
    ARCHIVED = "archived"


_COLORS = {"+": "green", "-": "red", "@": "cyan"}


class Change(NamedTuple):
    """A rule as the file wants it, and as it is now; None if it is not there."""

    wanted: Document[Rule]
    current: Rule | None

    @property
    def needed(self) -> bool:
        """Whether the two differ in anything that an author writes."""
        return self.current is None or _authored(self.wanted.message, self.current) != _plain(
            self.current
        )


@app.command()
def apply(context: typer.Context, file: File) -> None:
    """Create the rules of FILE, or write new versions of those that differ.

    Nothing is written if FILE has a mistake that shows without asking the
    service. A rule that the service refuses is told with its line; the others
    are written.
    """
    wanted = rules_of(file)

    async def work(channel: grpc.aio.Channel) -> list[Mistake]:
        rules = RuleServiceStub(channel)
        mistakes = []
        for change in await _compare(rules, wanted):
            try:
                done = await _apply(rules, change)
            except MeshError as error:
                if dooms_all(error):
                    raise
                mistakes.append(change.wanted.refusal(error, "rule"))
            else:
                output().print(f"{change.wanted.message.rule_id}: {done}")
        return mistakes

    if mistakes := session(context).run(work):
        fail(mistakes)


@app.command()
def diff(context: typer.Context, file: File) -> None:
    """Show what `apply` would change, and change nothing."""
    wanted = rules_of(file)
    changes = session(context).run(lambda channel: _compare(RuleServiceStub(channel), wanted))
    console = output()
    for change in changes:
        if not change.needed:
            continue
        rule_id = change.wanted.message.rule_id
        now = _lines(_plain(change.current)) if change.current else []
        then = _lines(_authored(change.wanted.message, change.current))
        for line in difflib.unified_diff(
            now, then, f"{rule_id} (now)", f"{rule_id} ({file})", lineterm=""
        ):
            console.print(line, style=_COLORS.get(line[0]), soft_wrap=True)
    if not any(change.needed for change in changes):
        console.print("Nothing would change.")


@app.command("list")
def list_rules(
    context: typer.Context,
    event_type: Annotated[str, typer.Option(help="Only rules for this event type.")] = "",
) -> None:
    """List the rules in their current versions."""

    async def work(channel: grpc.aio.Channel) -> list[Rule]:
        rules, found = RuleServiceStub(channel), list[Rule]()
        request = pb.ListRulesRequest(event_type=event_type)
        while True:
            response = await rules.ListRules(request)
            found += response.rules
            if not response.next_page_token:
                return found
            request.page_token = response.next_page_token

    table = Table("rule", "version", "state", "event type", "priority", "condition")
    for rule in session(context).run(work):
        state = Rule.State.Name(rule.state).removeprefix("STATE_")
        table.add_row(
            rule.rule_id,
            str(rule.version),
            state,
            rule.event_type,
            str(rule.priority),
            rule.condition,
        )
    output().print(table)


@app.command()
def state(
    context: typer.Context,
    rule_id: Annotated[str, typer.Argument(help="Which rule.")],
    wanted: Annotated[
        State,
        typer.Argument(metavar="STATE", help="What it is to be."),
    ],
) -> None:
    """Enable, pause or archive a rule."""

    async def work(channel: grpc.aio.Channel) -> Rule:
        rules = RuleServiceStub(channel)
        current = (await rules.GetRule(pb.GetRuleRequest(rule_id=rule_id))).rule
        request = pb.SetRuleStateRequest(
            rule_id=rule_id,
            etag=current.etag,
            state=Rule.State.Value(f"STATE_{wanted.upper()}"),
        )
        request.request_id = _request_id("state", request)
        return (await rules.SetRuleState(request)).rule

    done = session(context).run(work)
    name = Rule.State.Name(done.state).removeprefix("STATE_").lower()
    output().print(f"{rule_id}: {name}, version {done.version}")


def rules_of(file: Path) -> list[Document[Rule]]:
    """The rules of a YAML file; ends the command when it has a mistake."""
    documents, mistakes = read_catalogue(file, "rules", Rule)
    seen: dict[str, int] = {}
    for document in documents:
        first = seen.setdefault(document.message.rule_id, document.line)
        if first != document.line:
            words = f"this rule stands in line {first} already; give it another id"
            mistakes.append(document.mistake("rule_id", words))
    if mistakes:
        mistakes.sort(key=lambda mistake: mistake.line)
        fail(mistakes)
    if not documents:
        fail([f"{file}: the list `rules:` is empty; write a rule into it."])
    return documents


async def _compare(rules: "RuleServiceAsyncStub", wanted: Sequence[Document[Rule]]) -> list[Change]:
    changes = []
    for document in wanted:
        try:
            request = pb.GetRuleRequest(rule_id=document.message.rule_id)
            current = (await rules.GetRule(request)).rule
        except MeshError as error:
            if error.kind is not Kind.NOT_FOUND:
                raise
            changes.append(Change(document, None))
        else:
            changes.append(Change(document, current))
    return changes


async def _apply(rules: "RuleServiceAsyncStub", change: Change) -> str:
    if not change.needed:
        return "unchanged"
    rule = Rule()
    rule.CopyFrom(change.wanted.message)
    if change.current is None:
        request = pb.CreateRuleRequest(request_id=_request_id("create", rule), rule=rule)
        made = (await rules.CreateRule(request)).rule
        return f"created, version {made.version}"
    rule.etag = change.current.etag
    update = pb.UpdateRuleRequest(request_id=_request_id("update", rule), rule=rule)
    return f"updated, version {(await rules.UpdateRule(update)).rule.version}"


def _request_id(verb: str, content: Message) -> str:
    """The same for the same content on the same version, so that a repetition changes nothing."""
    digest = hashlib.sha256(content.SerializeToString(deterministic=True)).hexdigest()
    return f"cli-{verb}-{digest[:40]}"


def _authored(wanted: Rule, current: Rule | None) -> dict[str, object]:
    """What would be stored: a state left out stays as it is, or is ENABLED at first."""
    rule = Rule()
    rule.CopyFrom(wanted)
    rule.state = wanted.state or (current.state if current else Rule.STATE_ENABLED)
    return _plain(rule)


def _plain(rule: Rule) -> dict[str, object]:
    plain = json_format.MessageToDict(rule, preserving_proto_field_name=True)
    return {name: value for name, value in plain.items() if name not in ("version", "etag")}


def _lines(plain: dict[str, object]) -> list[str]:
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).splitlines()
