"""Streams are bounded: in number, per user, and in what they queue."""

import pytest
from go2asia.nft.v1 import nft_pb2

from nft_svc.errors import Draining, ReaderTooSlow, StreamEvicted
from nft_svc.fanout import Fanout, FeedLimits, Stream, Update
from nft_svc.resume import Target, TargetKind

ADA = Target(TargetKind.USER, "ada")


def update(position: int) -> Update:
    return Update(position, nft_pb2.WatchMintStatusResponse())


def publish(to: Fanout, target: Target, *positions: int) -> None:
    for position in positions:
        to.publish([target], lambda _, position=position: update(position))  # type: ignore[misc]


async def taken(stream: Stream) -> int | None:
    got = await stream.take(0.01)
    return got and got.position


async def test_a_change_reaches_the_streams_of_its_targets_and_no_others() -> None:
    streams = Fanout(FeedLimits())
    ada, bob = streams.open(ADA, "ada"), streams.open(Target(TargetKind.USER, "bob"), "bob")
    publish(streams, ADA, 1, 2)
    assert [await taken(ada), await taken(ada), await taken(ada)] == [1, 2, None]
    assert await taken(bob) is None


async def test_a_message_is_built_once_for_all_streams_of_a_target() -> None:
    streams = Fanout(FeedLimits())
    for _ in range(3):
        streams.open(ADA, "ada")
    built = []
    streams.publish([ADA], lambda target: built.append(target) or update(1))  # type: ignore[func-returns-value]
    assert built == [ADA]


async def test_a_users_oldest_stream_makes_room() -> None:
    streams = Fanout(FeedLimits(streams_per_user=2))
    oldest, *others = [streams.open(ADA, "ada") for _ in range(3)]
    with pytest.raises(StreamEvicted) as evicted:
        await oldest.take(1)
    assert evicted.value.metadata == {"limit": "2"}
    assert [await taken(stream) for stream in others] == [None, None]
    assert len(streams) == 2


async def test_the_oldest_stream_of_a_full_process_makes_room() -> None:
    streams = Fanout(FeedLimits(streams=2))
    oldest = streams.open(ADA, "ada")
    for user in ("bob", "eve"):
        streams.open(Target(TargetKind.USER, user), user)
    with pytest.raises(StreamEvicted):
        await oldest.take(1)


async def test_a_released_stream_leaves_room() -> None:
    streams = Fanout(FeedLimits(streams_per_user=1))
    streams.release(streams.open(ADA, "ada"))
    kept = streams.open(ADA, "ada")
    assert await taken(kept) is None
    assert len(streams) == 1


async def test_a_slow_reader_loses_its_stream_instead_of_growing_it() -> None:
    streams = Fanout(FeedLimits(queue=3))
    slow = streams.open(ADA, "ada")
    publish(streams, ADA, 1, 2, 3, 4, 5)
    with pytest.raises(ReaderTooSlow):
        await slow.take(1)


async def test_a_drain_says_so() -> None:
    streams = Fanout(FeedLimits())
    stream = streams.open(ADA, "ada")
    streams.drain()
    with pytest.raises(Draining):
        await stream.take(1)
    assert len(streams) == 0
