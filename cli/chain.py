"""`go2asia chain`: the way to TON, as the Chain Gateway on this machine is configured."""

import subprocess
import sys

import typer

app = typer.Typer(help="Look after the way to TON.", no_args_is_help=True)


@app.callback()
def chain() -> None:
    """Look after the way to TON. Configured by the Gateway's own GATEWAY_* variables."""


@app.command()
def doctor() -> None:
    """Check config, lite-servers, clock, wallet, balance and collections, and say what to do.

    Exits with 1 if something keeps the Gateway from minting.
    """
    # A process of its own: the command line speaks to services, and imports none.
    raise typer.Exit(subprocess.run([sys.executable, "-m", "chain_gateway", "doctor"]).returncode)
