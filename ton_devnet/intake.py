"""How external messages come into the chain: at once, late or never, as the faults say."""

import asyncio
import logging

from ton_devnet.chain import Chain
from ton_devnet.faults import Delay, Drop, Faults
from ton_devnet.messages import MessageRejectedError
from ton_devnet.producer import Producer

COPIES_SECONDS = 1.0
"""Clients send a message to several lite-servers at once, or to this one several times: copies that
come together share one fate. One that comes later is another attempt.
"""
log = logging.getLogger(__name__)


class Intake:
    """Without faults, what `take` lets pass is on disk when it returns."""

    def __init__(self, chain: Chain, producer: Producer, faults: Faults) -> None:
        self._chain, self._producer, self._faults = chain, producer, faults
        self._late: set[bytes] = set()
        self._decided: set[bytes] = set()

    @property
    def late(self) -> int:
        """Delayed messages that are still on their way."""
        return len(self._late)

    def take(self, boc: bytes) -> None:
        """Raises MessageRejectedError, fault or not, when the message cannot be accepted now."""
        if not self._faults.rules:
            self._deliver(boc)
            return
        if boc in self._decided or boc in self._late:
            return
        self._chain.check(boc)
        match self._faults.on_external():
            case Drop():
                log.info("an external message dropped on request")
            case Delay(seconds):
                self._late.add(boc)
                asyncio.get_running_loop().call_later(seconds, self._arrive, boc)
            case None:
                self._deliver(boc)
        self._decided.add(boc)
        asyncio.get_running_loop().call_later(COPIES_SECONDS, self._decided.discard, boc)

    def _deliver(self, boc: bytes) -> None:
        self._chain.submit(boc)
        self._producer.wake()

    def _arrive(self, boc: bytes) -> None:
        self._late.discard(boc)
        try:
            self._deliver(boc)
        except MessageRejectedError as error:
            log.info("a delayed external message came too late: %s", error)
