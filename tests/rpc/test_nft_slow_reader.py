"""A watcher that stops reading, against real flow control."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from go2asia.nft.v1 import nft_pb2, nft_pb2_grpc

from devstack.certificates import Authority
from mesh.client import open_channel
from mesh.server import Registration
from nft_svc.errors import ReaderTooSlow
from nft_svc.fanout import Fanout, FeedLimits, Update
from nft_svc.resume import Target, TargetKind
from tests.rpc.mesh_probe import NFT, serving

ADA = Target(TargetKind.USER, "ada")
HEAVY = nft_pb2.WatchMintStatusResponse(resume_token="x" * 100_000)
QUEUE = 10
MORE_THAN_GRPC_BUFFERS = 2_000


class Watched(nft_pb2_grpc.NftServiceServicer):
    """Streams what is published, as `Feed` does."""

    def __init__(self, streams: Fanout) -> None:
        self._streams = streams

    async def WatchMintStatus(
        self, request: nft_pb2.WatchMintStatusRequest, context: Any
    ) -> AsyncIterator[nft_pb2.WatchMintStatusResponse]:
        stream = self._streams.open(ADA, "ada")
        try:
            while True:
                update = await stream.take(5)
                if update is not None:
                    yield update.message
        finally:
            self._streams.release(stream)


async def test_who_stops_reading_is_closed_and_told_when_reading_on(authority: Authority) -> None:
    streams = Fanout(FeedLimits(queue=QUEUE))
    add = nft_pb2_grpc.add_NftServiceServicer_to_server
    async with (
        asyncio.timeout(20),
        serving(authority, Registration(NFT, add, Watched(streams))) as address,
        open_channel(address, authority.issue("bff/web")) as channel,
    ):
        request = nft_pb2.WatchMintStatusRequest(user_id="ada")
        messages = aiter(nft_pb2_grpc.NftServiceStub(channel).WatchMintStatus(request))
        first = asyncio.ensure_future(anext(messages))
        published = 0
        while published < MORE_THAN_GRPC_BUFFERS:
            streams.publish([ADA], lambda _: Update(0, HEAVY))
            published += len(streams)
            await asyncio.sleep(0.001)
            if first.done() and not len(streams):
                break
        assert published < MORE_THAN_GRPC_BUFFERS, "a stream nobody reads must not go on"
        received: list[object] = []
        with pytest.raises(ReaderTooSlow):
            await read_on(messages, received)
        assert len(received) < published - QUEUE


async def read_on(messages: AsyncIterator[object], received: list[object]) -> None:
    async for message in messages:
        received.append(message)
