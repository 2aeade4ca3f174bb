"""For authors of a BFF: follow a resumable stream through every disconnect.

    def open_stream(resume_token: str) -> AsyncIterable[WatchMintStatusResponse]:
        request = WatchMintStatusRequest(user_id=user_id, resume_token=resume_token)
        return stub.WatchMintStatus(request)

    async for message in watch(open_stream):
        ...

Streams of the mesh give a resume token with every message, and name the same reasons everywhere:
STREAM_EVICTED, RESUME_TOKEN_EXPIRED and RESUME_TOKEN_INVALID.
"""

import asyncio
import inspect
import random
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import aclosing
from typing import Protocol, TypeVar

from mesh.errors import Kind, MeshError, MessageTooLarge, Unavailable
from mesh.telemetry import logger

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0

_log = logger("mesh.watching")
_DISCONNECTS = frozenset(
    {Kind.UNAVAILABLE, Kind.RESOURCE_EXHAUSTED, Kind.ABORTED, Kind.DEADLINE_EXCEEDED, Kind.INTERNAL}
)
_STALE_TOKEN = frozenset({"RESUME_TOKEN_EXPIRED", "RESUME_TOKEN_INVALID"})
_FINAL = frozenset({"STREAM_EVICTED", MessageTooLarge.reason})


class Resumable(Protocol):
    """A message that tells where a new stream may go on."""

    @property
    def resume_token(self) -> str:
        """The token to open the next stream with."""


Message = TypeVar("Message", bound=Resumable)


async def watch(
    open_stream: Callable[[str], AsyncIterable[Message]],
    *,
    resume_token: str = "",
    silence: float = 15.0,
) -> AsyncIterator[Message]:
    """Yields the messages of one stream after another, each opened with the last token.

    `silence` is in seconds, longer than the stream's checkpoints are apart: a stream that is quiet
    for so long counts as broken. When a token is too old for the server, the next stream begins
    without one, hence with a new snapshot.

    Ends by raising the `MeshError` that a new stream would meet again, and STREAM_EVICTED: to come
    back would evict whoever took the place.
    """
    token = resume_token
    failures = 0
    while True:
        try:
            async with aclosing(_patiently(open_stream(token), silence)) as messages:
                async for message in messages:
                    token, failures = message.resume_token, 0
                    yield message
        except MeshError as error:
            if token and error.reason in _STALE_TOKEN:
                token = ""
            elif error.reason in _FINAL or error.kind not in _DISCONNECTS:
                raise
            _log.debug("watch.resumed", reason=error.reason, error=error.message)
        failures += 1
        await asyncio.sleep(_pause(failures))


async def _patiently(
    stream: AsyncIterable[Message], silence: float
) -> AsyncGenerator[Message, None]:
    messages = aiter(stream)
    try:
        while True:
            try:
                async with asyncio.timeout(silence):
                    message = await anext(messages)
            except StopAsyncIteration:
                return
            except TimeoutError:
                raise Unavailable(f"The stream was silent for {silence} s; open it anew.") from None
            yield message
    finally:
        # A gRPC call lives on until it is cancelled, whatever becomes of its iterator.
        for hang_up in (getattr(stream, "cancel", None), getattr(messages, "aclose", None)):
            if hang_up is not None and inspect.isawaitable(pending := hang_up()):
                await pending


def _pause(failures: int) -> float:
    """Seconds before the next attempt: full jitter, so that a crowd does not return as a herd."""
    return random.uniform(0, min(FIRST_PAUSE_SECONDS * 2**failures, LONGEST_PAUSE_SECONDS))
