"""What the Gateway's RPCs refuse, with which reason, over mutual TLS and a real devnet."""

from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import pytest_asyncio
from go2asia.gateway.v1 import chain_pb2, errors_pb2, minting_pb2, wallets_pb2
from pytoniq_core.boc.address import Address

from chain_gateway import errors
from chain_gateway.errors import (
    ChainUnavailable,
    ChallengeInvalid,
    ContentTooLarge,
    InvalidAddress,
    ItemNotFound,
    ItemNotRevocable,
    MintAlreadyOrdered,
    MintNotFound,
    OperationNotFound,
    ProofInvalid,
    TransferLimitReached,
    WalletNotLinked,
)
from chain_gateway.reading import read_item
from chain_gateway.ton import Block, Chain
from devstack.postgres import Cluster
from mesh.errors import (
    InvalidArgument,
    Kind,
    MeshError,
    PageTokenInvalid,
    PermissionDenied,
    RequestIdReused,
)
from mesh.pagination import next_token
from tests.integration.gateway_stage import (
    Callers,
    Stage,
    UserWallet,
    calling,
    orders,
    playing,
    recording,
)


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    with playing(tmp_path_factory.mktemp("refusals"), postgres, make_database()) as stage:
        yield stage


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def callers(stage: Stage) -> AsyncIterator[Callers]:
    async with recording(stage), calling(stage) as callers:
        yield callers


MAINNET = "F6OpKZKqvqeFp6CQmFomXNMfMj2EnaUSOXN+Mh+wVWk="  # root hash of its zero state

pytestmark = pytest.mark.asyncio(loop_scope="module")


def proof_request(wallet: UserWallet, payload: str, user_id: str) -> wallets_pb2.LinkWalletRequest:
    return wallets_pb2.LinkWalletRequest(
        request_id=str(uuid4()),
        user_id=user_id,
        address=wallet.address,
        state_init=wallet.state_init,
        proof=wallet.prove(payload),
    )


async def challenge(callers: Callers, user_id: str) -> str:
    response = await callers.links.CreateChallenge(
        wallets_pb2.CreateChallengeRequest(request_id=str(uuid4()), user_id=user_id)
    )
    payload: str = response.payload
    return payload


async def errors_of(callers: Callers, *ordered: minting_pb2.MintOrder) -> list[str]:
    response = await callers.minting.BatchSubmitMints(
        minting_pb2.BatchSubmitMintsRequest(orders=ordered)
    )
    return [result.error.reason for result in response.results]


async def test_every_reason_of_the_contract_has_its_class() -> None:
    declared = {
        name.removeprefix("ERROR_REASON_")
        for name, number in errors_pb2.ErrorReason.items()
        if number
    }
    ours = {
        cls.reason
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, MeshError) and cls is not MeshError
    }
    assert ours == declared


async def test_a_bad_order_fails_alone(callers: Callers) -> None:
    good, unnamed, huge, again, other, plain, spaced = orders("an", 7)
    unnamed.content.name = ""
    plain.content.image = "http://badges.example/1.png"
    spaced.content.uri = "https://badges.example/1 2.json"
    huge.content.description = "字" * 1024
    huge.content.attributes.extend(
        minting_pb2.Attribute(trait_type=f"t{number}", value="字" * 256) for number in range(19)
    )
    again.mint_id = good.mint_id
    other.request_id = good.request_id
    got = await errors_of(callers, good, unnamed, huge, again, other, plain, spaced)
    assert got == [
        "",
        "INVALID_ARGUMENT",
        "CONTENT_TOO_LARGE",
        "MINT_ALREADY_ORDERED",
        "REQUEST_ID_REUSED",
        "INVALID_ARGUMENT",
        "INVALID_ARGUMENT",
    ]
    # What was refused left no trace: corrected, it is taken under the same request id.
    huge.content.ClearField("attributes")
    assert await errors_of(callers, huge, good, other) == ["", "", "REQUEST_ID_REUSED"]


def change_of(order: minting_pb2.MintOrder) -> minting_pb2.UpdateItemContentRequest:
    return minting_pb2.UpdateItemContentRequest(
        request_id=str(uuid4()),
        mint_id=str(uuid4()),
        item_mint_id=order.mint_id,
        content=order.content,
    )


async def test_what_cannot_be_changed_is_refused(callers: Callers) -> None:
    [minted, unknown] = orders("khoa", 2)
    await callers.submit([minted])
    with pytest.raises(MintNotFound) as missing:
        await callers.minting.UpdateItemContent(change_of(unknown))
    assert missing.value.metadata == {"mint_id": unknown.mint_id}
    assert missing.value.field == "item_mint_id"

    huge = change_of(minted)
    huge.content.attributes.extend(
        minting_pb2.Attribute(trait_type=f"t{number}", value="字" * 256) for number in range(15)
    )
    with pytest.raises(ContentTooLarge) as large:
        await callers.minting.UpdateItemContent(huge)
    assert large.value.field == "content"

    change = change_of(minted)
    taken = await callers.minting.UpdateItemContent(change)
    assert (await callers.minting.UpdateItemContent(change)) == taken
    again = change_of(minted)
    again.mint_id = change.mint_id
    with pytest.raises(MintAlreadyOrdered):
        await callers.minting.UpdateItemContent(again)
    change.content.name = "Something else"
    with pytest.raises(RequestIdReused):
        await callers.minting.UpdateItemContent(change)

    revoke = minting_pb2.RevokeItemRequest(
        request_id=str(uuid4()), mint_id=str(uuid4()), item_mint_id=minted.mint_id
    )
    with pytest.raises(ItemNotRevocable) as bound:
        await callers.minting.RevokeItem(revoke)
    assert bound.value.kind is Kind.FAILED_PRECONDITION
    assert bound.value.metadata == {"mint_id": minted.mint_id}


async def test_transfers_are_bounded(callers: Callers) -> None:
    def pay(user_id: str, amount: int, comment: str = "") -> minting_pb2.SubmitTransferRequest:
        return minting_pb2.SubmitTransferRequest(
            order=minting_pb2.TransferOrder(
                request_id=str(uuid4()), user_id=user_id, amount_nanoton=amount, comment=comment
            )
        )

    submit = callers.operator_minting.SubmitTransfer
    with pytest.raises(PermissionDenied):
        await callers.minting.SubmitTransfer(pay("long", 1))
    for wrong, field in (
        (pay("long", 0), "order.amount_nanoton"),
        (pay("long", 1, "字" * 41), "order.comment"),
        (pay("long", 1, "bell\a"), "order.comment"),
        (pay("lo\x1bng", 1), "order.user_id"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            await submit(wrong)
        assert caught.value.field == field
    await submit(pay("long", 6_000_000_000))
    with pytest.raises(TransferLimitReached) as reached:
        await submit(pay("long", 4_000_000_001))
    assert reached.value.kind is Kind.RESOURCE_EXHAUSTED
    assert not reached.value.transient
    assert reached.value.field == "amount_nanoton"
    assert reached.value.metadata == {
        "limit_nanoton": "10000000000",
        "left_nanoton": "4000000000",
    }
    await submit(pay("long", 4_000_000_000))
    await submit(pay("somebody else", 4_000_000_001))


async def test_operations_are_listed_page_by_page(callers: Callers) -> None:
    taken = await callers.submit(orders("binh", 5))
    listed: list[str] = []
    request = minting_pb2.ListOperationsRequest(
        state=minting_pb2.OPERATION_STATE_AWAITING_WALLET, page_size=2
    )
    with pytest.raises(PermissionDenied):
        await callers.minting.ListOperations(request)
    while True:
        page = await callers.operator_minting.ListOperations(request)
        listed += [operation.operation_id for operation in page.operations]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert listed == sorted(listed)
    assert {operation.operation_id for operation in taken} <= set(listed)
    request.page_token = next_token(request, ("no id",))
    with pytest.raises(PageTokenInvalid):
        await callers.operator_minting.ListOperations(request)
    with pytest.raises(OperationNotFound):
        await callers.operation(str(uuid4()))


async def test_a_challenge_is_used_once_and_by_its_user(callers: Callers) -> None:
    wallet, payload = UserWallet(), await challenge(callers, "chi")
    with pytest.raises(ChallengeInvalid):
        await callers.links.LinkWallet(proof_request(wallet, payload, "not-chi"))
    with pytest.raises(ChallengeInvalid):
        await callers.links.LinkWallet(proof_request(wallet, "made-up", "chi"))
    request = proof_request(wallet, payload, "chi")
    first = await callers.links.LinkWallet(request)
    assert await callers.links.LinkWallet(request) == first
    with pytest.raises(ChallengeInvalid):
        await callers.links.LinkWallet(proof_request(wallet, payload, "chi"))
    request.user_id = "someone else"
    with pytest.raises(RequestIdReused):
        await callers.links.LinkWallet(request)
    found = await callers.links.GetLinkedWallet(wallets_pb2.GetLinkedWalletRequest(user_id="chi"))
    assert found.wallet == first.wallet
    with pytest.raises(WalletNotLinked):
        await callers.links.GetLinkedWallet(wallets_pb2.GetLinkedWalletRequest(user_id="nobody"))
    with pytest.raises(InvalidArgument) as unstorable:
        await callers.links.GetLinkedWallet(wallets_pb2.GetLinkedWalletRequest(user_id="a\0"))
    assert unstorable.value.field == "user_id"


async def test_the_same_request_gets_the_same_challenge(callers: Callers) -> None:
    request = wallets_pb2.CreateChallengeRequest(request_id=str(uuid4()), user_id="dung")
    first = await callers.links.CreateChallenge(request)
    assert await callers.links.CreateChallenge(request) == first


async def test_a_proof_that_does_not_hold_is_refused_and_spends_nothing(callers: Callers) -> None:
    wallet, payload = UserWallet(), await challenge(callers, "em")

    async def part(request: wallets_pb2.LinkWalletRequest) -> str:
        with pytest.raises(ProofInvalid) as caught:
            await callers.links.LinkWallet(request)
        return caught.value.metadata["part"]

    foreign_domain = proof_request(wallet, payload, "em")
    foreign_domain.proof.CopyFrom(wallet.prove(payload, domain="evil.test"))
    assert await part(foreign_domain) == "domain"
    old = proof_request(wallet, payload, "em")
    old.proof.sign_time.FromDatetime(datetime.now(UTC) - timedelta(hours=1))
    assert await part(old) == "time"
    stolen = proof_request(UserWallet(), payload, "em")
    stolen.proof.CopyFrom(wallet.prove(payload))
    assert await part(stolen) == "signature"
    disguised = proof_request(wallet, payload, "em")
    disguised.state_init = UserWallet().state_init
    assert await part(disguised) == "state_init"
    elsewhere = proof_request(wallet, payload, "em")
    elsewhere.address = "-1:" + wallet.address.removeprefix("0:")
    with pytest.raises(InvalidAddress):
        await callers.links.LinkWallet(elsewhere)
    endless = proof_request(wallet, payload, "em")
    endless.address = "9" * 5_000 + wallet.address.removeprefix("0")
    with pytest.raises(InvalidArgument) as caught:
        await callers.links.LinkWallet(endless)
    assert caught.value.field == "address"
    timeless = proof_request(wallet, payload, "em")
    timeless.proof.sign_time.seconds = 1_700_000_000_000
    assert await part(timeless) == "time"
    linked = await callers.links.LinkWallet(proof_request(wallet, payload, "em"))
    assert linked.wallet.address == wallet.address


async def test_oversized_content_is_refused_with_its_measure(callers: Callers) -> None:
    [order] = orders("khoa", 1)
    order.content.attributes.extend(
        minting_pb2.Attribute(trait_type=f"t{number}", value="字" * 256) for number in range(19)
    )
    with pytest.raises(ContentTooLarge) as caught:
        await callers.minting.SubmitMint(minting_pb2.SubmitMintRequest(order=order))
    assert caught.value.field == "content"
    assert int(caught.value.metadata["actual"]) > int(caught.value.metadata["limit"])


async def test_a_collection_that_we_do_not_have_is_refused(callers: Callers) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await callers.chain.ListCollectionItems(
            chain_pb2.ListCollectionItemsRequest(standard=99)  # type: ignore[arg-type]
        )
    assert caught.value.field == "standard"


async def test_what_is_no_item_is_not_found(stage: Stage, callers: Callers) -> None:
    async def item(address: str) -> None:
        await callers.chain.GetNftItem(chain_pb2.GetNftItemRequest(item_address=address))

    async def burn(address: str) -> None:
        await callers.chain.VerifyBurn(chain_pb2.VerifyBurnRequest(item_address=address))

    account = "00" * 32
    mistyped = "EQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAM8c"  # its checksum is another
    for ask in (item, burn):
        for address in ("no address", f"0:{account}00", mistyped, f"-1:{account}", f"7:{account}"):
            with pytest.raises(InvalidAddress) as caught:
                await ask(address)
            assert caught.value.field == "item_address"
            assert caught.value.metadata["address"] == address
        for address in (f"0:{account}", stage.collection().address):
            with pytest.raises(ItemNotFound):
                await ask(address)


@pytest.mark.parametrize(("root_hash", "refused"), [(MAINNET, True), ("else", False)])
async def test_an_address_of_a_test_network_means_nothing_on_mainnet(
    root_hash: str, refused: bool
) -> None:
    chain = Chain({"liteservers": [], "validator": {"zero_state": {"root_hash": root_hash}}}, 1)
    block = Block(1, b"", 0, None)
    address = Address("0:" + "12" * 32).to_str(is_test_only=True)
    with pytest.raises(InvalidAddress if refused else ChainUnavailable):
        await read_item(chain, address, block)
