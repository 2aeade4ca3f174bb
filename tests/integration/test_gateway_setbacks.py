"""Messages that come to nothing, each in its own way: what is sent again, and what never is."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from uuid import uuid4

import pytest
from pytoniq_core.boc.cell import Cell

from chain_gateway import items, query_id
from chain_gateway.accounts import Account
from chain_gateway.cells import EMPTY, build, internal
from chain_gateway.composition import Gateway
from chain_gateway.config import GatewaySettings
from chain_gateway.content import decode, encode
from chain_gateway.items import NANOTON, read_item
from chain_gateway.operations import (
    Content,
    FailureReason,
    Mint,
    Operation,
    Revocation,
    Standard,
    State,
    Transfer,
    Update,
)
from chain_gateway.setup import set_up
from chain_gateway.store.links import LinkStore
from chain_gateway.ton import Block, Chain
from chain_gateway.wallet import ActionList, WalletState
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.migrate import migrate
from tests.integration.gateway_inside import (
    CONTENT,
    Deafness,
    linked_user,
    operation_when,
    received,
    status_when,
    taken,
    taken_together,
)
from tests.integration.gateway_stage import Stage, UserWallet, recording

TIMEOUT, GRACE = 10, 4
LONGEST_COMMENT = "once and only: " * 8


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("setbacks")
    stage = Stage(folder, postgres, make_database(), Authority(folder / "authority"))
    stage.environment |= {
        "GATEWAY_WALLET_TIMEOUT_SECONDS": str(TIMEOUT),
        "GATEWAY_DELIVERY_GRACE_SECONDS": str(GRACE),
        "GATEWAY_RESERVE_TON": "0",
    }
    with stage.devnet():
        yield stage


@pytest.fixture
def deafness(monkeypatch: pytest.MonkeyPatch) -> Deafness:
    return Deafness(monkeypatch)


@pytest.fixture
async def gateway(
    stage: Stage, deafness: Deafness, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Gateway]:
    """With 20 TON and both collections."""
    async with recording(stage):
        for name, value in stage.environment.items():
            monkeypatch.setenv(name, value)
        settings = GatewaySettings()
        assert settings.migration_url is not None
        await migrate("chain_gateway", settings.migration_url.get_secret_value())
        async with Gateway(settings) as gateway:
            await asyncio.to_thread(stage.fund, gateway.wallet.address, 20)
            await set_up(gateway.chain, gateway.wallet, gateway.collections, lambda _: None)
            yield gateway


async def balance(gateway: Gateway, address: str) -> int:
    return (await gateway.chain.account(address, gateway.chain.head)).balance


async def by_operator(gateway: Gateway, deafness: Deafness, message: Cell) -> None:
    """Lets the wallet send a message under an operator's query id."""
    actions = ActionList()
    actions.add(message)
    head = gateway.chain.head
    account = await gateway.chain.account(gateway.wallet.address, head)
    assert account.data is not None
    state = WalletState(account.data)
    query = next(q for q in query_id.operator_ids() if not state.processed(q, head.time))
    boc = gateway.wallet.external(actions, query=query, created_at=head.time)
    await deafness.send(gateway.chain, boc)


async def drained(gateway: Gateway, deafness: Deafness, left: float) -> None:
    """Somebody takes the wallet's money away."""
    before = await balance(gateway, gateway.wallet.address)
    nobody = "0:" + uuid4().hex * 2
    amount = before - int(left * NANOTON)
    await by_operator(gateway, deafness, internal(nobody, amount, EMPTY, bounce=False))
    async with asyncio.timeout(20):
        while await balance(gateway, gateway.wallet.address) > left * NANOTON:  # noqa: ASYNC110
            await asyncio.sleep(0.1)


def is_in(state: State) -> Callable[[Operation], bool]:
    return lambda operation: operation.standing.state is state


def set_back(reason: str) -> Callable[[Operation], bool]:
    return lambda operation: operation.standing.failure_reason == reason


async def minted(gateway: Gateway, standard: Standard = Standard.NFT) -> Operation:
    user_id, _ = await linked_user(gateway)
    mint = await taken(gateway, Mint(CONTENT, standard), user_id)
    return await operation_when(gateway, mint.standing.operation_id, is_in(State.FINALIZED))


async def test_a_query_id_kept_by_a_wallet_that_could_send_nothing(
    stage: Stage, gateway: Gateway, deafness: Deafness
) -> None:
    user_id, wallet = await linked_user(gateway)
    deafness.deaf = True
    paid = await taken(gateway, Transfer(NANOTON, LONGEST_COMMENT), user_id)
    operation_id = paid.standing.operation_id
    first = await operation_when(gateway, operation_id, is_in(State.SUBMITTED))
    await drained(gateway, deafness, 0.05)
    deafness.deaf = False
    await operation_when(gateway, operation_id, set_back(FailureReason.NOTHING_SENT))
    await status_when(gateway, lambda status: status.paused_reason == "LOW_BALANCE")
    assert await received(gateway.chain, wallet.address) == []
    await asyncio.to_thread(stage.fund, gateway.wallet.address, 5)
    done = await operation_when(gateway, operation_id, is_in(State.FINALIZED))
    assert done.query_id != first.query_id
    assert done.standing.failure_reason == ""
    assert await received(gateway.chain, wallet.address) == [(NANOTON, LONGEST_COMMENT)]


async def test_what_the_wallet_left_out_goes_again_and_the_rest_does_not(
    stage: Stage, gateway: Gateway, deafness: Deafness
) -> None:
    payee, wallet = await linked_user(gateway)
    owner, _ = await linked_user(gateway)
    deafness.deaf = True
    transfer = Transfer(NANOTON, "")
    *paid, mint = await taken_together(
        gateway, (transfer, payee), (transfer, payee), (Mint(CONTENT), owner)
    )
    for each in (*paid, mint):
        await operation_when(gateway, each.standing.operation_id, is_in(State.SUBMITTED))
    await drained(gateway, deafness, 1.6)
    deafness.deaf = False
    left_out = await operation_when(
        gateway, paid[1].standing.operation_id, set_back(FailureReason.LOW_BALANCE)
    )
    assert left_out.standing.state is State.SUBMITTED
    await operation_when(gateway, mint.standing.operation_id, is_in(State.FINALIZED))
    await operation_when(gateway, paid[0].standing.operation_id, is_in(State.FINALIZED))
    assert await received(gateway.chain, wallet.address) == [(NANOTON, "")]
    await asyncio.to_thread(stage.fund, gateway.wallet.address, 5)
    await operation_when(gateway, paid[1].standing.operation_id, is_in(State.FINALIZED))
    assert await received(gateway.chain, wallet.address) == [(NANOTON, "")] * 2


async def test_lost_messages_of_all_kinds_run_out_before_they_go_again(
    gateway: Gateway, deafness: Deafness
) -> None:
    item = await minted(gateway, Standard.SBT)
    assert item.order.mint_id is not None
    user_id, wallet = await linked_user(gateway)
    deafness.deaf = True
    lost = [
        await taken(gateway, Transfer(NANOTON, ""), user_id),
        await taken(gateway, Update(item.order.mint_id, Content("New", "", "", ()))),
        await taken(gateway, Revocation(item.order.mint_id)),
    ]
    ids = [each.standing.operation_id for each in lost]
    for operation_id in ids:
        await operation_when(gateway, operation_id, set_back(FailureReason.EXPIRED))
    deafness.deaf = False
    for operation_id in ids:
        await operation_when(gateway, operation_id, is_in(State.FINALIZED))
    assert await received(gateway.chain, wallet.address) == [(NANOTON, "")]
    assert item.standing.placement is not None
    account = await gateway.chain.account(item.standing.placement.address, gateway.chain.head)
    assert account.data is not None
    assert read_item(account.data).revoked_at > 0


@pytest.mark.parametrize("silence", ["the shard lags", "the wallet is denied"])
async def test_nothing_is_paid_again_because_the_chain_says_nothing(
    gateway: Gateway, deafness: Deafness, monkeypatch: pytest.MonkeyPatch, silence: str
) -> None:
    """A block of the wallet's shard that is still to be committed to may run the message."""
    user_id, wallet = await linked_user(gateway)
    deafness.deaf = True
    paid = await taken(gateway, Transfer(NANOTON, ""), user_id)
    operation_id = paid.standing.operation_id
    first = await operation_when(gateway, operation_id, is_in(State.SUBMITTED))
    account = Chain.account

    async def silent(chain: Chain, address: str, at: Block) -> Account:
        found = await account(chain, address, at)
        if address != gateway.wallet.address:
            return found
        if silence == "the shard lags":
            return replace(found, time=found.time - 2 * TIMEOUT)
        return Account(found.balance, None, None, 0, b"", found.time)

    with monkeypatch.context() as patch:
        patch.setattr(Chain, "account", silent)
        until = gateway.chain.head.time + TIMEOUT + 3
        async with asyncio.timeout(30):
            while gateway.chain.head.time < until:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        waiting = await operation_when(gateway, operation_id, lambda _: True)
        assert (waiting.query_id, waiting.standing.state) == (first.query_id, State.SUBMITTED)
        assert waiting.standing.failure_reason == ""
    deafness.deaf = False
    await operation_when(gateway, operation_id, is_in(State.FINALIZED))
    assert await received(gateway.chain, wallet.address) == [(NANOTON, "")]


async def test_a_change_that_comes_late_does_not_overwrite_a_later_one(
    gateway: Gateway, deafness: Deafness
) -> None:
    item = await minted(gateway)
    assert item.order.mint_id is not None
    assert item.standing.placement is not None
    deafness.deaf = True
    older = await taken(gateway, Update(item.order.mint_id, Content("Older", "", "", ())))
    await operation_when(gateway, older.standing.operation_id, is_in(State.SUBMITTED))
    deafness.never.update(deafness.unheard)
    deafness.deaf = False
    newer = await taken(gateway, Update(item.order.mint_id, Content("Newer", "", "", ())))
    await operation_when(gateway, newer.standing.operation_id, is_in(State.FINALIZED))
    # Its own message is still on its way, but the item has left it behind.
    await operation_when(gateway, older.standing.operation_id, is_in(State.FINALIZED))
    deafness.never.clear()
    await deafness.send(gateway.chain, deafness.unheard[0])
    await asyncio.sleep(2)
    account = await gateway.chain.account(item.standing.placement.address, gateway.chain.head)
    assert account.data is not None
    content = read_item(account.data).content
    assert content is not None
    assert decode(content) == {"name": "Newer", "mint_id": item.order.mint_id}


async def test_an_index_that_another_minter_took_is_given_up(
    gateway: Gateway, deafness: Deafness
) -> None:
    """Its changes fail with it; the next mint goes on above."""
    user_id, _ = await linked_user(gateway)
    deafness.deaf = True
    mint = await taken(gateway, Mint(CONTENT), user_id)
    assert mint.order.mint_id is not None
    change = await taken(gateway, Update(mint.order.mint_id, CONTENT))
    placed = await operation_when(gateway, mint.standing.operation_id, is_in(State.SUBMITTED))
    assert placed.standing.placement is not None
    index, collection = placed.standing.placement.index, placed.standing.placement.collection
    rival = str(uuid4())
    for number in (index, index + 3):
        foreign = items.mint(
            collection,
            index=number,
            owner=UserWallet().address,
            content=encode({"name": "Rival", "mint_id": rival}),
            mint_id=rival,
            query_id=0,
        )
        await by_operator(gateway, deafness, foreign)
        await asyncio.sleep(1)
    deafness.deaf = False
    failed = await operation_when(gateway, mint.standing.operation_id, is_in(State.FAILED))
    assert failed.standing.failure_reason == FailureReason.INDEX_TAKEN
    assert failed.standing.retryable
    waited = await operation_when(gateway, change.standing.operation_id, is_in(State.FAILED))
    assert waited.standing.failure_reason == FailureReason.ITEM_NOT_MINTED
    late = await taken(gateway, Update(mint.order.mint_id, CONTENT))
    assert late.standing.failure_reason == FailureReason.ITEM_NOT_MINTED
    following = await minted(gateway)
    assert following.standing.placement is not None
    assert following.standing.placement.index == index + 4


async def test_gas_that_was_too_little_is_doubled(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_id, _ = await linked_user(gateway)
    monkeypatch.setattr(items, "WORK", 12_000_000)
    mint = await taken(gateway, Mint(CONTENT), user_id)
    operation_id = mint.standing.operation_id
    refused = await operation_when(gateway, operation_id, set_back(FailureReason.OUT_OF_GAS))
    done = await operation_when(gateway, operation_id, is_in(State.FINALIZED))
    assert done.standing.placement == refused.standing.placement
    assert done.query_id != refused.query_id


async def test_a_destroyed_item_can_neither_be_changed_nor_revoked(
    gateway: Gateway, deafness: Deafness
) -> None:
    """Its owner is the minting wallet itself, which can be made to destroy it."""
    user_id = f"user-{uuid4()}"
    async with gateway.database.transaction() as connection:
        await LinkStore(connection).link(user_id, gateway.wallet.address)
    mint = await taken(gateway, Mint(CONTENT, Standard.SBT), user_id)
    item = await operation_when(gateway, mint.standing.operation_id, is_in(State.FINALIZED))
    assert item.standing.placement is not None
    assert item.order.mint_id is not None
    address = item.standing.placement.address
    destroy = build().store_uint(0x1F04537A, 32).store_uint(0, 64).end_cell()
    await by_operator(gateway, deafness, internal(address, NANOTON // 20, destroy))
    async with asyncio.timeout(20):
        while True:
            account = await gateway.chain.account(address, gateway.chain.head)
            assert account.data is not None
            if read_item(account.data).destroyed:
                break
            await asyncio.sleep(0.1)
    for task in (Update(item.order.mint_id, CONTENT), Revocation(item.order.mint_id)):
        change = await taken(gateway, task)
        failed = await operation_when(gateway, change.standing.operation_id, is_in(State.FAILED))
        assert failed.standing.failure_reason == FailureReason.ITEM_DESTROYED
        assert not failed.standing.retryable
