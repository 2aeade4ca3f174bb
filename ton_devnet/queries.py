"""The door for liteServer.* queries: every query of every connection goes through `answer`."""

import asyncio
import logging
from typing import Any

from pytoniq_core.tl.generator import TlGenerator

from ton_devnet.adnl import tl_bytes
from ton_devnet.answers import Answers, QueryError
from ton_devnet.blocks import StateGoneError
from ton_devnet.faults import WAIT, Failure, Faults, Silence
from ton_devnet.producer import Producer

NOT_READY, TIMED_OUT, UNKNOWN, INTERNAL = 651, 652, -404, 500
_WAIT = (0xBAEAB892).to_bytes(4, "little")
_ERROR = (0xBBA9E148).to_bytes(4, "little")

log = logging.getLogger(__name__)


class LiteServer:
    """Decodes a query, lets `Answers` answer it (unless a fault was asked for), encodes the result
    or the error.
    """

    def __init__(self, answers: Answers, producer: Producer, faults: Faults) -> None:
        self._answers, self._producer, self._faults = answers.table(), producer, faults
        self._tl: Any = TlGenerator.with_default_schemas().generate()
        # Contract data is bytes to us; TL must never guess at what is inside.
        self._tl._auto_deserialize = False

    @property
    def names(self) -> frozenset[str]:
        """All queries that can fail on request."""
        return frozenset((*self._answers, WAIT))

    async def answer(self, data: bytes) -> bytes:
        """One TL-encoded query in, its TL-encoded result or liteServer.error out."""
        try:
            if data[:4] == _WAIT:
                await self._fail_on_request(WAIT)
                await self._wait(data[4:8], data[8:12])
                data = data[12:]
            return await self._dispatch(data)
        except QueryError as error:
            return _error(error.code, str(error))
        except StateGoneError as gone:
            return _error(NOT_READY, str(gone))
        except Exception as error:
            log.exception("a query failed")
            return _error(INTERNAL, f"{type(error).__name__}: {error}")

    async def _wait(self, seqno: bytes, milliseconds: bytes) -> None:
        try:
            async with asyncio.timeout(int.from_bytes(milliseconds, "little") / 1000):
                await self._producer.reached(int.from_bytes(seqno, "little"))
        except TimeoutError:
            raise QueryError(TIMED_OUT, "timeout: the block did not come in time") from None

    async def _fail_on_request(self, name: str) -> None:
        match self._faults.on_query(name):
            case Failure(code, message):
                raise QueryError(code, message)
            case Silence():
                await asyncio.Event().wait()

    async def _dispatch(self, data: bytes) -> bytes:
        query, _ = self._tl.deserialize(data)
        if not isinstance(query, dict):
            raise QueryError(UNKNOWN, "unknown query")
        name = str(query["@type"]).removeprefix("liteServer.")
        handler = self._answers.get(name)
        if handler is None:
            raise QueryError(UNKNOWN, f"{name} is not served by this network")
        await self._fail_on_request(name)
        kind, reply = handler(query)
        return bytes(self._tl.serialize(self._tl.get_by_name(f"liteServer.{kind}"), reply))


def _error(code: int, message: str) -> bytes:
    return _ERROR + code.to_bytes(4, "little", signed=True) + tl_bytes(message.encode())
