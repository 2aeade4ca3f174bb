"""The BFF's helper: it comes back after every disconnect, but not after an eviction."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from mesh import watching
from mesh.errors import MeshError, MessageTooLarge, Unavailable
from mesh.watching import watch
from nft_svc.errors import ReaderTooSlow, ResumeTokenExpired, StreamEvicted, UnknownNftType

Step = str | Exception | None


@dataclass(frozen=True)
class Note:
    resume_token: str


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "FIRST_PAUSE_SECONDS", 0.0)


def scripted(*streams: list[Step]) -> tuple[list[str], Callable[[str], AsyncIterator[Note]]]:
    """Streams that tell tokens, raise errors, or fall silent (None), and the tokens they got."""
    opened: list[str] = []

    async def tell(script: list[Step]) -> AsyncIterator[Note]:
        for step in script:
            if step is None:
                await asyncio.sleep(60)
            elif isinstance(step, Exception):
                raise step
            else:
                yield Note(step)

    def open_stream(token: str) -> AsyncIterator[Note]:
        opened.append(token)
        return tell(streams[len(opened) - 1])

    return opened, open_stream


async def read(open_stream: Callable[[str], AsyncIterator[Note]], silence: float = 5) -> list[str]:
    tokens = []
    try:
        async for note in watch(open_stream, silence=silence):
            tokens.append(note.resume_token)
    except StreamEvicted:
        tokens.append("evicted")
    return tokens


@pytest.mark.parametrize("cause", [Unavailable(), ReaderTooSlow()])
async def test_it_resumes_with_the_last_token(cause: Exception) -> None:
    opened, stream = scripted(["a", "b", cause], ["c", StreamEvicted()])
    assert await read(stream) == ["a", "b", "c", "evicted"]
    assert opened == ["", "b"]


async def test_it_resumes_when_the_server_just_ends_the_stream() -> None:
    opened, stream = scripted(["a"], ["b", StreamEvicted()])
    assert await read(stream) == ["a", "b", "evicted"]
    assert opened == ["", "a"]


async def test_it_resumes_when_the_stream_falls_silent() -> None:
    opened, stream = scripted(["a", None], ["b", StreamEvicted()])
    assert await read(stream, silence=0.05) == ["a", "b", "evicted"]
    assert opened == ["", "a"]


async def test_it_keeps_trying_while_nobody_answers() -> None:
    opened, stream = scripted(["a"], [Unavailable()], [Unavailable()], ["b", StreamEvicted()])
    assert await read(stream) == ["a", "b", "evicted"]
    assert opened == ["", "a", "a", "a"]


async def test_a_token_too_old_begins_anew() -> None:
    opened, stream = scripted(["a", Unavailable()], [ResumeTokenExpired()], ["b", StreamEvicted()])
    assert await read(stream) == ["a", "b", "evicted"]
    assert opened == ["", "a", ""]


@pytest.mark.parametrize("refusal", [UnknownNftType(), MessageTooLarge()])
async def test_what_would_be_met_again_is_raised(refusal: MeshError) -> None:
    opened, stream = scripted([refusal])
    with pytest.raises(type(refusal)):
        await read(stream)
    assert opened == [""]
