"""Our soulbound item (TEP-85) on the devnet: what it takes, from whom, and what it answers."""

from typing import Any

import pytest
import pytest_asyncio
from pytoniq_core import Address, Cell, begin_cell

from tests.integration.contracts_stage import (
    MINT_VALUE,
    TON,
    Cast,
    Stage,
    cast,
    eventually,
    message,
    mint_body,
    text,
    transfer_body,
)

__all__ = ["cast"]
pytestmark = pytest.mark.asyncio(loop_scope="module")

DATA = text("for whom it concerns")


@pytest_asyncio.fixture(loop_scope="module")
async def stage(cast: Cast) -> Stage:
    """A collection with one soulbound item, at index 0, of mint 7."""
    stage = Stage(cast, next(cast.numbers), "sbt")
    await stage.mint(message(stage.collection, TON, Cell.empty(), stage.init))
    await eventually(lambda: stage.exists(stage.collection))
    item = begin_cell().store_address(stage.owner.address).store_uint(7, 128)
    body = begin_cell().store_uint(1, 32).store_uint(0, 64).store_uint(0, 64)
    body = body.store_coins(TON // 20).store_ref(item.store_ref(text("a")).end_cell())
    await stage.mint(message(stage.collection, MINT_VALUE, body.end_cell()))
    address = await stage.item(0)
    await eventually(lambda: stage.exists(address))
    return stage


def order(op: int, *, index: int = 0) -> Cell:
    """To the collection: do this to the item."""
    body = begin_cell().store_uint(op, 32).store_uint(5, 64).store_uint(index, 64)
    return body.store_coins(TON // 50).end_cell()


def edit(version: int, content: Cell) -> Cell:
    body = begin_cell().store_uint(6, 32).store_uint(5, 64).store_uint(0, 64)
    return body.store_coins(TON // 50).store_uint(version, 64).store_ref(content).end_cell()


def plain(op: int) -> Cell:
    return begin_cell().store_uint(op, 32).store_uint(9, 64).end_cell()


def telling(op: int, to: Address, *, with_content: bool) -> Cell:
    body = begin_cell().store_uint(op, 32).store_uint(9, 64).store_address(to)
    return body.store_ref(DATA).store_bit_int(with_content).end_cell()


async def get(stage: Stage, method: str) -> Any:
    return (await stage.client.run_get_method(await stage.item(0), method, []))[0]


async def exit_after(stage: Stage, to: Address, body: Cell, *, by_owner: bool = True) -> int:
    """Exit code of the item's transaction that a message to `to` leads to."""
    item = await stage.item(0)
    before = await stage.last_lt(item)
    if by_owner:
        await stage.by_owner(to, TON // 10, body)
    else:
        await stage.mint(message(to, TON // 10, body))

    async def handled() -> bool:
        return await stage.last_lt(item) > before

    await eventually(handled)
    return await stage.last_exit(item)


async def told(stage: Stage, to: Address, op: int) -> Any:
    """The body of the newest message with this op at an address, behind op and query id."""
    found: list[Any] = []

    async def arrived() -> bool:
        for transaction in await stage.client.get_transactions(to, 4):
            body = transaction.in_msg.body.begin_parse()
            answers = transaction.in_msg.is_internal and body.remaining_bits >= 96
            if answers and [body.load_uint(32), body.load_uint(64)] == [op, 9]:
                found.append(body)
                return True
        return False

    await eventually(arrived)
    return found[0]


async def test_it_belongs_to_its_owner_for_ever(stage: Stage) -> None:
    item, other = await stage.item(0), stage.minter.address
    assert await exit_after(stage, item, transfer_body(other, other)) == 413
    assert await stage.owner_of(0) == stage.owner.address
    assert (await get(stage, "get_authority_address")).load_address() == stage.collection
    assert [await get(stage, "get_mint_id"), await get(stage, "get_revoked_time")] == [7, 0]


async def test_the_authority_is_whoever_may_mint(stage: Stage) -> None:
    """A minter revokes through the collection; nobody does so directly, and nobody twice."""
    item = await stage.item(0)
    assert await exit_after(stage, item, plain(0x6F89F5E3)) == 0xFFFF
    assert await exit_after(stage, item, plain(0x6F89F5E3), by_owner=False) == 0xFFFF
    assert await exit_after(stage, stage.collection, order(8), by_owner=False) == 0
    revoked_at = await get(stage, "get_revoked_time")
    assert revoked_at > 1_600_000_000
    assert await exit_after(stage, stage.collection, order(8), by_owner=False) == 406
    assert await get(stage, "get_revoked_time") == revoked_at


async def test_the_owner_proves_and_anyone_asks(stage: Stage) -> None:
    item, here = await stage.item(0), stage.owner.address
    assert await exit_after(stage, item, telling(0x04DED148, here, with_content=True)) == 0
    proof = await told(stage, here, 0x0524C7AE)
    assert proof.load_uint(256) == 0
    assert proof.load_address() == here
    assert proof.load_ref().hash == DATA.hash
    assert proof.load_uint(64) == 0
    assert proof.load_maybe_ref().hash == text("a").hash

    asked = telling(0xD0C3BFEA, here, with_content=False)
    stranger, claim = stage.minter.address, telling(0x04DED148, here, with_content=True)
    assert await exit_after(stage, item, claim, by_owner=False) == 401
    assert await exit_after(stage, item, asked, by_owner=False) == 0
    answer = await told(stage, here, 0x0DD607E3)
    assert answer.load_uint(256) == 0
    assert (answer.load_address(), answer.load_address()) == (stranger, here)
    assert answer.load_ref().hash == DATA.hash
    assert (answer.load_uint(64), answer.load_maybe_ref()) == (0, None)


async def test_edits_never_go_back(stage: Stage) -> None:
    for version, name, shown in ((5, "b", "b"), (4, "c", "b"), (5, "d", "b"), (6, "e", "e")):
        change = edit(version, text(name))
        assert await exit_after(stage, stage.collection, change, by_owner=False) == 0
        assert (await stage.item_data(0))[4].hash == text(shown).hash
    assert await get(stage, "get_content_version") == 6


async def test_the_owner_destroys_it_and_no_mint_brings_it_back(stage: Stage) -> None:
    item = await stage.item(0)
    assert await exit_after(stage, item, plain(0xD136D3B3), by_owner=False) == 401
    assert await exit_after(stage, item, plain(0xD136D3B3)) == 0
    state = await stage.client.get_account_state(item)
    assert TON // 40 < state.balance <= 3 * TON // 100, "take_excess leaves what rent needs"
    assert await exit_after(stage, item, plain(0x1F04537A), by_owner=False) == 401
    assert await exit_after(stage, item, plain(0x1F04537A)) == 0
    assert (await stage.item_data(0))[3].load_address() is None
    assert (await get(stage, "get_authority_address")).load_address() is None

    again = mint_body(0, stage.owner.address, text("again"))
    assert await exit_after(stage, stage.collection, again, by_owner=False) == 0
    assert (await stage.item_data(0))[4].hash == text("a").hash
    assert (await stage.item_data(0))[3].load_address() is None
    for late in (edit(9, text("late")), order(8)):
        assert await exit_after(stage, stage.collection, late, by_owner=False) == 405
