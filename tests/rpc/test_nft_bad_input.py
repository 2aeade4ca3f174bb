"""Every refusal tells its status, its reason, and the field at fault."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
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
from mesh.errors import Kind, MeshError
from mesh.pagination import next_token
from tests.rpc.mesh_probe import serving
from tests.rpc.nft_process import MemoryGateway, Watch, a_user, explorer, nft_process, reward

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADA = a_user()
LEVEL_TWICE = [{"trait_type": "level", "value": 1}]


@dataclass
class Callers:
    """Stubs of everyone, a badge of Ada's of each type, and a resume token of hers."""

    authors: Any
    connect: Any
    people: Any
    badges: dict[str, str]
    token: str
    etag: str


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(
    postgres: Cluster, make_database: Callable[[], str], authority: Authority
) -> AsyncIterator[Callers]:
    name = make_database()
    urls = postgres.url(name), postgres.url(name, "nft_app")
    async with (
        serving(authority, MemoryGateway().registration()) as gateway,
        nft_process(authority, *urls, gateway) as nft,
        nft.channel("economy-manager/ann") as one,
        nft.channel("connect/connect") as two,
        nft.channel("bff/web") as three,
    ):
        authors: Any = catalog_pb2_grpc.NftCatalogServiceStub(one)
        connect: Any = rewards_pb2_grpc.RewardServiceStub(two)
        people: Any = nft_pb2_grpc.NftServiceStub(three)
        badges = {}
        for code, policy in (("explorer", 3), ("secret", 1), ("old", 2)):
            nft_type = explorer(code)
            nft_type.onchain_policy = policy
            request = catalog_pb2.CreateNftTypeRequest(request_id=code, nft_type=nft_type)
            created = (await authors.CreateNftType(request)).nft_type
            outcome = (await connect.ApplyReward(reward(ADA, nft_type=code))).outcome
            badges[code] = outcome.nft_id
        archive = catalog_pb2.ArchiveNftTypeRequest(request_id="a", code="old", etag=created.etag)
        etag = (await authors.ArchiveNftType(archive)).nft_type.etag
        stream = people.WatchMintStatus(Watch(user_id=ADA))
        token = (await anext(aiter(stream))).resume_token
        stream.cancel()
        yield Callers(authors, connect, people, badges, token, etag)


def created(**metadata: Any) -> catalog_pb2.CreateNftTypeRequest:
    nft_type = explorer(f"t{new_id()[:8]}", **metadata)
    return catalog_pb2.CreateNftTypeRequest(request_id=new_id(), nft_type=nft_type)


def with_image(image: str) -> catalog_pb2.CreateNftTypeRequest:
    request = created()
    request.nft_type.image = image
    return request


def with_schema(schema: dict[str, Any]) -> catalog_pb2.CreateNftTypeRequest:
    request = created()
    request.nft_type.metadata_schema.Clear()
    request.nft_type.metadata_schema.update(schema)
    return request


def verbose() -> catalog_pb2.CreateNftTypeRequest:
    listed = [{"trait_type": f"t{number}", "value": "🜁" * 100} for number in range(14)]
    request = created(attributes=listed)
    request.nft_type.description = "🜁" * 1_024
    return request


def gaps() -> catalog_pb2.CreateNftTypeRequest:
    request = created()
    request.nft_type.levels[0].level = 2
    return request


def asked(nft_id: str, user_id: str = ADA) -> nft_pb2.RequestMintRequest:
    return nft_pb2.RequestMintRequest(request_id=new_id(), user_id=user_id, nft_id=nft_id)


async def watched(callers: Callers, **request: Any) -> None:
    async for _ in callers.people.WatchMintStatus(Watch(**request)):
        return


def forged(request: Any, *key: str | int) -> Any:
    """The request with a token that nobody gave out."""
    request.page_token = next_token(request, key)
    return request


def changed_archived(callers: Callers) -> catalog_pb2.UpdateNftTypeRequest:
    nft_type = explorer("old")
    nft_type.etag = callers.etag
    return catalog_pb2.UpdateNftTypeRequest(request_id=new_id(), nft_type=nft_type)


Case = tuple[Callable[[Callers], Awaitable[Any]], Kind, str, str, dict[str, str]]
CASES: dict[str, Case] = {
    "unknown type": (
        lambda c: c.connect.ApplyReward(reward(ADA, nft_type="pirate")),
        Kind.NOT_FOUND, "UNKNOWN_NFT_TYPE", "nft_type", {"nft_type": "pirate"},
    ),
    "unknown counter": (
        lambda c: c.connect.ApplyReward(reward(ADA, counter="towns")),
        Kind.INVALID_ARGUMENT, "UNKNOWN_COUNTER", "counter",
        {"nft_type": "explorer", "counter": "towns"},
    ),
    "negative increment": (
        lambda c: c.connect.ApplyReward(reward(ADA, increment=-1)),
        Kind.INVALID_ARGUMENT, "INVALID_ARGUMENT", "increment", {},
    ),
    "archived type, rewarded": (
        lambda c: c.connect.ApplyReward(reward(ADA, nft_type="old")),
        Kind.FAILED_PRECONDITION, "NFT_TYPE_ARCHIVED", "nft_type", {"nft_type": "old"},
    ),
    "archived type, given": (
        lambda c: c.connect.GrantNft(
            rewards_pb2.GrantNftRequest(request_id=new_id(), user_id=ADA, nft_type="old")
        ),
        Kind.FAILED_PRECONDITION, "NFT_TYPE_ARCHIVED", "nft_type", {"nft_type": "old"},
    ),
    "archived type, changed": (
        lambda c: c.authors.UpdateNftType(changed_archived(c)),
        Kind.FAILED_PRECONDITION, "NFT_TYPE_ARCHIVED", "nft_type.code", {"nft_type": "old"},
    ),
    "metadata against its schema": (
        lambda c: c.authors.CreateNftType(created(power="much")),
        Kind.INVALID_ARGUMENT, "METADATA_MISMATCH", "nft_type.levels[0].metadata",
        {"level": "1", "path": "$.power"},
    ),
    "metadata that no item can carry": (
        lambda c: c.authors.CreateNftType(created(attributes=LEVEL_TWICE)),
        Kind.INVALID_ARGUMENT, "METADATA_MISMATCH", "nft_type.levels[0].metadata",
        {"level": "1", "path": "$.attributes[0].trait_type"},
    ),
    "a template with an unknown word": (
        lambda c: c.authors.CreateNftType(with_image("ipfs://x/{user_id}.png")),
        Kind.INVALID_ARGUMENT, "UNKNOWN_PLACEHOLDER", "nft_type.image",
        {"placeholder": "user_id"},
    ),
    "metadata with an unknown word": (
        lambda c: c.authors.CreateNftType(created(image="ipfs://x/{}.png")),
        Kind.INVALID_ARGUMENT, "UNKNOWN_PLACEHOLDER", "nft_type.levels[0].metadata",
        {"placeholder": "", "path": "$.image"},
    ),
    "a number that JSON has no word for": (
        lambda c: c.authors.CreateNftType(created(power=float("inf"))),
        Kind.INVALID_ARGUMENT, "INVALID_ARGUMENT", "nft_type.levels[0].metadata", {},
    ),
    "a schema that leads to itself": (
        lambda c: c.authors.CreateNftType(with_schema({"$ref": "#"})),
        Kind.INVALID_ARGUMENT, "INVALID_METADATA_SCHEMA", "nft_type.metadata_schema",
        {"path": "$"},
    ),
    "a schema with NaN": (
        lambda c: c.authors.CreateNftType(with_schema({"minimum": float("nan")})),
        Kind.INVALID_ARGUMENT, "INVALID_ARGUMENT", "nft_type.metadata_schema", {},
    ),
    "more than fits on chain": (
        lambda c: c.authors.CreateNftType(verbose()),
        Kind.INVALID_ARGUMENT, "METADATA_MISMATCH", "nft_type.levels[0].metadata",
        {"level": "1", "path": "$"},
    ),
    "a gap between levels": (
        lambda c: c.authors.CreateNftType(gaps()),
        Kind.INVALID_ARGUMENT, "INVALID_LEVELS", "nft_type.levels[0]", {"level": "1"},
    ),
    "mint of a type of policy NONE": (
        lambda c: c.people.RequestMint(asked(c.badges["secret"])),
        Kind.FAILED_PRECONDITION, "MINTING_NOT_OFFERED", "nft_id", {"nft_type": "secret"},
    ),
    "mint of nothing": (
        lambda c: c.people.RequestMint(asked("01890000-0000-7000-8000-000000000000")),
        Kind.NOT_FOUND, "NFT_NOT_FOUND", "nft_id",
        {"nft_id": "01890000-0000-7000-8000-000000000000"},
    ),
    "malformed id": (
        lambda c: c.people.RequestMint(asked("7")),
        Kind.INVALID_ARGUMENT, "INVALID_ARGUMENT", "nft_id", {},
    ),
    "malformed resume token": (
        lambda c: watched(c, user_id=ADA, resume_token="?"),
        Kind.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID", "resume_token", {},
    ),
    "resume token of another target": (
        lambda c: watched(c, user_id="eve", resume_token=c.token),
        Kind.INVALID_ARGUMENT, "RESUME_TOKEN_INVALID", "resume_token", {},
    ),
    "watching nothing": (
        lambda c: watched(c),
        Kind.INVALID_ARGUMENT, "INVALID_ARGUMENT", "target", {},
    ),
    "malformed code, read": (
        lambda c: c.authors.GetNftType(catalog_pb2.GetNftTypeRequest(code="x" * 64)),
        Kind.INVALID_ARGUMENT, "INVALID_ARGUMENT", "code", {},
    ),
    "unknown type, read": (
        lambda c: c.authors.GetNftType(catalog_pb2.GetNftTypeRequest(code="pirate")),
        Kind.NOT_FOUND, "UNKNOWN_NFT_TYPE", "code", {"nft_type": "pirate"},
    ),
    "a text that cannot be stored": (
        lambda c: c.authors.GetNftType(catalog_pb2.GetNftTypeRequest(code="pi\0rate")),
        Kind.INVALID_ARGUMENT, "INVALID_ARGUMENT", "code", {},
    ),
    "metadata that cannot be stored": (
        lambda c: c.authors.CreateNftType(created(motto="\0")),
        Kind.INVALID_ARGUMENT, "INVALID_ARGUMENT", "nft_type.levels[0].metadata", {},
    ),
    "metadata with a number that is none": (
        lambda c: c.authors.CreateNftType(created(power=float("inf"))),
        Kind.INVALID_ARGUMENT, "INVALID_ARGUMENT", "nft_type.levels[0].metadata", {},
    ),
    "a page token with no id": (
        lambda c: c.people.ListNfts(forged(nft_pb2.ListNftsRequest(user_id=ADA), "pirate")),
        Kind.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", "page_token", {},
    ),
    "a page token with half a key": (
        lambda c: c.people.ListProgress(forged(nft_pb2.ListProgressRequest(user_id=ADA), ADA)),
        Kind.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID", "page_token", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
async def test_a_refusal_is_precise(callers: Callers, case: str) -> None:
    call, kind, reason, field, metadata = CASES[case]
    with pytest.raises(MeshError) as refused:
        await call(callers)
    error = refused.value
    assert (error.kind, error.reason, error.field) == (kind, reason, field)
    assert error.metadata == metadata
    assert len(error.message) > 20, "it says what is wrong and what to do"


async def test_somebody_elses_badge_and_mint_are_not_touched(callers: Callers) -> None:
    nft_id = callers.badges["explorer"]
    nft = (await callers.people.GetNft(nft_pb2.GetNftRequest(nft_id=nft_id))).nft
    wanted = {"request_id": "eve-1", "user_id": "eve"}
    calls = {
        "nft_id": callers.people.RequestMint(asked(nft_id, "eve")),
        "mint_id": callers.people.CancelMint(
            nft_pb2.CancelMintRequest(mint_id=nft.mint_id, **wanted)
        ),
    }
    for named, call in calls.items():
        with pytest.raises(MeshError) as refused:
            await call
        error = refused.value
        assert (error.kind, error.reason) == (Kind.PERMISSION_DENIED, "NOT_THE_OWNER")
        assert (error.field, error.metadata[named]) == ("user_id", getattr(nft, named))


async def test_a_batch_names_the_field_of_the_item_at_fault(callers: Callers) -> None:
    bad = [reward(ADA, increment=0), reward(ADA, counter="towns"), reward(ADA, nft_type="old")]
    request = rewards_pb2.BatchApplyRewardsRequest(rewards=[reward(ADA), *bad])
    results = (await callers.connect.BatchApplyRewards(request)).results
    assert results[0].outcome.counter_value
    assert [one.error.field for one in results[1:]] == [
        "rewards[1].increment", "rewards[2].counter", "rewards[3].nft_type",
    ]  # fmt: skip
