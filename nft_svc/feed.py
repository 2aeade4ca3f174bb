"""WatchMintStatus: a snapshot, then every change in commit order, and checkpoints; resumable.

One reader per process follows the table and fans out. A stream is registered before its snapshot is
taken, and drops what the snapshot already holds, so between the two nothing is lost or told twice.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from go2asia.nft.v1 import nft_pb2
from opentelemetry.metrics import Observation

from mesh.db import Database
from mesh.errors import MeshError, Unavailable
from mesh.notify import Notifications, notify
from mesh.telemetry import logger, meter
from nft_svc import convert
from nft_svc.errors import MintNotFound, NftNotFound, ResumeTokenExpired, ResumeTokenInvalid
from nft_svc.fanout import Fanout, FeedLimits, Stream, Update
from nft_svc.mints import Change
from nft_svc.openings import Openings
from nft_svc.resume import ResumeTokens, Target, TargetKind
from nft_svc.store import feed as store

PAGE = 500
POLL_SECONDS = 1.0
START_SECONDS = 2.0
FAREWELL_SECONDS = 1.0
TRIM_SECONDS = 600.0
TRIM_PAGE = 10_000
Message = nft_pb2.WatchMintStatusResponse
Opening = AsyncIterator[tuple[int, Message]]
"""What a stream begins with: messages, each with the position it brings the reader to."""

_log = logger("nft.feed")
_delivered = meter.create_counter(
    "nft.feed.changes", unit="{change}", description="Changes read from the feed by this process."
)


def entry(change: Change) -> store.Entry:
    """A change as the feed stores it: serialised once, for all who will ever watch it."""
    mint = change.mint
    payload = convert.change(change).SerializeToString()
    return store.Entry(mint.mint_id, mint.nft_id, mint.user_id, payload)


class Feed:
    """Follows the feed and serves streams; an async context manager.

    `url` is for the connection that listens. The database may come up later than the service; until
    then streams are refused as `Unavailable`.
    """

    def __init__(self, database: Database, url: str, limits: FeedLimits) -> None:
        self._database = database
        self._limits = limits
        self._fanout = Fanout(limits)
        self._openings = Openings(database, limits.streams)
        self._notifications = Notifications(url, store.CHANNEL)
        self._tokens: asyncio.Future[ResumeTokens] = asyncio.get_running_loop().create_future()
        self._position = 0
        self._written = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._watchers = 0  # streams being served, also those that were closed and not yet told
        self._unwatched = asyncio.Event()
        self._unwatched.set()
        meter.create_observable_gauge(
            "nft.feed.streams",
            callbacks=[lambda _: [Observation(self._watchers)]],
            unit="{stream}",
            description="Open streams of WatchMintStatus on this process.",
        )

    async def __aenter__(self) -> Self:
        await self._notifications.__aenter__()
        await self._openings.__aenter__()
        for work in (self._follow, self._announce, self._trim):
            self._tasks.append(asyncio.create_task(work(), name=f"feed {work.__name__}"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._fanout.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._openings.__aexit__(kind, error, trace)
        await self._notifications.__aexit__(kind, error, trace)

    async def drain(self) -> None:
        """Closes all streams with `Draining`, and leaves them a moment to say so."""
        self._fanout.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_SECONDS):
                await self._unwatched.wait()

    def announce(self) -> None:
        """Says that changes were committed: soon one NOTIFY wakes the readers of all replicas."""
        self._written.set()

    async def watch(self, target: Target, resume_token: str) -> AsyncIterator[Message]:
        """The stream of one watcher, until it hangs up or is closed.

        Raises `MintNotFound`, `NftNotFound`, `ResumeTokenInvalid` and `ResumeTokenExpired` at the
        start, `StreamEvicted`, `ReaderTooSlow` and `Draining` at any time.
        """
        tokens = await self._begun()
        position = tokens.open(target, resume_token) if resume_token else None
        stream = self._fanout.open(target, await self._owner(target))
        self._watchers += 1
        self._unwatched.clear()
        try:
            async for message in self._messages(tokens, stream, position):
                yield message
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._unwatched.set()
            self._fanout.release(stream)

    async def _messages(
        self, tokens: ResumeTokens, stream: Stream, position: int | None
    ) -> AsyncIterator[Message]:
        target = stream.target
        opening = (
            self._snapshot(tokens, target)
            if position is None
            else self._missed(tokens, target, position)
        )
        reached = 0
        async for reached, message in opening:  # noqa: B007 - the last one is used below
            yield message
        async for message in self._live(tokens, stream, reached):
            yield message

    async def _snapshot(self, tokens: ResumeTokens, target: Target) -> Opening:
        found = await self._openings.snapshot(target)
        snapshot = convert.snapshot(found.mints)
        token = tokens.issue(target, found.position)
        yield found.position, Message(snapshot=snapshot, resume_token=token)

    async def _missed(self, tokens: ResumeTokens, target: Target, position: int) -> Opening:
        missed = await self._openings.missed(target, position)
        while True:
            _check_within(missed.extent, position)
            for change in missed.changes:
                position = change.position
                yield position, _change_message(tokens, target, change)
            if not missed.more:
                break
            missed = await self._openings.missed_further(target, position)
        head = missed.extent.head
        yield head, self._checkpoint(tokens, target, head)

    async def _live(
        self, tokens: ResumeTokens, stream: Stream, position: int
    ) -> AsyncIterator[Message]:
        longest = self._limits.checkpoint.total_seconds()
        while True:
            # Jittered, and early enough to arrive within the time that a checkpoint promises.
            update = await stream.take(longest * random.uniform(0.7, 0.9))
            if update is None:
                # Nothing is queued, so all that this process has read has been sent.
                position = max(position, self._position)
                yield self._checkpoint(tokens, stream.target, position)
            elif update.position > position:
                position = update.position
                yield update.message

    def _checkpoint(self, tokens: ResumeTokens, target: Target, position: int) -> Message:
        message = Message(resume_token=tokens.issue(target, position))
        message.checkpoint.next_within.FromTimedelta(self._limits.checkpoint)
        return message

    async def _owner(self, target: Target) -> str:
        user_id = await self._openings.owner(target)
        if user_id is None:
            if target.kind is TargetKind.MINT:
                raise MintNotFound(field="mint_id", mint_id=target.id)
            raise NftNotFound(field="nft_id", nft_id=target.id)
        return user_id

    async def _follow(self) -> None:
        """Reads the feed as it grows; the only reader of this process."""
        while True:
            more = False
            try:
                more = await (self._advance() if self._tokens.done() else self._begin())
            except MeshError as error:
                _log.warning("feed.read_failed", error=error.message)
            except Exception:
                _log.exception("feed.read_failed")
            if not more:
                await self._notifications.wait(POLL_SECONDS)

    async def _begin(self) -> bool:
        async with self._database.transaction(read_only=True) as connection:
            self._position = (await store.extent(connection)).head
            self._tokens.set_result(ResumeTokens(await store.epoch(connection)))
        return True

    async def _begun(self) -> ResumeTokens:
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                return await asyncio.shield(self._tokens)
        raise Unavailable("The feed cannot be read yet; try again on this or another replica.")

    async def _advance(self) -> bool:
        async with self._database.transaction(isolation="AUTOCOMMIT") as connection:
            page = await store.read(connection, self._position, PAGE)
        for change in page:
            self._publish(change)
        if page:
            self._position = page[-1].position
            _delivered.add(len(page))
        return len(page) == PAGE

    def _publish(self, change: store.Entry) -> None:
        tokens = self._tokens.result()
        targets = (
            Target(TargetKind.MINT, change.mint_id),
            Target(TargetKind.NFT, change.nft_id),
            Target(TargetKind.USER, change.user_id),
        )
        self._fanout.publish(
            targets,
            lambda target: Update(change.position, _change_message(tokens, target, change)),
        )

    async def _announce(self) -> None:
        """Sends NOTIFY outside of the commits that it tells of; one may stand for several."""
        while True:
            await self._written.wait()
            self._written.clear()
            # Readers poll as well, so a lost notification costs a moment and nothing else.
            try:
                async with self._database.transaction(isolation="AUTOCOMMIT") as connection:
                    await notify(connection, store.CHANNEL)
            except MeshError as error:
                _log.warning("feed.notify_failed", error=error.message)
            except Exception:
                _log.exception("feed.notify_failed")

    async def _trim(self) -> None:
        """Deletes what is older than the retention, now and then."""
        while True:
            await asyncio.sleep(TRIM_SECONDS * random.uniform(0.5, 1))
            try:
                await self.trim()
            except MeshError as error:
                _log.warning("feed.trim_failed", error=error.message)
            except Exception:
                _log.exception("feed.trim_failed")

    async def trim(self) -> None:
        """Deletes the changes that are older than the retention; tokens before them expire."""
        deleted = TRIM_PAGE
        while deleted == TRIM_PAGE:
            async with self._database.transaction() as connection:
                deleted = await store.trim(connection, self._limits.retention, TRIM_PAGE)


def _change_message(tokens: ResumeTokens, target: Target, change: store.Entry) -> Message:
    message = Message(resume_token=tokens.issue(target, change.position))
    message.change.ParseFromString(change.change)
    return message


def _check_within(extent: store.Extent, position: int) -> None:
    """Positions are dense: a reader at `position` misses nothing if the next one is still there."""
    if position > extent.head:
        raise ResumeTokenInvalid(field="resume_token")
    if position < extent.oldest - 1:
        raise ResumeTokenExpired(field="resume_token")
