"""When blocks are made: at once when there is work, every few seconds when there is none."""

import asyncio
import logging

from ton_devnet.chain import Chain

log = logging.getLogger(__name__)


class Producer:
    """Makes blocks until cancelled. A busy chain waits `block_interval` seconds to gather messages
    into one block; a quiet one makes an empty block every `idle_interval` seconds.
    """

    def __init__(self, chain: Chain, *, block_interval: float, idle_interval: float) -> None:
        self._chain, self._block_interval, self._idle_interval = (
            chain,
            block_interval,
            idle_interval,
        )
        self._work = asyncio.Event()
        self._sealed = asyncio.Condition()
        self._thawed = asyncio.Event()
        self._thawed.set()

    def wake(self) -> None:
        """Say that a message is waiting."""
        self._work.set()

    @property
    def frozen(self) -> bool:
        return not self._thawed.is_set()

    def freeze(self) -> None:
        """Let the head stand still: only `produce` makes blocks now."""
        self._thawed.clear()

    def thaw(self) -> None:
        self._thawed.set()

    async def run(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._idle_interval):
                    await self._work.wait()
                await asyncio.sleep(self._block_interval)
            except TimeoutError:
                log.debug("quiet: an empty block")
            await self._thawed.wait()
            await self.produce()

    async def produce(self) -> None:
        """Make a block now, and tell those who wait for it."""
        self._chain.produce()
        if not self._chain.pending:
            self._work.clear()
        async with self._sealed:
            self._sealed.notify_all()

    async def reached(self, seqno: int) -> None:
        """Return when the head has this number."""
        async with self._sealed:
            await self._sealed.wait_for(lambda: self._chain.head.step.seqno >= seqno)
