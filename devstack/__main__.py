"""`python -m devstack up | demo | status | down`: the stack from the command line."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from devstack.composition import OPERATOR, SERVICES, Service
from devstack.demo.run import play
from devstack.demo.script import Files
from devstack.process import StartError
from devstack.stack import DEFAULT_STATE, Stack
from devstack.state import StackRunningError, published, running_pid

app = typer.Typer(
    help="The reward mesh on one machine.", no_args_is_help=True, pretty_exceptions_enable=False
)
State = Annotated[
    Path, typer.Option(envvar="DEVSTACK_STATE", help="Folder that holds all state of the stack.")
]
Only = Annotated[
    list[Service] | None,
    typer.Option(help="Start this service and what it needs, not all; may be repeated."),
]


@app.command()
def up(state: State = DEFAULT_STATE, only: Only = None) -> None:
    """Start everything and serve until Ctrl-C."""
    for sign in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(sign, _interrupt)
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    services = only or SERVICES
    try:
        with Stack.running(state, services=services) as stack:
            typer.echo(guide(stack, services))
            while stack.guarded:
                time.sleep(1)
            typer.echo("The watchdog is gone; stopping, as nothing would clean up after a crash.")
    except KeyboardInterrupt:
        typer.echo("Stopped.")
    except (StartError, StackRunningError) as error:
        typer.echo(f"\n{error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def demo(
    events: Annotated[Path, typer.Option(help="JSON Lines of go2asia.connect.v1.Event.")],
    rules: Annotated[Path, typer.Option(help="YAML list of go2asia.connect.v1.Rule.")],
    badges: Annotated[Path, typer.Option(help="YAML list of go2asia.nft.v1.NftType.")],
    state: State = DEFAULT_STATE,
    fresh: Annotated[bool, typer.Option(help="Forget what was played before.")] = False,
) -> None:
    """Play a file of events through a whole stack and audit what came out."""
    raise typer.Exit(play(Files(rules, badges, events), state, fresh))


@app.command()
def status(state: State = DEFAULT_STATE) -> None:
    """Show the processes of the stack that runs in the state folder."""
    processes = published(state.resolve()).get("processes")
    if processes is None:
        typer.echo(f"No stack runs in {state}. Start one with `python -m devstack up`.")
        raise typer.Exit(1)
    typer.echo(f"{'process':<18} {'state':<11} {'pid':>8} {'port':>6} {'restarts':>8}")
    for process in processes:
        typer.echo(
            f"{process['name']:<18} {process['state']:<11} {process['pid'] or '-':>8} "
            f"{process['port']:>6} {process['restarts']:>8}"
        )


@app.command()
def down(state: State = DEFAULT_STATE, within: float = 60) -> None:
    """Stop the stack that runs in the state folder."""
    pid = running_pid(state.resolve())
    if pid is None:
        typer.echo(f"No stack runs in {state}.")
        return
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + within
    while running_pid(state.resolve()) == pid:
        if time.monotonic() > deadline:
            typer.echo(
                f"The stack (process {pid}) still runs after {within:.0f} s. `kill -9 {pid}` ends "
                "it; its watchdog then clears up.",
                err=True,
            )
            raise typer.Exit(1)
        time.sleep(0.2)
    typer.echo("Stopped.")


def guide(stack: Stack, services: Sequence[str]) -> str:
    """What a developer needs to find their way in a running stack."""
    tls = stack.tls(OPERATOR)
    lines = [f"  {name:<8} {stack.address(name)}  {stack.metrics_url(name)}" for name in services]
    if "connect" in services:
        lines.append(f"  {'nats':<8} {stack.nats_url}")
    if "gateway" in services:
        lines.append(f"  {'TON':<8} {stack.ton_config}")
    return "\n".join(
        [
            "\nThe stack is up.",
            *lines,
            f"certificates  {stack.certificates}/<role>/<name>.pem, .key",
            f"logs          {stack.logs}/<name>.log",
            "Ask a service whether it serves:",
            f"  buf curl --protocol grpc --cacert {tls.ca} --cert {tls.cert} --key {tls.key} \\",
            f"    https://{stack.address(services[0])}/grpc.health.v1.Health/Check",
            "Ctrl-C stops everything.\n",
        ]
    )


def _interrupt(_sign: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end_with_parent(parent: int) -> None:
    """Nobody is left to press Ctrl-C once the process that started us is gone."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    app()
