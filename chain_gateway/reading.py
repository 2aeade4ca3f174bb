"""Reading items of any TEP-62 collection from the chain."""

from collections.abc import Mapping
from dataclasses import dataclass

from pytoniq_core.boc.cell import Cell

from chain_gateway import cells, content
from chain_gateway.errors import InvalidAddress, ItemNotFound
from chain_gateway.ton import Block, Chain, GetMethodFailed


@dataclass(frozen=True, slots=True)
class Item:
    """An item as of a masterchain block; only the address is set unless it is initialised."""

    address: str
    initialised: bool
    index: int
    collection: str
    owner: str
    content: Mapping[str, str]
    masterchain_seqno: int


async def read_item(chain: Chain, address: str) -> Item:
    """The item at an address, as of the head.

    Raises `InvalidAddress`, `ItemNotFound` or `ChainUnavailable`.
    """
    try:
        raw = cells.raw(cells.parse(address))
    except ValueError:
        raise InvalidAddress(address, "item_address") from None
    head = chain.head
    try:
        initialised, index, collection, owner, individual = await chain.run_get_method(
            raw, "get_nft_data", [], head
        )
        if not initialised:
            return Item(raw, False, 0, "", "", {}, head.seqno)
        collection_address = collection.load_address()
        parent = "" if collection_address is None else cells.raw(collection_address)
        whole = individual if not parent else await _content(chain, parent, index, individual, head)
        return Item(
            raw,
            True,
            index,
            parent,
            cells.raw(owner.load_address()),
            content.decode(whole),
            head.seqno,
        )
    except (GetMethodFailed, content.ContentUnreadable, AttributeError, ValueError) as error:
        raise ItemNotFound(raw) from error


async def _content(chain: Chain, collection: str, index: int, individual: Cell, at: Block) -> Cell:
    stack = [index, individual]
    whole: Cell = (await chain.run_get_method(collection, "get_nft_content", stack, at))[0]
    return whole
