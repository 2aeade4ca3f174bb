"""The control channel's other end: tell a running network what to do to its clients."""

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from ton_devnet.control import HOST, Status
from ton_devnet.folder import StateFolder, StateFolderError


class ControlRefusedError(RuntimeError):
    """The network did not do it; the text is its own."""


class Controller:
    """Commands to the network that serves a state folder.

    Each gives the status after it: `head` and its `root_hash`, `head_time` and `time` (unix
    seconds), `pending` and `late` (delayed) messages, `frozen`, `faults`. Each raises
    ControlRefusedError, or StateFolderError when no network runs there.

    A fault hits a `share` (0 to 1) of what it is about, at most `next` times (None: until cleared).
    """

    def __init__(self, folder: StateFolder) -> None:
        self._folder = folder

    async def status(self) -> Status:
        return await self.send("status")

    async def drop(self, *, next: int | None = None, share: float = 1.0) -> Status:
        """Lose external messages after telling their senders that they were accepted."""
        return await self.send("drop", next=next, share=share)

    async def delay(self, seconds: float, *, next: int | None = None, share: float = 1.0) -> Status:
        """Let accepted external messages reach the queue this much later."""
        return await self.send("delay", seconds=seconds, next=next, share=share)

    async def error(
        self,
        queries: Iterable[str] = (),
        *,
        code: int = 652,
        message: str = "timeout",
        next: int | None = None,
        share: float = 1.0,
    ) -> Status:
        """Answer these queries (none named: all) with liteServer.error."""
        names = list(queries)
        return await self.send(
            "error", queries=names, code=code, message=message, next=next, share=share
        )

    async def timeout(
        self, queries: Iterable[str] = (), *, next: int | None = None, share: float = 1.0
    ) -> Status:
        """Never answer these queries (none named: all)."""
        return await self.send("timeout", queries=list(queries), next=next, share=share)

    async def clear(self) -> Status:
        """End all faults and thaw the head."""
        return await self.send("clear")

    async def freeze(self) -> Status:
        """Make no more blocks, but go on accepting messages and answering queries."""
        return await self.send("freeze")

    async def thaw(self) -> Status:
        return await self.send("thaw")

    async def blocks(self, count: int = 1) -> Status:
        """Make blocks now, frozen or not."""
        return await self.send("blocks", count=count)

    async def rollback(self, blocks: int, *, lose_externals: bool = False) -> Status:
        """Undo the newest blocks; the next one begins another fork.

        The external messages in them run again, or are lost.
        """
        return await self.send("rollback", blocks=blocks, lose_externals=lose_externals)

    async def set_time(self, utime: int) -> Status:
        """Move a manual clock to this unix time."""
        return await self.send("clock", utime=utime)

    async def advance_time(self, seconds: int) -> Status:
        """Move a manual clock on."""
        return await self.send("clock", advance=seconds)

    async def send(self, command: str, **arguments: Any) -> Status:
        """Any command by its name on the wire."""
        port, token = self._folder.read_control()
        request = {"token": token, "command": command, "arguments": arguments}
        try:
            reader, writer = await asyncio.open_connection(HOST, port)
        except OSError:
            raise self._silent() from None
        try:
            writer.write(json.dumps(request).encode() + b"\n")
            line = await reader.readline()
        finally:
            writer.close()
        if not line:
            raise self._silent()
        reply = json.loads(line)
        if "error" in reply:
            raise ControlRefusedError(reply["error"])
        result: Status = reply["result"]
        return result

    def _silent(self) -> StateFolderError:
        return StateFolderError(
            f"the network in {self._folder.path} does not answer; start it:"
            f" python -m ton_devnet serve --state {self._folder.path}"
        )
