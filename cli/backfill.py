"""`go2asia rules backfill`: what a rule would give for stored events, and giving it."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import grpc
import typer
from go2asia.connect.v1 import backfills_pb2 as pb
from go2asia.connect.v1.backfills_pb2_grpc import BackfillServiceStub
from rich.table import Table

from cli.session import fail, output, session
from mesh.clock import new_id

if TYPE_CHECKING:
    from go2asia.connect.v1.backfills_pb2_grpc import BackfillServiceAsyncStub

_POLL_SECONDS = 0.5

Backfill = pb.Backfill


def backfill(
    context: typer.Context,
    rule_id: Annotated[str, typer.Argument(help="Which rule.")] = "",
    apply: Annotated[str, typer.Option(metavar="BACKFILL", help="Give what it previewed.")] = "",
) -> None:
    """Preview what a rule would give for stored events, or --apply a preview exactly."""
    if bool(rule_id) == bool(apply):
        fail(["Say one of both: a rule to preview, or --apply with the id of a preview."])

    async def work(channel: grpc.aio.Channel) -> Backfill:
        backfills = BackfillServiceStub(channel)
        if apply:
            asked = pb.ApplyBackfillRequest(request_id=f"cli-apply-{apply}", backfill_id=apply)
            started = (await backfills.ApplyBackfill(asked)).backfill
        else:
            request = pb.BackfillRuleRequest(request_id=new_id(), rule_id=rule_id)
            started = (await backfills.BackfillRule(request)).backfill
        return await _ended(backfills, started)

    done = session(context).run(work)
    tally = done.result if apply else done.preview
    table = Table("what", "", "actions", "amount")
    for total in tally.totals:
        table.add_row(total.kind, total.what, str(total.actions), str(total.amount))
    verb = "were" if apply else "would be"
    output().print(
        f"{done.rule_id}, version {done.rule_version}: {tally.events} events {verb} rewarded, "
        f"{tally.held} are rewarded already, {tally.reversed} were taken back"
    )
    for result, events in sorted(tally.stopped.items()):
        output().print(f"{result}: {events}")
    output().print(table)
    if not apply:
        output().print(f"To give this: go2asia rules backfill --apply {done.backfill_id}")


async def _ended(backfills: "BackfillServiceAsyncStub", started: Backfill) -> Backfill:
    """Waits until a preview or its application has ended."""
    under_way = (Backfill.STATE_PREVIEWING, Backfill.STATE_APPLYING)
    request = pb.GetBackfillRequest(backfill_id=started.backfill_id)
    while True:
        backfill = (await backfills.GetBackfill(request)).backfill
        if backfill.state not in under_way:
            return backfill
        await asyncio.sleep(_POLL_SECONDS)
