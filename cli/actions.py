"""`go2asia actions`: the rewards on their way, and sending failed ones again."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated

import grpc
import typer
from go2asia.connect.v1 import reward_actions_pb2 as pb
from go2asia.connect.v1.reward_actions_pb2_grpc import RewardActionServiceStub
from rich.table import Table

from cli.session import dooms_all, fail, output, session
from mesh.clock import new_id
from mesh.errors import MeshError

app = typer.Typer(help="Follow rewards and send failed ones again.", no_args_is_help=True)
RuleId = Annotated[str, typer.Option("--rule", help="Only of this rule.")]
Recipient = Annotated[str, typer.Option(help="Only for this user.")]


class State(StrEnum):
    """States of an action, as people type them."""

    PENDING = "pending"
    DISPATCHED = "dispatched"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REVERSING = "reversing"
    REVERSED = "reversed"
    REVERSAL_FAILED = "reversal-failed"


@app.command("list")
def list_actions(
    context: typer.Context,
    state: Annotated[State | None, typer.Option(help="Only in this state.")] = None,
    rule: RuleId = "",
    recipient: Recipient = "",
    last: Annotated[int, typer.Option(min=1, max=500, help="At most this many.")] = 50,
) -> None:
    """List the newest actions."""
    request = pb.ListRewardActionsRequest(
        state=pb.RewardAction.State.Value(f"STATE_{state.name}")
        if state
        else pb.RewardAction.STATE_UNSPECIFIED,
        rule_id=rule,
        recipient_user_id=recipient,
        page_size=last,
    )

    async def work(channel: grpc.aio.Channel) -> pb.ListRewardActionsResponse:
        return await RewardActionServiceStub(channel).ListRewardActions(request)

    output().print(action_table(session(context).run(work).actions))


@app.command()
def retry(
    context: typer.Context,
    action_ids: Annotated[list[str] | None, typer.Argument(help="Failed actions.")] = None,
    rule: RuleId = "",
    recipient: Recipient = "",
    every: Annotated[bool, typer.Option("--all", help="All failed actions.")] = False,
) -> None:
    """Send failed actions again: those given, those of a rule or a user, or all."""
    if bool(action_ids) == bool(rule or recipient or every):
        fail(["Say which: give action ids, or --rule or --recipient, or --all."])

    refused = []

    async def one_by_one(channel: grpc.aio.Channel) -> int:
        actions, retried = RewardActionServiceStub(channel), 0
        for action_id in action_ids or ():
            request = pb.RetryRewardActionRequest(request_id=new_id(), action_id=action_id)
            try:
                await actions.RetryRewardAction(request)
            except MeshError as error:
                if dooms_all(error):
                    raise
                refused.append(f"{error.reason}: {error.message}")
            else:
                retried += 1
        return retried

    async def in_bulk(channel: grpc.aio.Channel) -> int:
        actions, retried, more = RewardActionServiceStub(channel), 0, True
        # What fails at once again would be found again, for ever: no more than failed at first.
        failed = (await actions.CountRewardActions(pb.CountRewardActionsRequest())).failed
        while more and retried < failed:
            response = await actions.RetryRewardActions(
                pb.RetryRewardActionsRequest(
                    request_id=new_id(), rule_id=rule, recipient_user_id=recipient
                )
            )
            retried += response.retried
            more = response.more
        return retried

    retried = session(context).run(one_by_one if action_ids else in_bulk)
    output().print(f"{retried} sent again")
    if refused:
        fail(refused)


def action_table(actions: Iterable[pb.RewardAction]) -> Table:
    """Actions as a table."""
    table = Table("action", "rule", "recipient", "command", "state", "attempts", "result or error")
    for action in actions:
        kind = action.WhichOneof("command") or ""
        command = getattr(action, kind) if kind else None
        what = " ".join(str(value) for _, value in command.ListFields()) if command else ""
        table.add_row(
            action.action_id,
            action.rule_id,
            action.recipient_user_id,
            f"{kind} {what}",
            pb.RewardAction.State.Name(action.state).removeprefix("STATE_"),
            str(action.attempts),
            action.reversal_error or action.result or action.last_error,
        )
    return table
