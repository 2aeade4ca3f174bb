"""What goes into a message of the wallet, in which order, for how much."""

from dataclasses import replace

from pytoniq_core.boc.cell import Cell
from pytoniq_core.tlb.transaction import MessageAny

from chain_gateway import items
from chain_gateway.cells import build, read
from chain_gateway.content import encode, off_chain
from chain_gateway.items import Collection
from chain_gateway.operations import (
    Content,
    FailureReason,
    Mint,
    Placement,
    Revocation,
    Standard,
    Transfer,
    Update,
)
from chain_gateway.packing import affordable, cost, pack
from chain_gateway.store.sending import Waiting

MINT_ID = "0192f7a2-0000-7000-8000-0000000000aa"
OWNER = "0:" + "cd" * 32
CONTENT = Content("Early bird", "", "", ())
COLLECTIONS = {
    standard: Collection(OWNER, name=standard.name, description="", image="", standard=standard)
    for standard in Standard
}
NFT, SBT = (COLLECTIONS[standard].address for standard in Standard)
PLACE = Placement(SBT, 4, "0:" + "ef" * 32)

MINT = Waiting("m", MINT_ID, Mint(CONTENT), None, OWNER, 0, 0)
SOULBOUND = Waiting("s", MINT_ID, Mint(CONTENT, Standard.SBT), None, OWNER, 0, 0)
TRANSFER = Waiting("t", None, Transfer(1_000, "thanks"), None, OWNER, 0, 0)
UPDATE = Waiting("u", MINT_ID, Update(MINT_ID, CONTENT), PLACE, OWNER, 77, 0)
REVOKE = Waiting("r", MINT_ID, Revocation(MINT_ID), PLACE, OWNER, 0, 0)


def messages(*waiting: Waiting) -> list[MessageAny]:
    packed = pack(waiting, COLLECTIONS, {NFT: 10, SBT: 3}, query_id=6)
    found, actions = [], packed.actions.cell
    while actions.refs:
        actions, sent = actions.refs
        found.append(MessageAny.deserialize(read(sent)))
    return found[::-1]


def body(message: MessageAny) -> Cell:
    cell: Cell = message.body
    return cell


def test_each_standard_counts_its_own_indices() -> None:
    packed = pack([MINT, SOULBOUND, MINT], COLLECTIONS, {NFT: 10, SBT: 3}, query_id=6)
    places = [each.placement for each in packed.operations]
    assert [place and (place.collection, place.index) for place in places] == [
        (NFT, 10),
        (SBT, 3),
        (NFT, 11),
    ]
    assert packed.next_indices == {NFT: 12, SBT: 4}
    assert packed.value == 3 * items.MINT_COST


def test_an_item_stays_where_it_was_placed_even_in_a_collection_of_old() -> None:
    old = Placement("0:" + "99" * 32, 2, "0:" + "98" * 32)
    again = replace(MINT, placement=old)
    packed = pack([again], COLLECTIONS, {NFT: 10, SBT: 3}, query_id=6)
    assert packed.operations[0].placement == old
    assert packed.next_indices == {NFT: 10, SBT: 3}
    [message] = messages(again)
    assert message.info.dest.hash_part.hex() == "99" * 32


def test_a_mint_says_its_mint_id_beside_its_content() -> None:
    for described, content in (
        (CONTENT, encode({"name": "Early bird", "mint_id": MINT_ID})),
        (replace(CONTENT, uri="ipfs://x"), off_chain("ipfs://x")),
    ):
        [message] = messages(replace(MINT, task=Mint(described)))
        order = read(body(message))
        assert [order.load_uint(bits) for bits in (32, 64, 64)] == [items.OP_MINT, 6, 10]
        assert order.load_coins() == items.ITEM_AMOUNT
        item = read(order.load_ref())
        item.load_address()
        assert items.read_mint_id(item) == MINT_ID
        assert item.load_ref().hash == content.hash


def test_changes_go_to_the_collection_and_a_later_edit_has_the_higher_version() -> None:
    edit, revoke = messages(UPDATE, REVOKE)
    assert edit.info.dest.hash_part.hex() == SBT.removeprefix("0:")
    order = read(body(edit))
    assert [order.load_uint(bits) for bits in (32, 64, 64)] == [items.OP_EDIT_ITEM, 6, 4]
    assert (order.load_coins(), order.load_uint(64)) == (items.ERRAND_AMOUNT, 77)
    assert order.load_ref().hash == encode({"name": "Early bird", "mint_id": MINT_ID}).hash
    order = read(body(revoke))
    assert [order.load_uint(bits) for bits in (32, 64, 64)] == [items.OP_REVOKE_ITEM, 6, 4]


def test_a_transfer_never_bounces_and_shows_its_comment() -> None:
    [plain] = messages(TRANSFER)
    assert (plain.info.bounce, plain.info.value_coins) == (False, 1_000)
    assert body(plain).hash == build().store_uint(0, 32).store_bytes(b"thanks").end_cell().hash
    [silent] = messages(replace(TRANSFER, task=Transfer(1, "")))
    assert not body(silent).bits


def test_a_comment_of_any_length_is_sent() -> None:
    """Beyond some seventy bytes there is no room for it beside the header."""
    for size in range(121):
        [message] = messages(replace(TRANSFER, task=Transfer(10**18, "x" * size)))
        assert body(message).bits.tobytes()[4:] == b"x" * size


def test_what_no_message_can_be_made_of_holds_up_nobody() -> None:
    broken = replace(MINT, operation_id="b", owner="no address")
    packed = pack([broken, MINT, TRANSFER], COLLECTIONS, {NFT: 10, SBT: 3}, query_id=6)
    assert [each.operation_id for each in packed.operations] == ["m", "t"]
    assert packed.unsendable.keys() == {"b"}
    assert packed.next_indices == {NFT: 11, SBT: 3}
    assert packed.value == cost(MINT) + cost(TRANSFER)


def test_want_of_gas_brings_more_up_to_eightfold() -> None:
    short = replace(MINT, setback=FailureReason.OUT_OF_GAS)
    prices = [cost(replace(short, refusals=refusals)) - items.MINT_COST for refusals in range(6)]
    work = items.WORK
    assert prices == [0, work, 3 * work, 7 * work, 7 * work, 7 * work]
    [message] = messages(replace(short, refusals=1))
    assert message.info.value_coins == items.ITEM_AMOUNT + 2 * work


def test_another_refusal_brings_no_more_gas() -> None:
    refused = replace(MINT, refusals=5, setback=FailureReason.REFUSED)
    assert cost(refused) == items.MINT_COST


def test_what_is_too_dear_lets_others_pass() -> None:
    dear = replace(TRANSFER, task=Transfer(10**12, ""))
    budget = items.MINT_COST + cost(TRANSFER)
    assert affordable([dear, MINT, TRANSFER, MINT], budget) == [MINT, TRANSFER]
