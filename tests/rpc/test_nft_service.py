"""The NFT service as a process: from a type and a reward to a watched mint."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from go2asia.mesh.v1 import item_error_pb2
from go2asia.nft.v1 import (
    callbacks_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    nft_pb2,
    nft_pb2_grpc,
    rewards_pb2,
    rewards_pb2_grpc,
)

from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.clock import new_id
from mesh.errors import PermissionDenied, RequestIdReused
from mesh.validation import InvalidFields
from mesh.watching import watch
from nft_svc.errors import (
    EtagMismatch,
    MetadataMismatch,
    MintNotFound,
    NftNotFound,
    NftTypeArchived,
    StreamEvicted,
    UnknownCounter,
    UnknownNftType,
)
from tests.rpc.mesh_probe import serving
from tests.rpc.nft_process import (
    PLACE,
    MemoryGateway,
    NftProcess,
    Watch,
    a_user,
    explorer,
    nft_process,
    reward,
    settled,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(authority: Authority) -> AsyncIterator[tuple[MemoryGateway, str]]:
    memory = MemoryGateway()
    async with serving(authority, memory.registration()) as address:
        yield memory, address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def database(postgres: Cluster, make_database: Callable[[], str]) -> str:
    return make_database()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(
    postgres: Cluster, database: str, authority: Authority, gateway: tuple[MemoryGateway, str]
) -> AsyncIterator[NftProcess]:
    urls = postgres.url(database), postgres.url(database, "nft_app")
    async with nft_process(authority, *urls, gateway[1]) as running:
        async with running.channel("economy-manager/ann") as channel:
            request = catalog_pb2.CreateNftTypeRequest(request_id="t", nft_type=explorer())
            await catalog_pb2_grpc.NftCatalogServiceStub(channel).CreateNftType(request)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rewards(nft: NftProcess) -> AsyncIterator[Any]:
    async with nft.channel("connect/connect") as channel:
        yield rewards_pb2_grpc.RewardServiceStub(channel)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def people(nft: NftProcess) -> AsyncIterator[Any]:
    """NftService as the BFF sees it."""
    async with nft.channel("bff/web") as channel:
        yield nft_pb2_grpc.NftServiceStub(channel)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def catalog(nft: NftProcess) -> AsyncIterator[Any]:
    async with nft.channel("economy-manager/ann") as channel:
        yield catalog_pb2_grpc.NftCatalogServiceStub(channel)


async def test_a_reward_becomes_a_mint_that_a_person_can_watch(
    nft: NftProcess, gateway: tuple[MemoryGateway, str], rewards: Any, people: Any
) -> None:
    ada = a_user()
    outcome = (await rewards.ApplyReward(reward(ada))).outcome
    assert (outcome.level, outcome.level_raised) == (1, True)
    mint = await settled(people, outcome.mint_id, lambda mint: bool(mint.operation_id))
    order = gateway[0].operations[outcome.mint_id]
    assert (order.mint_id, order.user_id) == (outcome.mint_id, ada)
    assert order.content.name == "Explorer I"
    assert [(a.trait_type, a.value) for a in order.content.attributes] == [("level", "1")]

    seen = []
    stream = people.WatchMintStatus(Watch(user_id=ada))
    async with asyncio.timeout(10):
        async for message in stream:
            if message.HasField("snapshot"):
                for version, state in enumerate((3, 4, 5, 6), start=2):
                    assert await nft.report(mint.mint_id, mint.operation_id, version, state) == 1
            elif message.HasField("change"):
                seen.append(message.change.mint.state)
                if len(seen) == 4:
                    break
    assert seen == [3, 4, 5, 6]
    final = (await people.GetNft(nft_pb2.GetNftRequest(nft_id=outcome.nft_id))).nft
    assert (final.mint_id, final.mint_state) == (mint.mint_id, nft_pb2.MINT_STATE_FINALIZED)
    listed = (await people.ListMints(nft_pb2.ListMintsRequest(user_id=ada))).mints
    assert [one.location for one in listed] == [PLACE]


async def test_an_outage_of_the_gateway_delays_a_mint_and_loses_nothing(
    gateway: tuple[MemoryGateway, str], rewards: Any, people: Any
) -> None:
    gateway[0].outages = 2
    outcome = (await rewards.ApplyReward(reward(a_user()))).outcome
    mint = await settled(people, outcome.mint_id, lambda mint: bool(mint.operation_id))
    assert mint.state == nft_pb2.MINT_STATE_QUEUED
    assert gateway[0].outages == 0


async def test_a_final_refusal_fails_the_mint_with_its_reason(rewards: Any, people: Any) -> None:
    outcome = (await rewards.ApplyReward(reward(a_user("refused")))).outcome
    mint = await settled(people, outcome.mint_id, lambda mint: mint.state == 7)
    assert (mint.failure_reason, mint.retryable) == ("INVALID_ARGUMENT", False)


async def test_a_callback_that_overtakes_the_answer_stays(
    nft: NftProcess, gateway: tuple[MemoryGateway, str], rewards: Any, people: Any
) -> None:
    overtaken = asyncio.Event()

    async def overtake(operation: Any) -> None:
        await nft.report(operation.mint_id, operation.operation_id, 3, nft_pb2.MINT_STATE_ACCEPTED)
        overtaken.set()

    gateway[0].before_answering = overtake
    try:
        outcome = (await rewards.ApplyReward(reward(a_user()))).outcome
        async with asyncio.timeout(10):
            await overtaken.wait()
        await asyncio.sleep(0.5)  # by then the answer has come and been weighed
    finally:
        gateway[0].before_answering = None
    response = await people.GetMint(nft_pb2.GetMintRequest(mint_id=outcome.mint_id))
    assert (response.mint.state, response.mint.version) == (nft_pb2.MINT_STATE_ACCEPTED, 2)


async def test_a_batch_answers_item_by_item(rewards: Any) -> None:
    ada = a_user()
    good = reward(ada)
    batch = [
        good,
        reward(ada, increment=0),
        reward(ada, counter="towns"),
        reward(ada, nft_type="x"),
    ]
    request = rewards_pb2.BatchApplyRewardsRequest(rewards=batch)
    results = (await rewards.BatchApplyRewards(request)).results
    errors: list[item_error_pb2.ItemError] = [result.error for result in results]
    assert results[0].outcome.counter_value == 1
    assert [error.reason for error in errors[1:]] == [
        "INVALID_ARGUMENT", "UNKNOWN_COUNTER", "UNKNOWN_NFT_TYPE",
    ]  # fmt: skip
    assert errors[1].field == "rewards[1].increment"
    assert (await rewards.ApplyReward(good)).outcome == results[0].outcome, "one key, both forms"
    with pytest.raises(RequestIdReused):
        await rewards.ApplyReward(reward(ada, request_id=good.request_id, increment=2))


async def test_unary_refusals_arrive_as_their_classes(rewards: Any) -> None:
    with pytest.raises(UnknownCounter):
        await rewards.ApplyReward(reward("ada", counter="towns"))
    with pytest.raises(UnknownNftType):
        await rewards.ApplyReward(reward("ada", nft_type="pirate"))
    with pytest.raises(InvalidFields):
        await rewards.ApplyReward(reward("", increment=-1))


async def test_authors_are_told_what_is_wrong(catalog: Any) -> None:
    wrong = explorer("wrong", power="much")
    with pytest.raises(MetadataMismatch) as refused:
        await catalog.CreateNftType(
            catalog_pb2.CreateNftTypeRequest(request_id="w", nft_type=wrong)
        )
    assert refused.value.metadata == {"level": "1", "path": "$.power"}


async def test_types_round_trip_and_list_in_pages(catalog: Any) -> None:
    wanted = explorer("guide", power=7)
    request = catalog_pb2.CreateNftTypeRequest(request_id="g", nft_type=wanted)
    created = (await catalog.CreateNftType(request)).nft_type
    assert (await catalog.CreateNftType(request)).nft_type == created
    read = (await catalog.GetNftType(catalog_pb2.GetNftTypeRequest(code="guide"))).nft_type
    assert read == created
    assert read.levels == wanted.levels
    page = await catalog.ListNftTypes(catalog_pb2.ListNftTypesRequest(page_size=1))
    rest = await catalog.ListNftTypes(
        catalog_pb2.ListNftTypesRequest(page_size=1, page_token=page.next_page_token)
    )
    assert [one.code for one in (*page.nft_types, *rest.nft_types)] == ["explorer", "guide"]


async def test_reads_show_progress_and_page_through_instances(rewards: Any, people: Any) -> None:
    ada = a_user()
    await rewards.ApplyReward(reward(ada, increment=4))
    progress = await people.GetProgress(
        nft_pb2.GetProgressRequest(user_id=ada, nft_type="explorer")
    )
    assert (dict(progress.progress.counters), progress.progress.level) == ({"quests": 4}, 1)
    seen: list[str] = []
    request = nft_pb2.ListNftsRequest(nft_type="explorer", page_size=2)
    while True:
        page = await people.ListNfts(request)
        seen += [one.nft_id for one in page.nfts]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert len(seen) > 2
    assert seen == sorted(set(seen))
    with pytest.raises(NftNotFound):
        await people.GetNft(nft_pb2.GetNftRequest(nft_id=new_id()))
    with pytest.raises(MintNotFound):
        await people.GetMint(nft_pb2.GetMintRequest(mint_id=new_id()))


async def test_only_the_gateway_reports(nft: NftProcess) -> None:
    async with nft.channel("connect/connect") as channel:
        stub = callbacks_pb2_grpc.MintCallbackServiceStub(channel)
        with pytest.raises(PermissionDenied):
            await stub.ReportMintStatus(nft_pb2.GetMintRequest())


async def test_the_bffs_helper_gives_way_when_evicted(rewards: Any, people: Any) -> None:
    ada = a_user()
    await rewards.ApplyReward(reward(ada))
    tokens: list[str] = []
    opened = asyncio.Event()

    def open_stream(token: str) -> Any:
        tokens.append(token)
        return people.WatchMintStatus(Watch(user_id=ada, resume_token=token))

    async def follow() -> None:
        async for _ in watch(open_stream):
            opened.set()  # only now is it sure to be the oldest

    async with asyncio.timeout(10):
        watcher = asyncio.create_task(follow())
        await opened.wait()
        newer = [people.WatchMintStatus(Watch(user_id=ada)) for _ in range(3)]
        for stream in newer:
            await anext(aiter(stream))
        with pytest.raises(StreamEvicted):
            await watcher
    assert len(tokens) == 1
    for stream in newer:
        stream.cancel()


async def test_authors_see_whom_a_change_touches_and_archive_for_good(
    catalog: Any, rewards: Any, people: Any
) -> None:
    created = await catalog.CreateNftType(
        catalog_pb2.CreateNftTypeRequest(request_id="scout", nft_type=explorer("scout"))
    )
    quests = {"a": 1, "b": 4, "c": 5, "d": 9}
    prefix = a_user()
    for name, increment in quests.items():
        await rewards.ApplyReward(reward(prefix + name, nft_type="scout", increment=increment))
    changed = created.nft_type
    changed.levels[0].thresholds["quests"] = 3
    changed.levels.add(level=2, thresholds={"quests": 5})
    request = catalog_pb2.PreviewNftTypeRequest(nft_type=changed, page_size=2)
    first = await catalog.PreviewNftType(request)
    request.page_token = first.next_page_token
    rest = await catalog.PreviewNftType(request)
    shifts = [*first.shifts, *rest.shifts]
    assert [(one.user_id, one.level, one.level_due) for one in shifts] == [
        (prefix + "a", 1, 0), (prefix + "c", 1, 2), (prefix + "d", 1, 2),
    ]  # fmt: skip
    assert all(one.nft_id for one in shifts)
    assert (first.examined + rest.examined, rest.next_page_token) == (4, "")
    progress = nft_pb2.GetProgressRequest(user_id=prefix + "c", nft_type="scout")
    assert (await people.GetProgress(progress)).progress.level == 1, "a preview changes nothing"

    update = catalog_pb2.UpdateNftTypeRequest(request_id=new_id(), nft_type=changed)
    updated = (await catalog.UpdateNftType(update)).nft_type
    assert (await people.GetProgress(progress)).progress.level == 1, "nor does an update by itself"
    raised = await rewards.ApplyReward(reward(prefix + "c", nft_type="scout"))
    assert raised.outcome.level == 2

    with pytest.raises(EtagMismatch):
        await catalog.ArchiveNftType(archive("scout", changed.etag))
    with pytest.raises(EtagMismatch):
        await catalog.PreviewNftType(catalog_pb2.PreviewNftTypeRequest(nft_type=changed))
    with pytest.raises(UnknownNftType):
        await catalog.ArchiveNftType(archive("pirate", "x"))
    request = archive("scout", updated.etag)
    archived = (await catalog.ArchiveNftType(request)).nft_type
    assert (archived.state, archived.version) == (catalog_pb2.NftType.STATE_ARCHIVED, 3)
    assert (await catalog.ArchiveNftType(request)).nft_type == archived
    with pytest.raises(NftTypeArchived):
        await catalog.ArchiveNftType(archive("scout", archived.etag))
    updated.etag = archived.etag
    with pytest.raises(NftTypeArchived):
        await catalog.UpdateNftType(
            catalog_pb2.UpdateNftTypeRequest(request_id=new_id(), nft_type=updated)
        )
    with pytest.raises(NftTypeArchived) as refused:
        await rewards.ApplyReward(reward(prefix + "c", nft_type="scout"))
    assert (refused.value.field, refused.value.metadata) == ("nft_type", {"nft_type": "scout"})
    with pytest.raises(NftTypeArchived):
        await rewards.GrantNft(
            rewards_pb2.GrantNftRequest(request_id=new_id(), user_id=prefix, nft_type="scout")
        )


async def test_a_types_versions_are_kept_with_their_authors(catalog: Any) -> None:
    create = catalog_pb2.CreateNftTypeRequest(request_id=new_id(), nft_type=explorer("pilgrim"))
    first = (await catalog.CreateNftType(create)).nft_type
    changed = catalog_pb2.NftType()
    changed.CopyFrom(first)
    changed.levels[0].thresholds["quests"] = 3
    update = catalog_pb2.UpdateNftTypeRequest(request_id=new_id(), nft_type=changed)
    second = (await catalog.UpdateNftType(update)).nft_type
    third = (await catalog.ArchiveNftType(archive("pilgrim", second.etag))).nft_type
    request = catalog_pb2.ListNftTypeVersionsRequest(code="pilgrim", page_size=2)
    newest = await catalog.ListNftTypeVersions(request)
    request.page_token = newest.next_page_token
    oldest = await catalog.ListNftTypeVersions(request)
    versions = [*newest.versions, *oldest.versions]
    assert [version.nft_type for version in versions] == [third, second, first]
    assert {version.author for version in versions} == {"economy-manager/ann"}
    times = [version.create_time.ToDatetime() for version in versions]
    assert times == sorted(times, reverse=True)
    assert oldest.next_page_token == ""
    with pytest.raises(UnknownNftType):
        await catalog.ListNftTypeVersions(catalog_pb2.ListNftTypeVersionsRequest(code="nobody"))


def archive(code: str, etag: str) -> catalog_pb2.ArchiveNftTypeRequest:
    return catalog_pb2.ArchiveNftTypeRequest(request_id=new_id(), code=code, etag=etag)
