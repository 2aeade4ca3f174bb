"""What is read from the chain: accounts that nobody answers for, items that others made, burns."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from pytoniq_core.boc.slice import Slice

from chain_gateway import convert
from chain_gateway.accounts import Account
from chain_gateway.burning import find_burn
from chain_gateway.cells import build, parse, read
from chain_gateway.content import encode
from chain_gateway.errors import ChainUnavailable, ItemNotFound
from chain_gateway.items import ITEM_CODE_HASHES
from chain_gateway.reading import read_item
from chain_gateway.ton import Block, Chain, GetMethodFailed
from chain_gateway.transactions import Message, Transaction

ITEM, COLLECTION, OWNER = ("0:" + digits * 32 for digits in ("aa", "bb", "cc"))
NOBODY = "0:" + "00" * 32
HEAD = Block(7, b"", 0, None)


class Offline(Chain):
    """A chain without lite-servers; what one would say is given."""

    def __init__(self) -> None:
        super().__init__({"liteservers": []}, 1)
        self.found = Account(0, None, None, 0, b"", 0)
        self.stacks: Mapping[str, Sequence[Any]] = {}
        self.kept: Sequence[Transaction] = ()

    @property
    def head(self) -> Block:
        return HEAD

    async def account(self, address: str, at: Block) -> Account:
        return self.found

    async def run_get_method(
        self, address: str, method: str, stack: Sequence[Any], at: Block
    ) -> list[Any]:
        if method not in self.stacks:
            raise GetMethodFailed(11)
        return list(self.stacks[method])

    async def transactions(self, address: str, account: Account) -> AsyncIterator[Transaction]:
        for transaction in self.kept:
            yield transaction
        raise ChainUnavailable("A lite-server keeps too little of an account's history.")


async def test_accounts_that_nobody_answers_for_are_out_of_reach() -> None:
    """Not a group of errors, which no caller expects."""
    with pytest.raises(ChainUnavailable):
        await Chain({"liteservers": []}, 1).accounts([ITEM, OWNER], HEAD)


def address(raw: str | None) -> Slice:
    return read(build().store_address(None if raw is None else parse(raw)).end_cell())


def foreign(index: Any, revoked_at: int | None = None) -> Offline:
    chain, content = Offline(), encode({"name": "Theirs"})
    chain.stacks = {
        "get_nft_data": [-1, index, address(COLLECTION), address(OWNER), content],
        "get_nft_content": [content],
    }
    if revoked_at is not None:
        chain.stacks = {**chain.stacks, "get_revoked_time": [revoked_at]}
    return chain


@pytest.mark.parametrize(
    ("index", "shown"), [(5, 5), (2**64 - 1, 2**64 - 1), (2**64, 0), (2**255, 0), (-1, 0)]
)
async def test_an_index_that_has_no_room_is_left_out(index: int, shown: int) -> None:
    """Names of the .ton domain have such: their hash."""
    item = convert.item(await read_item(foreign(index), ITEM, HEAD))
    assert (item.initialised, item.item_index, item.content["name"]) == (True, shown, "Theirs")


@pytest.mark.parametrize(
    ("revoked_at", "shown"), [(0, 0), (77, 77), (253_402_300_799, 253_402_300_799), (2**255, 0)]
)
async def test_a_time_that_is_none_is_left_out(revoked_at: int, shown: int) -> None:
    item = convert.item(await read_item(foreign(1, revoked_at), ITEM, HEAD))
    assert item.revoke_time.seconds == shown
    assert item.HasField("revoke_time") == bool(shown)


async def test_what_answers_with_something_else_is_no_item() -> None:
    for index in (None, build().end_cell(), "1"):
        with pytest.raises(ItemNotFound):
            await read_item(foreign(index), ITEM, HEAD)


async def test_a_burn_is_found_though_nobody_keeps_what_was_before() -> None:
    chain = Offline()
    [(code_hash, _), *_] = ITEM_CODE_HASHES.items()
    stored = build().store_uint(3, 64).store_address(parse(COLLECTION))
    stored.store_address(parse(NOBODY)).store_uint(9, 128).store_uint(0, 64).store_uint(0, 64)
    stored.store_ref(encode({"name": "Burnt"}))
    chain.found = Account(1, stored.end_cell(), code_hash, 20, b"", 0)
    transferred = build().store_uint(0x5FCC3D14, 32).store_uint(0, 64).store_address(parse(NOBODY))
    chain.kept = (
        transaction(20, Message(OWNER, ITEM, 1, 0, 0, False, build().end_cell())),  # dust
        transaction(10, Message(OWNER, ITEM, 1, 0, 0, False, transferred.end_cell())),
    )
    found = await find_burn(chain, ITEM, 0)
    assert found is not None
    assert (found.lt, found.burner) == (10, OWNER)


def transaction(lt: int, incoming: Message) -> Transaction:
    return Transaction(lt, b"", 1, 0, False, 0, incoming, ())
