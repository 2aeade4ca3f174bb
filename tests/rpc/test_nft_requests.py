"""Mints that people ask for, try again and call off, over RPC; and the log that tells of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from go2asia.nft.v1 import (
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
from mesh.errors import InvalidArgument, PermissionDenied, RequestIdReused
from nft_svc.errors import (
    LevelTakenBack,
    MintEnded,
    MintExists,
    MintHandedOver,
    MintingNotOffered,
    MintNotFound,
    MintNotRetryable,
    NftNotFound,
    NotTheOwner,
)
from tests.rpc.mesh_probe import serving
from tests.rpc.nft_process import (
    MemoryGateway,
    NftProcess,
    a_user,
    explorer,
    nft_process,
    reward,
    settled,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

POLICIES = {
    "explorer": catalog_pb2.ONCHAIN_POLICY_AUTO,
    "guide": catalog_pb2.ONCHAIN_POLICY_ON_REQUEST,
    "secret": catalog_pb2.ONCHAIN_POLICY_NONE,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(authority: Authority) -> AsyncIterator[tuple[MemoryGateway, str]]:
    memory = MemoryGateway()
    async with serving(authority, memory.registration()) as address:
        yield memory, address


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(
    postgres: Cluster,
    make_database: Callable[[], str],
    authority: Authority,
    gateway: tuple[MemoryGateway, str],
) -> AsyncIterator[NftProcess]:
    name = make_database()
    urls = postgres.url(name), postgres.url(name, "nft_app")
    async with nft_process(authority, *urls, gateway[1]) as running:
        async with running.channel("economy-manager/ann") as channel:
            for code, policy in POLICIES.items():
                nft_type = explorer(code)
                nft_type.onchain_policy = policy
                request = catalog_pb2.CreateNftTypeRequest(request_id=code, nft_type=nft_type)
                await catalog_pb2_grpc.NftCatalogServiceStub(channel).CreateNftType(request)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rewards(nft: NftProcess) -> AsyncIterator[Any]:
    async with nft.channel("connect/connect") as channel:
        yield rewards_pb2_grpc.RewardServiceStub(channel)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def people(nft: NftProcess) -> AsyncIterator[Any]:
    async with nft.channel("bff/web") as channel:
        yield nft_pb2_grpc.NftServiceStub(channel)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operators(nft: NftProcess) -> AsyncIterator[Any]:
    async with nft.channel("operator/ops") as channel:
        yield nft_pb2_grpc.NftServiceStub(channel)


def ask(user_id: str, nft_id: str, request_id: str = "") -> nft_pb2.RequestMintRequest:
    return nft_pb2.RequestMintRequest(
        request_id=request_id or new_id(), user_id=user_id, nft_id=nft_id
    )


def again(user_id: str, mint_id: str, request_id: str = "") -> nft_pb2.RetryMintRequest:
    return nft_pb2.RetryMintRequest(
        request_id=request_id or new_id(), user_id=user_id, mint_id=mint_id
    )


def call_off(user_id: str, mint_id: str, request_id: str = "") -> nft_pb2.CancelMintRequest:
    return nft_pb2.CancelMintRequest(
        request_id=request_id or new_id(), user_id=user_id, mint_id=mint_id
    )


async def a_badge(rewards: Any, user_id: str, nft_type: str) -> str:
    nft_id: str = (await rewards.ApplyReward(reward(user_id, nft_type=nft_type))).outcome.nft_id
    return nft_id


async def test_an_owner_asks_and_the_badge_goes_to_the_gateway(
    gateway: tuple[MemoryGateway, str], rewards: Any, people: Any
) -> None:
    ada = a_user()
    nft_id = await a_badge(rewards, ada, "guide")
    request = ask(ada, nft_id)
    mint = (await people.RequestMint(request)).mint
    assert (mint.nft_id, mint.user_id, mint.state) == (nft_id, ada, nft_pb2.MINT_STATE_QUEUED)
    assert mint.content.name == "Explorer I"
    taken = await settled(people, mint.mint_id, lambda mint: bool(mint.operation_id))
    assert gateway[0].operations[mint.mint_id].operation_id == taken.operation_id
    assert (await people.RequestMint(request)).mint == mint, "a repetition gets the first answer"
    with pytest.raises(RequestIdReused):
        await people.RequestMint(ask("eve", nft_id, request.request_id))
    with pytest.raises(MintExists) as refused:
        await people.RequestMint(ask(ada, nft_id))
    assert refused.value.metadata == {
        "nft_id": nft_id, "mint_id": mint.mint_id, "state": "QUEUED",
    }  # fmt: skip


async def test_an_auto_type_may_be_asked_for_once_its_mint_failed(
    rewards: Any, people: Any
) -> None:
    ada = a_user("refused")
    outcome = (await rewards.ApplyReward(reward(ada))).outcome
    await settled(people, outcome.mint_id, lambda mint: mint.state == nft_pb2.MINT_STATE_FAILED)
    mint = (await people.RequestMint(ask(ada, outcome.nft_id))).mint
    assert mint.mint_id != outcome.mint_id
    assert not mint.retry_of


async def test_fifty_requests_at_once_queue_one_mint(rewards: Any, people: Any) -> None:
    ada = a_user()
    nft_id = await a_badge(rewards, ada, "guide")
    answers = await asyncio.gather(
        *(people.RequestMint(ask(ada, nft_id)) for _ in range(50)), return_exceptions=True
    )
    assert sum(isinstance(answer, nft_pb2.RequestMintResponse) for answer in answers) == 1
    assert sum(isinstance(answer, MintExists) for answer in answers) == 49


async def test_bad_requests_are_told_what_is_wrong(rewards: Any, people: Any) -> None:
    ada = a_user()
    secret = await a_badge(rewards, ada, "secret")
    guide = await a_badge(rewards, ada, "guide")
    with pytest.raises(MintingNotOffered) as offered:
        await people.RequestMint(ask(ada, secret))
    assert (offered.value.field, offered.value.metadata) == ("nft_id", {"nft_type": "secret"})
    with pytest.raises(NotTheOwner) as owner:
        await people.RequestMint(ask("eve", guide))
    assert (owner.value.field, owner.value.metadata) == ("user_id", {"nft_id": guide})
    with pytest.raises(NftNotFound):
        await people.RequestMint(ask(ada, new_id()))
    with pytest.raises(MintNotFound):
        await people.RetryMint(again(ada, new_id()))
    with pytest.raises(MintNotFound):
        await people.CancelMint(call_off(ada, new_id()))
    with pytest.raises(InvalidArgument, match="user_id"):
        await people.RequestMint(ask("a\tda", guide))


async def test_a_retry_is_a_new_mint_with_a_new_id(
    nft: NftProcess, gateway: tuple[MemoryGateway, str], rewards: Any, people: Any
) -> None:
    ada = a_user()
    outcome = (await rewards.ApplyReward(reward(ada))).outcome
    mint = await settled(people, outcome.mint_id, lambda mint: bool(mint.operation_id))
    with pytest.raises(MintNotRetryable) as alive:
        await people.RetryMint(again(ada, mint.mint_id))
    assert alive.value.metadata["state"] == "QUEUED"
    await nft.report(
        mint.mint_id, mint.operation_id, 2, nft_pb2.MINT_STATE_FAILED,
        failure_reason="INDEX_TAKEN", retryable=True,
    )  # fmt: skip
    with pytest.raises(NotTheOwner):
        await people.RetryMint(again("eve", mint.mint_id))
    request = again(ada, mint.mint_id)
    new = (await people.RetryMint(request)).mint
    assert (new.retry_of, new.nft_id) == (mint.mint_id, mint.nft_id)
    assert new.mint_id != mint.mint_id
    assert (await people.RetryMint(request)).mint == new
    with pytest.raises(MintExists):
        await people.RetryMint(again(ada, mint.mint_id))
    taken = await settled(people, new.mint_id, lambda mint: bool(mint.operation_id))
    assert taken.operation_id != mint.operation_id
    assert {mint.mint_id, new.mint_id} <= gateway[0].operations.keys()


async def test_a_mint_that_would_fail_again_is_not_retried(rewards: Any, people: Any) -> None:
    ada = a_user("refused")
    outcome = (await rewards.ApplyReward(reward(ada))).outcome
    await settled(people, outcome.mint_id, lambda mint: mint.state == nft_pb2.MINT_STATE_FAILED)
    with pytest.raises(MintNotRetryable) as refused:
        await people.RetryMint(again(ada, outcome.mint_id))
    assert refused.value.metadata["failure_reason"] == "INVALID_ARGUMENT"


async def test_what_was_sent_cannot_be_called_off(
    nft: NftProcess, gateway: tuple[MemoryGateway, str], rewards: Any, people: Any
) -> None:
    ada = a_user()
    taken = (await rewards.ApplyReward(reward(ada))).outcome
    mint = await settled(people, taken.mint_id, lambda mint: bool(mint.operation_id))
    gateway[0].sent.add(mint.mint_id)  # and its report is still on the way
    with pytest.raises(MintHandedOver) as sent:
        await people.CancelMint(call_off(ada, mint.mint_id))
    assert sent.value.metadata == {"mint_id": mint.mint_id, "state": "SUBMITTED"}
    await nft.report(mint.mint_id, mint.operation_id, 2, nft_pb2.MINT_STATE_SUBMITTED)
    with pytest.raises(MintHandedOver):
        await people.CancelMint(call_off(ada, mint.mint_id))
    await nft.report(mint.mint_id, mint.operation_id, 9, nft_pb2.MINT_STATE_FINALIZED)
    with pytest.raises(MintEnded) as ended:
        await people.CancelMint(call_off(ada, mint.mint_id))
    assert ended.value.metadata["state"] == "FINALIZED"


async def test_what_the_gateway_has_not_sent_is_called_off_there(
    gateway: tuple[MemoryGateway, str], rewards: Any, people: Any, operators: Any
) -> None:
    ada, bob = a_user(), a_user()
    taken = (await rewards.ApplyReward(reward(ada))).outcome
    mint = await settled(people, taken.mint_id, lambda mint: bool(mint.operation_id))
    request = call_off(ada, mint.mint_id)
    off = (await people.CancelMint(request)).mint
    assert (off.state, off.operation_id) == (nft_pb2.MINT_STATE_CANCELLED, mint.operation_id)
    assert (await people.CancelMint(request)).mint == off
    assert (await people.CancelMint(call_off(ada, mint.mint_id))).mint == off
    log = nft_pb2.ListAuditLogRequest(nft_id=mint.nft_id, action="mint.cancel")
    (entry,) = (await operators.ListAuditLog(log)).entries
    assert (entry.actor, entry.request_id) == ("bff/web", request.request_id)
    anew = (await people.RequestMint(ask(ada, mint.nft_id))).mint
    await settled(people, anew.mint_id, lambda mint: bool(mint.operation_id))

    answering, answer = asyncio.Event(), asyncio.Event()

    async def hesitate(_: Any) -> None:
        answering.set()
        await answer.wait()

    gateway[0].before_answering = hesitate
    try:
        under_way = (await rewards.ApplyReward(reward(bob))).outcome
        async with asyncio.timeout(10):
            await answering.wait()
        off = (await people.CancelMint(call_off(bob, under_way.mint_id))).mint
    finally:
        gateway[0].before_answering = None
        answer.set()
    assert off.state == nft_pb2.MINT_STATE_CANCELLED
    assert gateway[0].operations[under_way.mint_id].state == nft_pb2.MINT_STATE_CANCELLED


async def test_a_gift_is_taken_back_by_its_request_id(rewards: Any, people: Any) -> None:
    ada = a_user()
    badge = rewards_pb2.GrantNftRequest(request_id=new_id(), user_id=ada, nft_type="guide")
    batch = [badge, rewards_pb2.GrantNftRequest(request_id=new_id(), nft_type="guide")]
    request = rewards_pb2.BatchGrantNftsRequest(grants=batch)
    results = (await rewards.BatchGrantNfts(request)).results
    assert results[1].error.field == "grants[1].user_id", "each by itself"
    given = (await rewards.GrantNft(badge)).outcome
    assert given == results[0].outcome, "one key, both forms"
    assert (given.level, given.level_raised, given.user_id) == (1, True, ada)
    raised = reward(ada, nft_type="guide", increment=3)
    await rewards.ApplyReward(raised)
    for original, level in ((raised.request_id, 1), (badge.request_id, 0)):
        request = rewards_pb2.RevertRewardRequest(
            request_id=new_id(), original_request_id=original, reference="reversal-1"
        )
        taken = (await rewards.RevertReward(request)).outcome
        assert (taken.level, taken.nft_id, taken.tombstone) == (level, given.nft_id, False)
        assert (await rewards.RevertReward(request)).outcome == taken
    nft = (await people.GetNft(nft_pb2.GetNftRequest(nft_id=given.nft_id))).nft
    assert (nft.level, len(nft.metadata)) == (0, 0)
    with pytest.raises(LevelTakenBack):
        await people.RequestMint(ask(ada, given.nft_id))

    late = reward(ada, nft_type="guide")
    early = rewards_pb2.RevertRewardRequest(
        request_id=new_id(), original_request_id=late.request_id
    )
    assert (await rewards.RevertReward(early)).outcome.tombstone
    assert (await rewards.ApplyReward(late)).outcome.reverted
    progress = nft_pb2.GetProgressRequest(user_id=ada, nft_type="guide")
    assert dict((await people.GetProgress(progress)).progress.counters) == {"quests": 0}


async def test_only_connect_and_operators_give_and_take(nft: NftProcess) -> None:
    async with nft.channel("bff/web") as channel:
        stub: Any = rewards_pb2_grpc.RewardServiceStub(channel)
        with pytest.raises(PermissionDenied):
            await stub.GrantNft(rewards_pb2.GrantNftRequest())
        with pytest.raises(PermissionDenied):
            await stub.RevertReward(rewards_pb2.RevertRewardRequest())


async def test_progress_lists_in_pages_by_user_and_type(rewards: Any, people: Any) -> None:
    ada = a_user()
    for nft_type in POLICIES:
        await rewards.ApplyReward(reward(ada, nft_type=nft_type, increment=2))
    request = nft_pb2.ListProgressRequest(user_id=ada, page_size=2)
    first = await people.ListProgress(request)
    request.page_token = first.next_page_token
    rest = await people.ListProgress(request)
    listed = [*first.progress, *rest.progress]
    assert [(one.nft_type, one.counters["quests"], one.level) for one in listed] == [
        ("explorer", 2, 1), ("guide", 2, 1), ("secret", 2, 1),
    ]  # fmt: skip
    assert not rest.next_page_token
    of_type = await people.ListProgress(nft_pb2.ListProgressRequest(nft_type="guide"))
    assert {one.nft_type for one in of_type.progress} == {"guide"}
    assert ada in {one.user_id for one in of_type.progress}


async def test_the_audit_log_lists_by_user_badge_and_action(
    rewards: Any, people: Any, operators: Any
) -> None:
    ada = a_user()
    nft_id = await a_badge(rewards, ada, "guide")
    await a_badge(rewards, ada, "secret")
    asked = ask(ada, nft_id)
    mint = (await people.RequestMint(asked)).mint
    await settled(people, mint.mint_id, lambda mint: bool(mint.operation_id))

    async def log(**filters: Any) -> list[Any]:
        request = nft_pb2.ListAuditLogRequest(page_size=1, **filters)
        entries: list[Any] = []
        while True:
            page = await operators.ListAuditLog(request)
            entries += page.entries
            if not page.next_page_token:
                return entries
            request.page_token = page.next_page_token

    of_user = await log(user_id=ada)
    assert [one.action for one in of_user] == [
        "mint.report", "mint.queue", "reward.apply", "reward.apply",
    ]  # fmt: skip
    of_badge = await log(nft_id=nft_id)
    assert [one.action for one in of_badge] == ["mint.report", "mint.queue", "reward.apply"]
    (queued,) = await log(nft_id=nft_id, action="mint.queue")
    assert (queued.actor, queued.request_id) == ("bff/web", asked.request_id)
    assert queued.subject == f"mint/{mint.mint_id}"
    assert queued.after["state"] == "QUEUED"
    assert queued.trace_id
    with pytest.raises(PermissionDenied):
        await people.ListAuditLog(nft_pb2.ListAuditLogRequest(user_id=ada))
