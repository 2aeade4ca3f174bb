"""Reading items from the chain: one of any TEP-62 collection, or page after page of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytoniq_core.boc.address import Address
from pytoniq_core.boc.cell import Cell

from chain_gateway import cells, content, items
from chain_gateway.accounts import Account
from chain_gateway.errors import ChainUnavailable, InvalidAddress, ItemNotFound
from chain_gateway.items import ITEM_CODE_HASHES, Collection
from chain_gateway.operations import Standard
from chain_gateway.ton import Block, Chain, GetMethodFailed

# Contracts of people live there; the masterchain is for validators.
_WORKCHAIN = 0
# What answers have room for: 64 bits, and the years before 10000.
_INDICES = 2**64
_END_OF_TIME = 253_402_300_800


@dataclass(frozen=True, slots=True)
class Item:
    """An item as of a masterchain block; before it is initialised only where it is.

    `owner` is empty when nobody owns it. `revoked_at` is chain time in seconds, 0 if it was not.
    Somebody else's item may say more than fits: an index of more than 64 bits is 0, and so is a
    time after the year 9999.
    """

    address: str
    masterchain_seqno: int
    initialised: bool = False
    index: int = 0
    collection: str = ""
    owner: str = ""
    content: Mapping[str, str] = field(default_factory=dict)
    standard: Standard = Standard.NFT
    revoked_at: int = 0


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Items in the order of their indices, and whether the collection has more behind them."""

    items: list[Item]
    more: bool


async def read_item(chain: Chain, address: str, at: Block) -> Item:
    """The item at an address, as of a block.

    Raises `InvalidAddress`, `ItemNotFound` or `ChainUnavailable`.
    """
    raw = _checked(chain, address)
    account = await chain.account(raw, at)
    if account.code_hash in ITEM_CODE_HASHES:
        return _own(raw, account, at)
    try:
        return await _foreign(chain, raw, at)
    except ChainUnavailable:
        raise
    except Exception as error:  # its methods leave whatever they like
        raise ItemNotFound(raw) from error


async def read_page(
    chain: Chain, collection: Collection, first: int, size: int, at: Block
) -> ItemPage:
    """The items of one of our collections from index `first` on, as of a block.

    It has none before it is deployed. Raises `ChainUnavailable`.
    """
    own = await chain.account(collection.address, at)
    end = 0 if own.data is None else items.read_next_index(own.data)
    places = {
        collection.item_address(index): index for index in range(first, min(first + size, end))
    }
    accounts = await chain.accounts(list(places), at)
    found = [
        _own(address, accounts[address], at)
        if accounts[address].code_hash in ITEM_CODE_HASHES
        else Item(address, at.seqno, index=index, collection=collection.address)
        for address, index in places.items()
    ]
    return ItemPage(found, first + size < end)


def _checked(chain: Chain, address: str) -> str:
    """The raw form of an address where an item can be on this network."""
    try:
        parsed = cells.parse(address)
    except ValueError:
        raise InvalidAddress(address, "item_address") from None
    if parsed.wc != _WORKCHAIN or (parsed.is_test_only and chain.is_mainnet):
        raise InvalidAddress(address, "item_address")
    return cells.raw(parsed)


def _own(address: str, account: Account, at: Block) -> Item:
    """An item with our code, by the data that it stores: what it would say itself, but proven."""
    assert account.data is not None, "it has code of ours"
    assert account.code_hash is not None, "it has code of ours"
    stored = items.read_item(account.data)
    if stored.content is None:
        return Item(address, at.seqno, index=stored.index, collection=stored.collection)
    entries = _readable(stored.content)
    if stored.mint_id is not None and stored.mint_id != items.NO_MINT_ID:
        entries["mint_id"] = stored.mint_id
    return Item(
        address,
        at.seqno,
        True,
        stored.index,
        stored.collection,
        stored.owner or "",
        entries,
        ITEM_CODE_HASHES[account.code_hash],
        stored.revoked_at,
    )


def _readable(cell: Cell) -> dict[str, str]:
    """Another minter may have written what nobody can read; that must not hide its neighbours."""
    try:
        return content.decode(cell)
    except content.ContentUnreadable:
        return {}


async def _foreign(chain: Chain, address: str, at: Block) -> Item:
    """Somebody else's item, by its get methods (TEP-62, TEP-64, TEP-85)."""
    initialised, index, collection, owner, individual = await chain.run_get_method(
        address, "get_nft_data", [], at
    )
    if not initialised:
        return Item(address, at.seqno)
    parent, whole = address_or_none(collection.load_address()), individual
    if parent:
        [whole] = await chain.run_get_method(parent, "get_nft_content", [index, individual], at)
    try:
        [revoked_at] = await chain.run_get_method(address, "get_revoked_time", [], at)
        standard = Standard.SBT
    except GetMethodFailed:
        standard, revoked_at = Standard.NFT, 0
    return Item(
        address,
        at.seqno,
        True,
        index if 0 <= index < _INDICES else 0,
        parent,
        address_or_none(owner.load_address()),
        content.decode(whole),
        standard,
        revoked_at if 0 <= revoked_at < _END_OF_TIME else 0,
    )


def address_or_none(address: Address | None) -> str:
    """The raw form; empty for addr_none."""
    return "" if address is None else cells.raw(address)
