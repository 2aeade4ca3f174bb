"""Thousands of watchers in one lean process; `bench.nft_feed` runs several and speaks to them.

Started with one line of JSON on stdin, the `Crowd`. Says `{"live": <moment>}` whenever the last of
its watchers has caught up, and answers every further line with what arrived since the last one.
Moments are seconds of the machine's monotonic clock, the same in all its processes.

A watcher does what `mesh.watching` does, without the layers that a benchmark would only measure
itself with: it resumes with its last token, and checks that versions follow each other.
"""

import asyncio
import gc
import json
import random
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import grpc
import uvloop
from go2asia.nft.v1 import nft_pb2, nft_pb2_grpc

from bench.nft_data import mint, user
from mesh.clock import monotonic
from mesh.config import TlsFiles
from mesh.tls import channel_credentials
from mesh.wire import KEEPALIVE_OPTIONS

LONGEST_PAUSE_SECONDS = 0.5
_CHANNEL_OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),  # or all channels would share one connection
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    *KEEPALIVE_OPTIONS,
]


@dataclass(frozen=True)
class Crowd:
    """Two watchers for each mint from `first` to `last`: one of the mint, one of its user."""

    address: str
    cert: str
    key: str
    ca: str
    connections: int
    first: int
    last: int


@dataclass
class Tally:
    """What a crowd saw, and where its watchers stand.

    `arrivals` are (mint number, version, moment) since it was last asked; `faults` count changes
    out of turn and snapshots where a token should have carried on; `live` are caught up now;
    `standings` are (mint number, version, state) of each watcher.
    """

    arrivals: list[tuple[int, int, float]] = field(default_factory=list)
    faults: int = 0
    disconnects: int = 0
    live: int = 0
    standings: list[tuple[int, int, int]] = field(default_factory=list)


class Watcher:
    """One stream after another on one target, for ever."""

    def __init__(self, number: int, request: nft_pb2.WatchMintStatusRequest) -> None:
        self.number = number
        self.request = request
        self.version = self.state = 0
        self.live = False

    async def follow(self, stub: Any, tally: Tally, came_alive: Callable[[], None]) -> None:
        """Watches, and comes back after every disconnect."""
        while True:
            try:
                async for message in stub.WatchMintStatus(self.request, wait_for_ready=True):
                    self._take(message, tally)
                    if not self.live and not message.HasField("change"):
                        self.live = True  # a snapshot, or a checkpoint behind what was missed
                        tally.live += 1
                        came_alive()
            except grpc.aio.AioRpcError:
                tally.disconnects += 1
            tally.live -= self.live
            self.live = False
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE_SECONDS))

    def _take(self, message: nft_pb2.WatchMintStatusResponse, tally: Tally) -> None:
        if message.HasField("change"):
            found = message.change.mint
            tally.arrivals.append((self.number, found.version, monotonic()))
            tally.faults += found.version != self.version + 1
            self.version, self.state = found.version, found.state
        elif message.HasField("snapshot"):
            tally.faults += bool(self.request.resume_token)
            (found,) = message.snapshot.mints
            self.version, self.state = found.version, found.state
        self.request.resume_token = message.resume_token


class Watchers:
    """The crowd at work."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._tally = Tally()
        self._watchers = [
            Watcher(number, request)
            for number in range(crowd.first, crowd.last + 1)
            for request in (
                nft_pb2.WatchMintStatusRequest(mint_id=mint(number)),
                nft_pb2.WatchMintStatusRequest(user_id=user(number)),
            )
        ]

    async def run(self) -> None:
        """Watches, until stdin ends."""
        stubs = [nft_pb2_grpc.NftServiceStub(channel) for channel in self._channels()]
        watching = [
            asyncio.create_task(
                watcher.follow(stubs[number % len(stubs)], self._tally, self._tell_if_live)
            )
            for number, watcher in enumerate(self._watchers)
        ]
        while await asyncio.to_thread(sys.stdin.readline):
            self._tally.standings = [(w.number, w.version, w.state) for w in self._watchers]
            print(json.dumps(asdict(self._tally)), flush=True)
            self._tally.arrivals.clear()
        for task in watching:
            task.cancel()

    def _channels(self) -> list[grpc.aio.Channel]:
        crowd = self._crowd
        files = TlsFiles(cert=Path(crowd.cert), key=Path(crowd.key), ca=Path(crowd.ca))
        credentials = channel_credentials(files)
        return [
            grpc.aio.secure_channel(crowd.address, credentials, options=_CHANNEL_OPTIONS)
            for _ in range(crowd.connections)
        ]

    def _tell_if_live(self) -> None:
        if self._tally.live == len(self._watchers):
            print(json.dumps({"live": monotonic()}), flush=True)


def main() -> None:
    """Reads the crowd and watches."""
    crowd = Crowd(**json.loads(sys.stdin.readline()))
    gc.disable()  # nothing here is cyclic enough to be worth a pause in a measurement
    uvloop.run(Watchers(crowd).run())


if __name__ == "__main__":
    main()
