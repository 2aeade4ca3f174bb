"""A collection of its own for each test, on one devnet, driven by unmodified pytoniq.

The fixtures `cast` and `stage` are taken by importing them.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import nacl.signing
import pytest
import pytest_asyncio
from pytoniq import HighloadWalletV3, LiteBalancer, WalletV4R2
from pytoniq_core import Address, Cell, HashMap, StateInit, begin_cell
from pytoniq_core.tlb.custom.wallet import WalletMessage

from chain_gateway import contracts
from ton_devnet.testing import Devnet

TON = 10**9
MINT_AMOUNT = TON // 20
MINT_VALUE = MINT_AMOUNT + TON // 50
COLLECTION_CONTENT = begin_cell().store_uint(1, 8).store_string("https://x.test/c.json").end_cell()
COMMON = begin_cell().store_string("https://x.test/items/").end_cell()


class Stage:
    """A network's two wallets, one that mints and one that owns, and a collection of its own."""

    def __init__(self, cast: "Cast", number: int, item: Literal["item", "sbt"] = "item") -> None:
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
        data.store_ref(contracts.code(item))
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
