"""Our collection and NFT item on the devnet, driven by unmodified pytoniq."""

import pytest
from pytoniq_core import HashMap, begin_cell

from chain_gateway.contracts.verify import differences, recompiled
from tests.integration.contracts_stage import (
    COLLECTION_CONTENT,
    MINT_AMOUNT,
    MINT_VALUE,
    TON,
    Stage,
    cast,
    eventually,
    item_body,
    message,
    mint_body,
    stage,
    text,
    transfer_body,
)

__all__ = ["cast", "stage"]
pytestmark = pytest.mark.asyncio(loop_scope="module")


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
