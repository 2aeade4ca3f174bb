"""Our collection and item on the devnet, driven by unmodified pytoniq."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import nacl.signing
import pytest
import pytest_asyncio
from pytoniq import HighloadWalletV3, LiteBalancer, WalletV4R2
from pytoniq_core import Address, Cell, HashMap, StateInit, begin_cell
from pytoniq_core.tlb.custom.wallet import WalletMessage

from chain_gateway import contracts
from chain_gateway.contracts.verify import differences, recompiled
from ton_devnet.testing import Devnet

pytestmark = pytest.mark.asyncio(loop_scope="module")

TON = 10**9
MINT_AMOUNT = TON // 20
MINT_VALUE = MINT_AMOUNT + TON // 50
COLLECTION_CONTENT = begin_cell().store_uint(1, 8).store_string("https://x.test/c.json").end_cell()
COMMON = begin_cell().store_string("https://x.test/items/").end_cell()


class Stage:
    """A network's two wallets, one that mints and one that owns, and a collection of its own."""

    def __init__(self, cast: "Cast", number: int) -> None:
        self.client, self.minter, self.owner = cast.client, cast.minter, cast.owner
        self._query_ids = cast.query_ids
        minter, owner = cast.minter, cast.owner
        common = begin_cell().store_slice(COMMON.begin_parse()).store_ref(text(str(number)))
        royalty = begin_cell().store_uint(25, 16).store_uint(1000, 16)
        content = begin_cell().store_ref(COLLECTION_CONTENT)
        content = content.store_ref(common.end_cell()).end_cell()
        minters = HashMap(256, value_serializer=lambda _src, _dest: None)
        minters.set_int_key(int.from_bytes(minter.address.hash_part, "big"), b"")
        data = begin_cell().store_address(owner.address).store_uint(0, 64)
        data.store_dict(minters.serialize()).store_ref(content)
        data.store_ref(contracts.code("item"))
        data.store_ref(royalty.store_address(owner.address).end_cell())
        self.init = StateInit(code=contracts.code("collection"), data=data.end_cell())
        self.collection = Address((0, self.init.serialize().hash))

    async def mint(self, *messages: WalletMessage) -> None:
        await self.minter.raw_transfer(list(messages), query_id=next(self._query_ids))

    async def by_owner(self, to: Address, value: int, body: Cell) -> None:
        """Send, and wait until the wallet can send again."""
        seqno = await self.owner.get_seqno()
        await self.owner.transfer(to, value, body)

        async def sent() -> bool:
            return bool(await self.owner.get_seqno() > seqno)

        await eventually(sent)

    async def item(self, index: int) -> Address:
        stack = await self.client.run_get_method(
            self.collection, "get_nft_address_by_index", [index]
        )
        address: Address = stack[0].load_address()
        return address

    async def item_data(self, index: int) -> list[Any]:
        data: list[Any] = await self.client.run_get_method(
            await self.item(index), "get_nft_data", []
        )
        return data

    async def owner_of(self, index: int) -> Address:
        owner: Address = (await self.item_data(index))[3].load_address()
        return owner

    async def next_index(self) -> int:
        stack = await self.client.run_get_method(self.collection, "get_collection_data", [])
        return int(stack[0])

    async def exists(self, address: Address) -> bool:
        return bool((await self.client.get_account_state(address)).is_active())

    async def last_exit(self, address: Address) -> int:
        transaction = (await self.client.get_transactions(address, 1))[0]
        return int(transaction.description.compute_ph.exit_code)

    async def last_lt(self, address: Address) -> int:
        _, shard_account = await self.client.raw_get_account_state(address)
        return int(shard_account.last_trans_lt)


async def eventually(check: Callable[[], Awaitable[object]], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await check():  # noqa: ASYNC110 - the condition lives in another process
            await asyncio.sleep(0.02)


def key(seed: int) -> bytes:
    signing = nacl.signing.SigningKey(bytes([seed]) * 32)
    return bytes(signing) + bytes(signing.verify_key)


def message(to: Address, value: int, body: Cell, init: StateInit | None = None) -> WalletMessage:
    wrapped: WalletMessage = HighloadWalletV3.create_wallet_internal_message(
        to, send_mode=1, value=value, body=body, state_init=init
    )
    return wrapped


def text(content: str) -> Cell:
    return begin_cell().store_string(content).end_cell()


def item_body(owner: Address, content: Cell) -> Cell:
    return begin_cell().store_address(owner).store_ref(content).end_cell()


def mint_body(index: int, owner: Address, content: Cell) -> Cell:
    body = begin_cell().store_uint(1, 32).store_uint(index, 64).store_uint(index, 64)
    return body.store_coins(MINT_AMOUNT).store_ref(item_body(owner, content)).end_cell()


def transfer_body(to: Address, answer: Address, forward: int = 0) -> Cell:
    body = begin_cell().store_uint(0x5FCC3D14, 32).store_uint(7, 64).store_address(to)
    body.store_address(answer).store_bit_int(0).store_coins(forward).store_bit_int(0)
    return body.end_cell()


@dataclass(frozen=True)
class Cast:
    """What the tests of this file share; each gets its own collection."""

    client: LiteBalancer
    minter: HighloadWalletV3
    owner: WalletV4R2
    query_ids: Iterator[int]
    numbers: Iterator[int]


async def wallets(net: Devnet, client: LiteBalancer) -> tuple[HighloadWalletV3, WalletV4R2]:
    minter = await HighloadWalletV3.from_private_key(client, key(1))
    owner = await WalletV4R2.from_private_key(client, key(2), version="v4r2")
    await asyncio.gather(net.fund(minter.address, 1000), net.fund(owner.address, 100))
    hello = message(minter.address, 0, Cell.empty())
    body = minter.raw_create_transfer_msg(minter.private_key, minter.wallet_id, [hello], 1, 3600)
    await minter.send_external(state_init=minter.state_init, body=body)
    await owner.deploy_via_external()
    for wallet in (minter, owner):

        async def active(wallet: Any = wallet) -> bool:
            await wallet.update()
            return bool(wallet.is_active)

        await eventually(active)
    return minter, owner


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cast(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cast]:
    state = tmp_path_factory.mktemp("ton")
    async with Devnet(state, "--block-interval", "0.005", "--idle-interval", "0.5") as net:
        client = LiteBalancer.from_config(net.config, trust_level=1)
        await client.start_up()
        try:
            minter, owner = await wallets(net, client)
            yield Cast(client, minter, owner, itertools.count(10), itertools.count(1))
        finally:
            await client.close_all()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(cast: Cast) -> Stage:
    stage = Stage(cast, next(cast.numbers))
    await stage.mint(message(stage.collection, TON, Cell.empty(), stage.init))
    await eventually(lambda: stage.exists(stage.collection))
    return stage


async def test_committed_code_belongs_to_the_sources() -> None:
    assert differences() == []
    assert recompiled() is not False


async def test_mints_in_any_order_in_one_wallet_message(stage: Stage) -> None:
    indexes = [7, 3, 0, 199, *range(20, 120)]
    owner = stage.owner.address
    await stage.mint(
        *(
            message(stage.collection, MINT_VALUE, mint_body(i, owner, text(f"{i}.json")))
            for i in indexes
        )
    )
    for index in indexes:
        item = await stage.item(index)
        await eventually(lambda item=item: stage.exists(item))
    assert await stage.next_index() == 200
    initialised, index, collection, owner_slice, content = await stage.item_data(199)
    assert (initialised, index) == (-1, 199)
    assert (collection.load_address(), owner_slice.load_address()) == (stage.collection, owner)
    assert content.hash == text("199.json").hash
    assert not await stage.exists(await stage.item(5))
    state = await stage.client.get_account_state(await stage.item(7))
    assert MINT_AMOUNT - TON // 100 < state.balance <= MINT_AMOUNT


async def test_minting_an_item_again_changes_nothing_and_returns_the_amount(stage: Stage) -> None:
    owner, other = stage.owner.address, stage.minter.address
    await stage.mint(message(stage.collection, MINT_VALUE, mint_body(4, owner, text("first"))))
    item = await stage.item(4)
    await eventually(lambda: stage.exists(item))
    before = await stage.client.get_account_state(stage.collection)
    item_lt = await stage.last_lt(item)
    await stage.mint(message(stage.collection, MINT_VALUE, mint_body(4, other, text("second"))))

    async def answered() -> bool:
        return await stage.last_lt(item) > item_lt

    await eventually(answered)
    assert await stage.owner_of(4) == owner
    assert (await stage.item_data(4))[4].hash == text("first").hash

    async def came_back() -> bool:
        state = await stage.client.get_account_state(stage.collection)
        return bool(state.balance - before.balance > MINT_VALUE - TON // 50)

    await eventually(came_back)


async def test_strangers_may_not_mint(stage: Stage) -> None:
    """The owner takes the minter off the list; its mints then bounce."""
    nobody = begin_cell().store_uint(5, 32).store_uint(0, 64).store_dict(None).end_cell()
    await stage.by_owner(stage.collection, TON // 10, nobody)
    account = int.from_bytes(stage.minter.address.hash_part, "big")

    async def removed() -> bool:
        stack = await stage.client.run_get_method(stage.collection, "is_minter", [account])
        return int(stack[0]) == 0

    await eventually(removed)
    before = await stage.last_lt(stage.collection)
    body = mint_body(0, stage.minter.address, text("mine"))
    await stage.mint(message(stage.collection, MINT_VALUE, body))

    async def handled() -> bool:
        return await stage.last_lt(stage.collection) > before

    await eventually(handled)
    assert await stage.last_exit(stage.collection) == 401
    assert not await stage.exists(await stage.item(0))
    assert await stage.next_index() == 0


async def test_owner_transfers_and_content_is_edited_by_the_collection_only(stage: Stage) -> None:
    owner, other = stage.owner.address, stage.minter.address
    await stage.mint(message(stage.collection, MINT_VALUE, mint_body(0, owner, text("a"))))
    item = await stage.item(0)
    await eventually(lambda: stage.exists(item))

    lt = await stage.last_lt(item)
    await stage.mint(message(item, TON // 20, transfer_body(other, other)))

    async def touched() -> bool:
        return await stage.last_lt(item) > lt

    await eventually(touched)
    assert await stage.last_exit(item) == 401
    edit = begin_cell().store_uint(0x1A0B9D51, 32).store_uint(0, 64).store_ref(text("hacked"))
    lt = await stage.last_lt(item)
    await stage.by_owner(item, TON // 20, edit.end_cell())
    await eventually(touched)
    assert (await stage.item_data(0))[4].hash == text("a").hash

    await stage.by_owner(item, TON // 10, transfer_body(other, owner, forward=TON // 100))

    async def moved() -> bool:
        return await stage.owner_of(0) == other

    await eventually(moved)
    through = begin_cell().store_uint(6, 32).store_uint(0, 64).store_uint(0, 64)
    through = through.store_coins(TON // 50).store_uint(1, 64).store_ref(text("b")).end_cell()
    await stage.mint(message(stage.collection, TON // 10, through))

    async def edited() -> bool:
        return bool((await stage.item_data(0))[4].hash == text("b").hash)

    await eventually(edited)
    assert await stage.owner_of(0) == other


async def test_getters_and_royalty_answer_as_the_standards_say(stage: Stage) -> None:
    run = stage.client.run_get_method
    next_index, content, owner = await run(stage.collection, "get_collection_data", [])
    assert (next_index, content.hash) == (0, COLLECTION_CONTENT.hash)
    assert owner.load_address() == stage.owner.address
    numerator, denominator, destination = await run(stage.collection, "royalty_params", [])
    assert (numerator, denominator) == (25, 1000)
    assert destination.load_address() == stage.owner.address

    tail = (await run(stage.collection, "get_nft_content", [0, text("0.json")]))[0].begin_parse()
    assert (tail.load_uint(8), tail.load_string(21)) == (1, "https://x.test/items/")
    assert [ref.hash for ref in tail.refs][-1] == text("0.json").hash
    for prefix in (0, 1):
        whole = begin_cell().store_uint(prefix, 8).store_string("content").end_cell()
        assert (await run(stage.collection, "get_nft_content", [0, whole]))[0].hash == whole.hash

    ask = begin_cell().store_uint(0x693D3950, 32).store_uint(77, 64).end_cell()
    await stage.by_owner(stage.collection, TON // 20, ask)

    async def reported() -> bool:
        for transaction in await stage.client.get_transactions(stage.owner.address, 3):
            body = transaction.in_msg.body.begin_parse()
            is_answer = transaction.in_msg.is_internal and body.remaining_bits >= 32
            if is_answer and body.load_uint(32) == 0xA8CB00AD:
                return [body.load_uint(n) for n in (64, 16, 16)] == [77, 25, 1000]
        return False

    await eventually(reported)


async def test_ownership_and_content_change_hands(stage: Stage) -> None:
    run, heir = stage.client.run_get_method, stage.minter.address
    new_content = begin_cell().store_ref(text("new")).store_ref(text("common")).end_cell()
    royalty = begin_cell().store_uint(1, 16).store_uint(2, 16).store_address(heir).end_cell()
    change = begin_cell().store_uint(4, 32).store_uint(0, 64).store_ref(new_content)
    await stage.by_owner(stage.collection, TON // 10, change.store_ref(royalty).end_cell())

    async def changed() -> bool:
        return bool((await run(stage.collection, "royalty_params", []))[:2] == [1, 2])

    await eventually(changed)
    give = begin_cell().store_uint(3, 32).store_uint(0, 64).store_address(heir).end_cell()
    await stage.by_owner(stage.collection, TON // 10, give)

    async def given() -> bool:
        data = await run(stage.collection, "get_collection_data", [])
        return bool(data[1].hash == text("new").hash and data[2].load_address() == heir)

    await eventually(given)
    before = await stage.last_lt(stage.collection)
    await stage.by_owner(stage.collection, TON // 10, give)

    async def refused() -> bool:
        return await stage.last_lt(stage.collection) > before

    await eventually(refused)
    assert await stage.last_exit(stage.collection) == 401


async def test_batch_deploys_all_or_nothing_and_the_owner_withdraws(stage: Stage) -> None:
    owner = stage.owner.address
    items = HashMap(
        64, value_serializer=lambda src, dest: dest.store_coins(MINT_AMOUNT).store_ref(src)
    )
    for index in (2, 0, 9):
        items.set_int_key(index, item_body(owner, text(f"{index}")))
    batch = begin_cell().store_uint(2, 32).store_uint(0, 64).store_ref(items.serialize()).end_cell()
    lt = await stage.last_lt(stage.collection)
    await stage.mint(message(stage.collection, 3 * MINT_VALUE - 1, batch))

    async def refused() -> bool:
        return await stage.last_lt(stage.collection) > lt

    await eventually(refused)
    assert await stage.last_exit(stage.collection) == 402
    assert await stage.next_index() == 0
    await stage.mint(message(stage.collection, 3 * MINT_VALUE, batch))
    for index in (0, 2, 9):
        item = await stage.item(index)
        await eventually(lambda item=item: stage.exists(item))
    assert await stage.next_index() == 10

    withdraw = begin_cell().store_uint(7, 32).store_uint(0, 64).end_cell()
    await stage.by_owner(stage.collection, TON // 20, withdraw)

    async def drained() -> bool:
        state = await stage.client.get_account_state(stage.collection)
        return bool(state.balance <= TON // 20)

    await eventually(drained)
