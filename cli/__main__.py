"""`go2asia`: write rules, send events, follow rewards. Also `python -m cli`."""

import logging
from pathlib import Path
from typing import Annotated

import structlog
import typer

from cli import actions, chain, events, rules
from cli.backfill import backfill
from cli.session import Session
from cli.simulation import simulate

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
rules.app.command()(simulate)
rules.app.command()(backfill)
app.add_typer(rules.app, name="rules")
app.add_typer(events.app, name="events")
app.add_typer(actions.app, name="actions")
app.add_typer(chain.app, name="chain")


@app.callback()
def connect(
    context: typer.Context,
    address: Annotated[
        str | None, typer.Option(envvar="GO2ASIA_ADDRESS", help="host:port of Connect.")
    ] = None,
    cert: Annotated[
        Path | None,
        typer.Option(
            envvar="GO2ASIA_CERT", exists=True, dir_okay=False, help="Your certificate chain, PEM."
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            envvar="GO2ASIA_KEY", exists=True, dir_okay=False, help="Your private key, PEM."
        ),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(envvar="GO2ASIA_CA", exists=True, dir_okay=False, help="The mesh's CA, PEM."),
    ] = None,
) -> None:
    """Write rules, send events, follow rewards.

    Options of the connection stand before the command, or in the environment.
    """
    context.obj = Session(address, cert, key, ca)


def main() -> None:
    """The console script's entry."""
    # What the client side tries again is not worth a line among the answers.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    app(prog_name="go2asia")


if __name__ == "__main__":
    main()
