"""A devnet as a child process, for tests and tools: start, kill, restart, fund."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any, Self

from pytoniq_core.boc.address import Address

from ton_devnet.controller import Controller
from ton_devnet.faucet import NANOTONS, fund
from ton_devnet.folder import StateFolder

_READY_SECONDS = 30.0
_STOP_SECONDS = 10.0


class Devnet:
    """`async with Devnet(state_folder) as net`; the process ends with the block.

    `options` are those of `python -m ton_devnet serve`.
    """

    def __init__(self, state: Path, *options: str) -> None:
        self.folder, self._options = StateFolder(state), options
        self._process: asyncio.subprocess.Process | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The global config a lite-client connects with."""
        return self.folder.read_global_config()

    @property
    def pid(self) -> int:
        """Of the running process."""
        if self._process is None:
            raise RuntimeError("the devnet is not running; start it first")
        return self._process.pid

    @property
    def control(self) -> Controller:
        """Faults, rollback and time, while it runs."""
        return Controller(self.folder)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Return once the lite-server can be reached. Raises RuntimeError when it cannot."""
        command = ["-m", "ton_devnet", "serve", "--state", str(self.folder.path), *self._options]
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(_READY_SECONDS):
            if not await self._process.stdout.readline():
                code = await self._process.wait()
                raise RuntimeError(f"the devnet ended with code {code}; its stderr says why")

    async def kill(self) -> None:
        """End it with no chance to tidy up."""
        await self.stop(signal.SIGKILL)

    async def fund(self, address: Address, ton: int) -> int:
        """Send from the faucet; gives the new balance in nanotons."""
        return await fund(self.folder, address, ton * NANOTONS)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the process with a signal; gives its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(number)
        async with asyncio.timeout(_STOP_SECONDS):
            return await process.wait()
