"""Hands changes to the streams that watch them, within limits; in memory, on one event loop.

A stream holds a bounded queue. Whoever reads too slowly loses the stream instead of growing it, and
whoever opens too many loses the oldest.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from go2asia.nft.v1 import nft_pb2

from mesh.errors import MeshError
from nft_svc.errors import Draining, ReaderTooSlow, StreamEvicted
from nft_svc.resume import Target


@dataclass(frozen=True, slots=True)
class FeedLimits:
    """What watchers may cost: `queue` is in changes per stream."""

    streams: int = 1_000
    streams_per_user: int = 3
    queue: int = 256
    checkpoint: timedelta = timedelta(seconds=5)
    retention: timedelta = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Update:
    """A change at its position, as it goes to every stream of one target."""

    position: int
    message: nft_pb2.WatchMintStatusResponse


class Stream:
    """One watcher's queue; made by `Fanout.open`."""

    __slots__ = ("_arrived", "_capacity", "_failure", "_pending", "target", "user_id")

    def __init__(self, target: Target, user_id: str, capacity: int) -> None:
        self.target = target
        self.user_id = user_id
        self._capacity = capacity
        self._pending: deque[Update] = deque()
        self._arrived = asyncio.Event()
        self._failure: MeshError | None = None

    def offer(self, update: Update) -> bool:
        """Queues an update; False when that would make the queue longer than it may be."""
        if len(self._pending) >= self._capacity:
            return False
        self._pending.append(update)
        self._arrived.set()
        return True

    async def take(self, seconds: float) -> Update | None:
        """The next update, or None if none comes in time; raises what the stream was closed with.

        None also says that at this moment nothing is queued.
        """
        if not self._pending and self._failure is None:
            self._arrived.clear()
            # Wakes instead of cancelling, as a timeout would: most waits of most streams end so.
            alarm = asyncio.get_running_loop().call_later(seconds, self._arrived.set)
            try:
                await self._arrived.wait()
            finally:
                alarm.cancel()
        if self._failure is not None:
            raise self._failure
        return self._pending.popleft() if self._pending else None

    def close(self, reason: MeshError) -> None:
        """Ends the stream with `reason`, dropping what is queued: its reader can resume.

        A reader that reads nothing at all learns of it when it reads on: what gRPC has buffered
        comes first. Until then it costs one idle call.
        """
        self._failure = reason
        self._pending.clear()
        self._arrived.set()


class Fanout:
    """The open streams of this process, by target and by age."""

    def __init__(self, limits: FeedLimits) -> None:
        self._limits = limits
        self._by_age: OrderedDict[Stream, None] = OrderedDict()
        self._by_user: dict[str, OrderedDict[Stream, None]] = {}
        self._by_target: dict[Target, set[Stream]] = {}
        self._draining = False

    def __len__(self) -> int:
        return len(self._by_age)

    def open(self, target: Target, user_id: str) -> Stream:
        """A new stream; makes room by closing the oldest, of the user or of all.

        Raises `Draining` after `drain`.
        """
        if self._draining:
            raise Draining
        of_user = self._by_user.get(user_id, OrderedDict())
        if len(of_user) >= self._limits.streams_per_user:
            self._evict(next(iter(of_user)), self._limits.streams_per_user)
        if len(self._by_age) >= self._limits.streams:
            self._evict(next(iter(self._by_age)), self._limits.streams)
        stream = Stream(target, user_id, self._limits.queue)
        self._by_age[stream] = None
        self._by_user.setdefault(user_id, OrderedDict())[stream] = None
        self._by_target.setdefault(target, set()).add(stream)
        return stream

    def release(self, stream: Stream) -> None:
        """Forgets a stream, because it was closed or nobody reads it any more."""
        if stream not in self._by_age:
            return
        del self._by_age[stream]
        of_user, of_target = self._by_user[stream.user_id], self._by_target[stream.target]
        del of_user[stream]
        of_target.discard(stream)
        if not of_user:
            del self._by_user[stream.user_id]
        if not of_target:
            del self._by_target[stream.target]

    def publish(self, targets: Sequence[Target], build: Callable[[Target], Update]) -> None:
        """Offers a change to the streams of `targets`, built once for each that has any.

        Streams whose queue is full are closed with `ReaderTooSlow`.
        """
        for target in targets:
            if streams := self._by_target.get(target):
                update = build(target)
                for slow in [stream for stream in streams if not stream.offer(update)]:
                    self._close(slow, ReaderTooSlow())

    def drain(self) -> None:
        """Closes all streams with `Draining`, and opens no more."""
        self._draining = True
        for stream in list(self._by_age):
            self._close(stream, Draining())

    def _evict(self, stream: Stream, limit: int) -> None:
        self._close(stream, StreamEvicted(limit=str(limit)))

    def _close(self, stream: Stream, reason: MeshError) -> None:
        stream.close(reason)
        self.release(stream)
