"""The feed on a real Postgres: nothing is skipped, nothing is told twice, on any replica."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import Any, cast

import pytest
import pytest_asyncio
from go2asia.nft.v1 import nft_pb2

from devstack.postgres import Cluster
from mesh.clock import monotonic, new_id
from nft_svc import feed, openings
from nft_svc.errors import (
    Draining,
    MintNotFound,
    NftNotFound,
    ResumeTokenExpired,
    ResumeTokenInvalid,
    StreamEvicted,
)
from nft_svc.fanout import FeedLimits
from nft_svc.mints import MintState
from nft_svc.resume import Target, TargetKind
from tests.integration.nft_service import (
    CONNECT,
    NftDatabase,
    Replica,
    a_user,
    fold,
    key,
    migrated,
    of_user,
    replica,
    report,
    reward,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
Message = nft_pb2.WatchMintStatusResponse
LIFE = (MintState.SUBMITTED, MintState.ACCEPTED, MintState.MINTED, MintState.FINALIZED)
BRISK = FeedLimits(checkpoint=timedelta(seconds=0.3))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(postgres: Cluster, make_database: Callable[[], str]) -> NftDatabase:
    return await migrated(postgres, make_database)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(nft: NftDatabase) -> AsyncIterator[Replica]:
    async with replica(nft, BRISK) as running:
        yield running


@asynccontextmanager
async def watching(
    running: Replica, target: Target, token: str = ""
) -> AsyncIterator[AsyncGenerator[Message, None]]:
    """A stream that a test may read for ten seconds."""
    stream = cast(AsyncGenerator[Message, None], running.feed.watch(target, token))
    async with asyncio.timeout(10), aclosing(stream):
        yield stream


async def next_change(stream: AsyncGenerator[Message, None]) -> Message:
    async for message in stream:
        if message.HasField("change"):
            return message
    raise AssertionError("the stream ended")


async def queue_mint(running: Replica, user_id: str) -> str:
    return (await running.rewards.apply(reward(user_id, 3))).mint_id


async def test_a_stream_begins_with_what_is(service: Replica) -> None:
    ada = a_user()
    mint_id = await queue_mint(service, ada)
    async with watching(service, of_user(ada)) as stream:
        first = await anext(stream)
    (mint,) = first.snapshot.mints
    assert (mint.mint_id, mint.state, mint.version) == (mint_id, nft_pb2.MINT_STATE_QUEUED, 1)
    assert mint.content.attributes[0].trait_type == "level"


@pytest.mark.parametrize("kind", list(TargetKind))
async def test_each_target_sees_each_change_once_and_in_order(
    service: Replica, kind: TargetKind
) -> None:
    ada = a_user()
    outcome = await service.rewards.apply(reward(ada, 3))
    name = {TargetKind.USER: ada, TargetKind.NFT: outcome.nft_id, TargetKind.MINT: outcome.mint_id}
    async with watching(service, Target(kind, name[kind])) as stream:
        known = fold({}, await anext(stream))
        for version, state in enumerate(LIFE, start=2):
            await service.reports.apply([report(outcome.mint_id, state, version)])
        for _ in LIFE:
            known = fold(known, await next_change(stream))
    assert known[outcome.mint_id].state == nft_pb2.MINT_STATE_FINALIZED
    assert known[outcome.mint_id].version == 1 + len(LIFE)


async def test_reports_in_one_batch_are_told_step_by_step(service: Replica) -> None:
    ada = a_user()
    mint_id = await queue_mint(service, ada)
    news = [report(mint_id, state, version) for version, state in enumerate(LIFE, start=2)]
    async with watching(service, of_user(ada)) as stream:
        await anext(stream)
        assert await service.reports.apply([*reversed(news), news[0]]) == len(LIFE)
        told = [(await next_change(stream)).change for _ in LIFE]
    assert [change.mint.state for change in told] == [3, 4, 5, 6]
    assert [change.previous_state for change in told] == [1, 3, 4, 5]


async def test_a_rollback_is_told_and_late_reports_are_not(service: Replica) -> None:
    ada = a_user()
    mint_id = await queue_mint(service, ada)
    async with watching(service, of_user(ada)) as stream:
        await anext(stream)
        assert await service.reports.apply([report(mint_id, MintState.MINTED, 5)]) == 1
        assert await service.reports.apply([report(mint_id, MintState.ACCEPTED, 4)]) == 0
        assert await service.reports.apply([report(mint_id, MintState.SUBMITTED, 6)]) == 1
        await next_change(stream)
        back = (await next_change(stream)).change
    assert back.rollback
    assert back.mint.state == nft_pb2.MINT_STATE_SUBMITTED


async def test_a_slow_transaction_is_not_skipped(nft: NftDatabase, service: Replica) -> None:
    """Whoever holds a position and has not committed holds up the positions after it."""
    slow, fast = a_user(), a_user()
    slow_mint, fast_mint = await queue_mint(service, slow), await queue_mint(service, fast)
    last = nft.query("SELECT position FROM nft_feed_head")[0][0]
    async with (
        watching(service, of_user(slow)) as slow_stream,
        watching(service, of_user(fast)) as fast_stream,
    ):
        await anext(slow_stream), await anext(fast_stream)
        with nft.cluster.connect(nft.name) as planted:
            planted.execute("BEGIN")
            planted.execute("UPDATE nft_feed_head SET position = position + 1")
            planted.execute(
                "INSERT INTO nft_feed (position, mint_id, nft_id, user_id, change)"
                " SELECT %s, mint_id, nft_id, user_id, change FROM nft_feed WHERE mint_id = %s",
                (last + 1, slow_mint),
            )
            reporting = asyncio.create_task(
                service.reports.apply([report(fast_mint, MintState.SUBMITTED, 2)])
            )
            await asyncio.sleep(1.5)  # longer than the poll: readers look, and see neither
            assert not reporting.done()
            planted.execute("COMMIT")
        assert (await next_change(slow_stream)).change.mint.mint_id == slow_mint
        assert (await next_change(fast_stream)).change.mint.mint_id == fast_mint
        await reporting
    positions = nft.query("SELECT position FROM nft_feed WHERE position > %s ORDER BY 1", last)
    assert positions == [(last + 1,), (last + 2,)]


async def test_a_watcher_resumes_on_another_replica_and_misses_nothing(
    nft: NftDatabase, service: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("FEW", "PAGE"):
        monkeypatch.setattr(openings, limit, 2)  # what was missed takes several pages
    ada = a_user()
    mint_id = await queue_mint(service, ada)
    async with watching(service, of_user(ada)) as stream:
        first = await anext(stream)
    known = fold({}, first)
    for version, state in enumerate(LIFE[:3], start=2):
        await service.reports.apply([report(mint_id, state, version)])
    async with (
        replica(nft) as other,
        watching(other, of_user(ada), first.resume_token) as stream,
    ):
        for _ in LIFE[:3]:
            known = fold(known, await anext(stream))
        assert (await anext(stream)).HasField("checkpoint"), "it has caught up and says so"
        await service.reports.apply([report(mint_id, LIFE[3], 5)])
        known = fold(known, await next_change(stream))
    assert known[mint_id].state == nft_pb2.MINT_STATE_FINALIZED


async def test_streams_that_open_together_each_begin_with_their_own(service: Replica) -> None:
    users = [a_user() for _ in range(30)]
    mints = await asyncio.gather(*(queue_mint(service, user) for user in users))
    targets = [
        *(of_user(user) for user in users),
        *(Target(TargetKind.MINT, mint_id) for mint_id in mints),
    ]

    async def first(target: Target) -> list[str]:
        async with watching(service, target) as stream:
            return [mint.mint_id for mint in (await anext(stream)).snapshot.mints]

    async def refused() -> None:
        with pytest.raises(MintNotFound):
            await first(Target(TargetKind.MINT, new_id()))

    *begun, _ = await asyncio.gather(*(first(target) for target in targets), refused())
    assert begun == [[mint_id] for mint_id in (*mints, *mints)]


async def test_a_long_snapshot_is_whole(service: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openings, "FEW", 2)  # what a shared read takes of one target
    ada = a_user()
    outcome = await service.rewards.apply(reward(ada, 3))
    mint_ids = [outcome.mint_id]
    for _ in range(3):
        await service.reports.apply([report(mint_ids[-1], MintState.FAILED, 2)])
        another = await service.requests.request(key(), ada, outcome.nft_id, CONNECT)
        mint_ids.append(another.mint_id)
    async with watching(service, of_user(ada)) as stream:
        mints = (await anext(stream)).snapshot.mints
    assert [mint.mint_id for mint in mints] == mint_ids


async def test_checkpoints_come_in_time_and_resume_where_they_promise(service: Replica) -> None:
    ada, bob = a_user(), a_user()
    mint_id = await queue_mint(service, ada)
    async with watching(service, of_user(ada)) as stream:
        await anext(stream)
        other = await queue_mint(service, bob)
        begun = monotonic()
        for _ in range(3):
            message = await anext(stream)
            assert message.checkpoint.next_within.ToTimedelta() == BRISK.checkpoint
        assert monotonic() - begun < 3 * BRISK.checkpoint.total_seconds() + 0.5
    await service.reports.apply([report(mint_id, MintState.SUBMITTED, 2)])
    await service.reports.apply([report(other, MintState.SUBMITTED, 2)])
    async with watching(service, of_user(ada), message.resume_token) as stream:
        missed = await anext(stream)
        assert missed.change.mint.mint_id == mint_id
        assert (await anext(stream)).HasField("checkpoint")


async def test_the_users_fourth_stream_evicts_the_first(service: Replica) -> None:
    ada = a_user()
    await queue_mint(service, ada)
    async with (
        watching(service, of_user(ada)) as first,
        watching(service, of_user(ada)) as second,
        watching(service, of_user(ada)) as third,
        watching(service, of_user(ada)) as fourth,
    ):
        for stream in (first, second, third, fourth):
            await anext(stream)
        with pytest.raises(StreamEvicted):
            await anext(first)
        for stream in (second, third, fourth):
            assert (await anext(stream)).HasField("checkpoint")


async def test_foreign_and_malformed_tokens_are_refused(service: Replica) -> None:
    ada, bob = a_user(), a_user()
    async with watching(service, of_user(ada)) as stream:
        token = (await anext(stream)).resume_token
    for target, wrong in ((of_user(bob), token), (of_user(ada), "nonsense")):
        async with watching(service, target, wrong) as stream:
            with pytest.raises(ResumeTokenInvalid):
                await anext(stream)


async def test_a_token_older_than_the_feed_expires(nft: NftDatabase, service: Replica) -> None:
    ada = a_user()
    async with watching(service, of_user(ada)) as stream:
        token = (await anext(stream)).resume_token
    await queue_mint(service, ada)
    async with watching(service, of_user(ada)) as stream:
        fresh = (await anext(stream)).resume_token
    nft.execute("UPDATE nft_feed SET create_time = now() - interval '8 days'")
    await service.feed.trim()
    assert nft.query("SELECT count(*) FROM nft_feed") == [(0,)]
    async with watching(service, of_user(ada), token) as stream:
        with pytest.raises(ResumeTokenExpired):
            await anext(stream)
    async with watching(service, of_user(ada), fresh) as stream:
        assert (await anext(stream)).HasField("checkpoint")


async def test_trimming_leaves_no_hole(nft: NftDatabase, service: Replica) -> None:
    """Times are those of beginnings: who began first may have committed last."""
    ada = a_user()
    mint_id = await queue_mint(service, ada)
    for version, state in enumerate(LIFE, start=2):
        await service.reports.apply([report(mint_id, state, version)])
    first, second, *rest = [
        position
        for (position,) in nft.query(
            "SELECT position FROM nft_feed WHERE mint_id = %s ORDER BY 1", mint_id
        )
    ]
    nft.execute(
        "UPDATE nft_feed SET create_time = now() - interval '8 days' WHERE position <> %s", second
    )
    await service.feed.trim()
    left = nft.query("SELECT position FROM nft_feed WHERE mint_id = %s ORDER BY 1", mint_id)
    assert left == [(second,), *((position,) for position in rest)]
    assert first < second


async def test_trimming_goes_on_after_a_failure(
    nft: NftDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "TRIM_SECONDS", 0.05)
    refused = asyncio.Event()
    trim = feed.Feed.trim

    async def noted(self: feed.Feed) -> None:
        try:
            await trim(self)
        except Exception:
            refused.set()
            raise

    monkeypatch.setattr(feed.Feed, "trim", noted)
    nft.execute("REVOKE DELETE ON nft_feed FROM nft_app")
    async with replica(nft) as running, asyncio.timeout(10):
        await refused.wait()
        await queue_mint(running, a_user())
        nft.execute("GRANT DELETE ON nft_feed TO nft_app")
        nft.execute("UPDATE nft_feed SET create_time = now() - interval '8 days'")
        while nft.query("SELECT FROM nft_feed"):  # noqa: ASYNC110 - the condition lives there
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("kind", "error"), [(TargetKind.MINT, MintNotFound), (TargetKind.NFT, NftNotFound)]
)
async def test_nobody_watches_what_is_not_there(
    service: Replica, kind: TargetKind, error: type[Exception]
) -> None:
    async with watching(service, Target(kind, new_id())) as stream:
        with pytest.raises(error):
            await anext(stream)


async def test_a_feed_that_closes_says_so(nft: NftDatabase) -> None:
    async with replica(nft) as leaving:
        stream: Any = leaving.feed.watch(of_user(a_user()), "")
        await anext(stream)
    with pytest.raises(Draining):
        await anext(stream)


async def test_a_crowd_of_watchers_folds_to_the_final_state(
    nft: NftDatabase, service: Replica
) -> None:
    users = [a_user() for _ in range(20)]
    async with replica(nft, BRISK) as other:
        done = asyncio.Event()

        async def watch(user_id: str, running: Replica) -> dict[str, nft_pb2.Mint]:
            known: dict[str, nft_pb2.Mint] = {}
            async with watching(running, of_user(user_id)) as stream:
                async for message in stream:
                    known = fold(known, message)
                    if done.is_set() and message.HasField("checkpoint"):
                        break
            return known

        watchers = [
            asyncio.create_task(watch(user, (service, other)[n % 2]))
            for n, user in enumerate(users)
        ]
        mints = await asyncio.gather(*(queue_mint(service, user) for user in users))
        for version, state in enumerate(LIFE, start=2):
            writer = (service, other)[version % 2]
            await writer.reports.apply([report(mint_id, state, version) for mint_id in mints])
        await asyncio.sleep(1.2)  # by then both readers have polled
        done.set()
        seen = await asyncio.gather(*watchers)
    assert [set(known) for known in seen] == [{mint_id} for mint_id in mints]
    assert {mint.state for known in seen for mint in known.values()} == {6}
