"""The control channel: JSON lines over loopback TCP, from those who can read the state folder.

A request is {"token", "command", "arguments": {...}}, its reply {"result": {...}} with the status
after it, or {"error": "..."}.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ton_devnet.chain import Chain, TooFarBackError
from ton_devnet.clock import Clock, ClockError
from ton_devnet.faults import Delay, Drop, Effect, Failure, FaultError, Faults, Rule, Silence
from ton_devnet.intake import Intake
from ton_devnet.producer import Producer

HOST = "127.0.0.1"
MAX_BLOCKS = 10_000
Status = dict[str, Any]
log = logging.getLogger(__name__)


class CommandError(ValueError):
    """The request cannot be done; the text says what can."""


class Commands:
    """What the network can be told while it runs. Public methods are the commands."""

    def __init__(
        self,
        chain: Chain,
        producer: Producer,
        clock: Clock,
        faults: Faults,
        intake: Intake,
        queries: frozenset[str],
    ) -> None:
        self._chain, self._producer, self._clock = chain, producer, clock
        self._faults, self._intake, self._queries = faults, intake, queries

    def table(self) -> dict[str, Callable[..., Any]]:
        commands = (
            *(self.status, self.drop, self.delay, self.error, self.timeout, self.clear),
            *(self.freeze, self.thaw, self.blocks, self.rollback, self.clock),
        )
        return {command.__name__: command for command in commands}

    async def status(self) -> Status:
        head = self._chain.head
        return {
            "head": head.step.seqno,
            "root_hash": head.master.id.root_hash.hex(),
            "head_time": head.step.utime,
            "time": self._chain.now(),
            "pending": self._chain.pending,
            "late": self._intake.late,
            "frozen": self._producer.frozen,
            "faults": [_described(rule) for rule in self._faults.rules],
        }

    # External messages

    async def drop(self, *, share: float = 1.0, next: int | None = None) -> None:
        self._add(Drop(), (), share, next)

    async def delay(self, *, seconds: float, share: float = 1.0, next: int | None = None) -> None:
        self._add(Delay(seconds), (), share, next)

    # Queries

    async def error(
        self,
        *,
        queries: list[str],
        code: int = 652,
        message: str = "timeout",
        share: float = 1.0,
        next: int | None = None,
    ) -> None:
        self._add(Failure(code, message), queries, share, next)

    async def timeout(
        self, *, queries: list[str], share: float = 1.0, next: int | None = None
    ) -> None:
        self._add(Silence(), queries, share, next)

    def _add(
        self, effect: Effect, queries: list[str] | tuple[()], share: float, next: int | None
    ) -> None:
        if unknown := set(queries) - self._queries:
            raise FaultError(
                f"no such query: {', '.join(sorted(unknown))};"
                f" there are {', '.join(sorted(self._queries))}"
            )
        self._faults.add(Rule(effect, frozenset(queries), share, next))

    async def clear(self) -> None:
        """End all faults; what is already late still arrives at its time."""
        self._faults.clear()
        self._producer.thaw()

    # Blocks and time

    async def freeze(self) -> None:
        self._producer.freeze()

    async def thaw(self) -> None:
        self._producer.thaw()

    async def blocks(self, *, count: int = 1) -> None:
        """Make blocks now, frozen or not."""
        if not 1 <= count <= MAX_BLOCKS:
            raise CommandError(f"count is {count}: give 1 to {MAX_BLOCKS}")
        for _ in range(count):
            await self._producer.produce()

    async def rollback(self, *, blocks: int, lose_externals: bool = False) -> None:
        self._chain.roll_back(blocks, lose_externals=lose_externals)
        self._producer.wake()

    async def clock(self, *, utime: int | None = None, advance: int | None = None) -> None:
        """Move chain time to a unix time, or on by seconds; a block follows unless frozen."""
        now = self._chain.now()
        if (utime is None) == (advance is None):
            raise CommandError("give either utime or advance")
        wanted = utime if utime is not None else now + (advance or 0)
        if wanted < now:
            raise ClockError(f"chain time is {now} and never goes back; give a later time")
        self._clock.move_to(wanted)
        self._producer.wake()


def _described(rule: Rule) -> Status:
    named = {"queries": sorted(rule.queries)} if rule.queries else {}
    limits = {"share": rule.share, "left": rule.left, "hits": rule.hits}
    return {"effect": type(rule.effect).__name__.lower(), **asdict(rule.effect), **named, **limits}


class ControlServer:
    """Accepts connections for as long as the network runs; the token is new at every start."""

    def __init__(self, commands: Commands) -> None:
        self.token = secrets.token_hex(16)
        self._commands, self._table = commands, commands.table()
        self._peers: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def listen(self) -> int:
        """Begin to accept; gives the port."""
        self._listener = await asyncio.start_server(self._accept, HOST, 0)
        return int(self._listener.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for peer in self._peers:
            peer.cancel()
        await asyncio.gather(*self._peers, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._peers.add(task)
        task.add_done_callback(self._peers.discard)
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._reply(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, asyncio.CancelledError) as error:
            log.debug("control connection ended: %r", error)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _reply(self, line: bytes) -> dict[str, Any]:
        try:
            return {"result": await self._run(line)}
        except (CommandError, ClockError, FaultError, TooFarBackError) as error:
            return {"error": str(error)}
        except Exception as error:
            log.exception("a command failed")
            return {"error": f"{type(error).__name__}: {error}"}

    async def _run(self, line: bytes) -> Status:
        try:
            request = json.loads(line)
            token, name = str(request["token"]), str(request["command"])
            arguments = dict(request.get("arguments", {}))
        except (ValueError, TypeError, KeyError):
            raise CommandError('send {"token", "command", "arguments"} as one line') from None
        if not hmac.compare_digest(token.encode(), self.token.encode()):
            raise CommandError("wrong token; take it from control.json in the state folder")
        command = self._table.get(name)
        if command is None:
            raise CommandError(f"no such command: {name}; there are {', '.join(self._table)}")
        try:
            await command(**arguments)
        except TypeError as error:
            raise CommandError(f"{name}: {error}") from None
        return await self._commands.status()
