"""Where the command line connects to, as whom, and how it says what went wrong."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import grpc
import typer
from rich.console import Console
from rich.text import Text

from mesh.client import open_channel
from mesh.config import ConfigurationError, TlsFiles
from mesh.errors import Kind, MeshError

T = TypeVar("T")

_WIDTH_OF_PIPES = 200
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Verbatim(Console):
    """Shows what others wrote as it stands: nothing in it is markup, or obeyed by a terminal."""

    def __init__(self, width: int | None = None) -> None:
        super().__init__(width=width, highlight=False, markup=False, emoji=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """As the parent does, with a mark in the place of every control character."""
        return super().render_str(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", text), **how)


def output() -> Console:
    """The terminal, or a pipe with room for whole ids."""
    console = Verbatim()
    return console if console.is_terminal else Verbatim(_WIDTH_OF_PIPES)


@dataclass(frozen=True)
class Session:
    """The service to call and the certificate to call it with; None where it was not told."""

    address: str | None
    cert: Path | None
    key: Path | None
    ca: Path | None

    def run(self, work: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
        """Does `work` with a channel to the service; ends the command when the service refuses."""
        try:
            return asyncio.run(self._run(work))
        except ConfigurationError as error:
            fail([error])
        except MeshError as error:
            told = [f"{error.reason}: {error.message}"]
            # UNIMPLEMENTED is what another service's port answers.
            if error.kind is Kind.UNAVAILABLE or "UNIMPLEMENTED" in error.message:
                told.append(
                    f"Check that Connect serves at {self.address} (--address), and that --cert "
                    "and --ca are of its mesh."
                )
            fail(told)

    async def _run(self, work: Callable[[grpc.aio.Channel], Awaitable[T]]) -> T:
        if not (self.address and self.cert and self.key and self.ca):
            told = {"address": self.address, "cert": self.cert, "key": self.key, "ca": self.ca}
            missing = [name for name, value in told.items() if not value]
            options = " ".join(f"--{name}" for name in missing)
            variables = " ".join(f"GO2ASIA_{name.upper()}" for name in missing)
            fail([f"Where to connect is not told; give {options}, or set {variables}."])
        tls = TlsFiles(cert=self.cert, key=self.key, ca=self.ca)
        async with open_channel(self.address, tls) as channel:
            return await work(channel)


def session(context: typer.Context) -> Session:
    """What the options before the command say."""
    found = context.find_object(Session)
    if found is None:
        raise RuntimeError("a command was called outside of the application")
    return found


def dooms_all(error: MeshError) -> bool:
    """Whether it has to do with the service or the caller: other input would fare no better."""
    return error.transient or error.kind in (Kind.PERMISSION_DENIED, Kind.UNAUTHENTICATED)


def fail(lines: Iterable[object]) -> NoReturn:
    """Says why on standard error and ends the command with code 1."""
    for line in lines:
        typer.echo(str(line), err=True)
    raise typer.Exit(1)
