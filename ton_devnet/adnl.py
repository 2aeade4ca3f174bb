"""ADNL over TCP, the server's side: handshake, encryption, framing, pings, queries.

Protocol: https://docs.ton.org/v3/documentation/network/protocols/adnl/tcp
"""

import asyncio
import contextlib
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable

from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey
from pytoniq_core.crypto.ciphers import create_aes_ctr_cipher, get_shared_key

from ton_devnet.validator import PUB_ED25519

TCP_PING = (0x4D082B9A).to_bytes(4, "little")
TCP_PONG = (0xDC69FB03).to_bytes(4, "little")
ADNL_QUERY = (0xB48BF97A).to_bytes(4, "little")
ADNL_ANSWER = (0x0FAC8416).to_bytes(4, "little")
LITE_QUERY = (0x798C06DF).to_bytes(4, "little")
MAX_FRAME = 1 << 24
_HANDSHAKE_SECONDS = 10.0

Answer = Callable[[bytes], Awaitable[bytes]]
log = logging.getLogger(__name__)


class ProtocolError(ValueError):
    """The peer does not speak ADNL; its connection is closed."""


class AdnlServer:
    """Accepts connections and hands each lite-server query to `answer`."""

    def __init__(self, key: SigningKey, answer: Answer) -> None:
        self._key, self._answer = key, answer
        self._id = hashlib.sha256(PUB_ED25519 + bytes(key.verify_key)).digest()
        self._peers: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None

    async def listen(self, host: str, port: int) -> int:
        """Begin to accept; gives the port, which the system chooses when it is 0."""
        self._listener = await asyncio.start_server(self._accept, host, port)
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
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                hello = await reader.readexactly(256)
            await Connection(self._open(hello), reader, writer, self._answer).serve()
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, ProtocolError) as error:
            log.debug("connection ended: %r", error)
        except asyncio.CancelledError:
            log.debug("connection ended by shutdown")
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def _open(self, hello: bytes) -> bytes:
        """The 160 bytes of session keys inside a handshake."""
        receiver, peer, checksum, sealed = hello[:32], hello[32:64], hello[64:96], hello[96:]
        if receiver != self._id:
            raise ProtocolError("the handshake is meant for another server key")
        try:
            public = VerifyKey(peer).to_curve25519_public_key().encode()
        except (CryptoError, RuntimeError) as error:
            raise ProtocolError(f"the handshake's key is not a curve point: {error}") from None
        shared = get_shared_key(self._key.to_curve25519_private_key().encode(), public)
        key, nonce = shared[:16] + checksum[16:], checksum[:4] + shared[20:]
        session: bytes = create_aes_ctr_cipher(key, nonce).decrypt(sealed)
        if hashlib.sha256(session).digest() != checksum:
            raise ProtocolError("the handshake does not decrypt")
        return session


class Connection:
    """One peer after the handshake. Queries run side by side; answers go out as they come."""

    def __init__(
        self,
        session: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        answer: Answer,
    ) -> None:
        self._reader, self._writer, self._answer = reader, writer, answer
        self._queries: set[asyncio.Task[None]] = set()
        self._out = create_aes_ctr_cipher(session[0:32], session[64:80])
        self._in = create_aes_ctr_cipher(session[32:64], session[80:96])

    async def serve(self) -> None:
        self._send(b"")
        try:
            while True:
                await self._take()
        finally:
            for query in self._queries:
                query.cancel()

    async def _take(self) -> None:
        payload = await self._receive()
        if payload[:4] == TCP_PING:
            self._send(TCP_PONG + payload[4:12])
        elif payload[:4] == ADNL_QUERY:
            query = _tl_bytes(payload, 36)
            if query[:4] != LITE_QUERY:
                raise ProtocolError("only lite-server queries are answered here")
            task = asyncio.create_task(self._reply(payload[4:36], _tl_bytes(query, 4)))
            self._queries.add(task)
            task.add_done_callback(self._queries.discard)
        else:
            raise ProtocolError("neither a ping nor a query")

    async def _reply(self, query_id: bytes, query: bytes) -> None:
        answer = await self._answer(query)
        with contextlib.suppress(ConnectionError):
            self._send(ADNL_ANSWER + query_id + tl_bytes(answer))
            await self._writer.drain()

    async def _receive(self) -> bytes:
        length = int.from_bytes(self._in.decrypt(await self._reader.readexactly(4)), "little")
        if not 64 <= length <= MAX_FRAME:
            raise ProtocolError(f"a frame of {length} bytes; 64 to {MAX_FRAME} are allowed")
        frame: bytes = self._in.decrypt(await self._reader.readexactly(length))
        if hashlib.sha256(frame[:-32]).digest() != frame[-32:]:
            raise ProtocolError("a frame's checksum is wrong")
        return frame[32:-32]

    def _send(self, payload: bytes) -> None:
        body = os.urandom(32) + payload
        frame = (len(body) + 32).to_bytes(4, "little") + body + hashlib.sha256(body).digest()
        self._writer.write(self._out.encrypt(frame))


def tl_bytes(value: bytes) -> bytes:
    """TL `bytes`: length, content, padding to four bytes."""
    short = len(value) < 254
    head = bytes((len(value),)) if short else b"\xfe" + len(value).to_bytes(3, "little")
    return head + value + bytes(-(len(head) + len(value)) % 4)


def _tl_bytes(data: bytes, at: int) -> bytes:
    if at >= len(data):
        raise ProtocolError("a query ends too early")
    if data[at] != 0xFE:
        length, begin = data[at], at + 1
    else:
        length, begin = int.from_bytes(data[at + 1 : at + 4], "little"), at + 4
    if begin + length > len(data):
        raise ProtocolError("a query ends too early")
    return data[begin : begin + length]
