"""Reading items from the chain: one of any TEP-62 collection, or page after page of ours."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pytoniq_core.boc.address import Address
from pytoniq_core.boc.cell import Cell

from chain_gateway import cells, content, items
from chain_gateway.errors import InvalidAddress, ItemNotFound
from chain_gateway.items import Collection
from chain_gateway.ton import Account, Block, Chain, GetMethodFailed


@dataclass(frozen=True, slots=True)
class Item:
    """An item as of a masterchain block; `owner` is empty when nobody owns it.

    Unless it is initialised only its place is set, and of that only what the reader knew.
    """

    address: str
    initialised: bool
    masterchain_seqno: int
    index: int = 0
    collection: str = ""
    owner: str = ""
    content: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ItemPage:
    """Items in the order of their indices, and whether the collection has more behind them."""

    items: list[Item]
    more: bool


async def read_item(chain: Chain, address: str, at: Block) -> Item:
    """The item at an address, as of a block.

    Raises `InvalidAddress`, `ItemNotFound` or `ChainUnavailable`.
    """
    try:
        raw = cells.raw(cells.parse(address))
    except ValueError:
        raise InvalidAddress(address, "item_address") from None
    try:
        initialised, index, collection, owner, individual = await chain.run_get_method(
            raw, "get_nft_data", [], at
        )
        if not initialised:
            return Item(raw, False, at.seqno)
        parent = _raw(collection.load_address())
        whole = individual if not parent else await _content(chain, parent, index, individual, at)
        owned_by = _raw(owner.load_address())
        return Item(raw, True, at.seqno, index, parent, owned_by, content.decode(whole))
    except (GetMethodFailed, content.ContentUnreadable, AttributeError, ValueError) as error:
        raise ItemNotFound(raw) from error


async def read_page(
    chain: Chain, collection: Collection, first: int, size: int, at: Block
) -> ItemPage:
    """The items of one of our collections from index `first` on, as of a block.

    It has none before it is deployed. Raises `ChainUnavailable`.
    """
    own = await chain.account(collection.address, at)
    end = 0 if own.data is None else items.read_next_index(own.data)
    addresses = {
        collection.item_address(index): index for index in range(first, min(first + size, end))
    }
    accounts = await chain.accounts(list(addresses), at)
    found = [
        _stored(accounts[address], Item(address, False, at.seqno, index, collection.address))
        for address, index in addresses.items()
    ]
    return ItemPage(found, first + size < end)


def _stored(account: Account, place: Item) -> Item:
    """Our own item from the data that it stores: what its get methods would say, but proven."""
    stored = None if account.data is None else items.read_item(account.data)
    if stored is None or stored.content is None:
        return place
    return replace(
        place, initialised=True, owner=stored.owner or "", content=_readable(stored.content)
    )


def _readable(cell: Cell) -> Mapping[str, str]:
    """Another minter may have written what nobody can read; that must not hide its neighbours."""
    try:
        return content.decode(cell)
    except content.ContentUnreadable:
        return {}


def _raw(address: Address | None) -> str:
    return "" if address is None else cells.raw(address)


async def _content(chain: Chain, collection: str, index: int, individual: Cell, at: Block) -> Cell:
    stack = [index, individual]
    whole: Cell = (await chain.run_get_method(collection, "get_nft_content", stack, at))[0]
    return whole
