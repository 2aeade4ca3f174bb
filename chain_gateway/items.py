"""Our collection and its items (`contracts/`): state-inits, addresses, messages, stored data."""

import base64
from dataclasses import dataclass
from importlib import resources

from pytoniq_core.boc.cell import Cell
from pytoniq_core.tlb.account import StateInit

from chain_gateway import content
from chain_gateway.cells import EMPTY, address_of, build, internal, parse, raw, read

NANOTON = 10**9

# collection.fc: `amount` becomes the item's balance; `value` must exceed it by 0.02 TON.
ITEM_AMOUNT = 50_000_000
MINT_VALUE = 70_000_000
# With the fees of the wallet and of forwarding; measured on a devnet with mainnet's configuration.
MINT_COST = 80_000_000
COLLECTION_VALUE = 100_000_000

_OP_MINT = 1
OP_DEPLOY = 0x299A3E15

# TEP-66: no royalty.
_ROYALTY = (0, 1000)


def _code(name: str) -> Cell:
    text = resources.files("chain_gateway.contracts").joinpath(f"{name}.boc").read_text()
    return Cell.one_from_boc(base64.b64decode(text))


@dataclass(frozen=True, slots=True)
class ItemData:
    """What an item contract stores; `owner` and `content` are None until it is initialised."""

    index: int
    collection: str
    owner: str | None
    content: Cell | None

    @property
    def content_hash(self) -> bytes | None:
        """Hash of the content cell, by which content is recognised."""
        return None if self.content is None else bytes(self.content.hash)


def read_item(data: Cell) -> ItemData:
    """Reads the data cell of one of our items."""
    stored = read(data)
    index, collection = stored.load_uint(64), raw(stored.load_address())
    if not stored.remaining_bits:
        return ItemData(index, collection, None, None)
    return ItemData(index, collection, raw(stored.load_address()), stored.load_ref())


def read_next_index(data: Cell) -> int:
    """The next index that our collection contract would give, from its data cell."""
    stored = read(data)
    stored.load_address()
    return int(stored.load_uint(64))


class Collection:
    """The collection that `owner` mints into; its address follows from code, owner and content.

    So the same key and the same description always give the same collection, on every network.
    """

    def __init__(self, owner: str, *, name: str, description: str, image: str) -> None:
        about = {"name": name, "description": description, "image": image}
        described = content.encode({key: value for key, value in about.items() if value})
        self._item_code = _code("item")
        numerator, denominator = _ROYALTY
        royalty = (
            build()
            .store_uint(numerator, 16)
            .store_uint(denominator, 16)
            .store_address(parse(owner))
        )
        data = (
            build()
            .store_address(parse(owner))
            .store_uint(0, 64)
            .store_dict(None)
            .store_ref(build().store_ref(described).store_ref(EMPTY).end_cell())
            .store_ref(self._item_code)
            .store_ref(royalty.end_cell())
        )
        self._init = StateInit(code=_code("collection"), data=data.end_cell())
        self.address = address_of(self._init)

    def deployment(self) -> Cell:
        """The message that creates the collection; sent again, it changes nothing."""
        return internal(self.address, COLLECTION_VALUE, EMPTY, init=self._init)

    def item_address(self, index: int) -> str:
        """Address of the item with this index (TEP-62)."""
        data = build().store_uint(index, 64).store_address(parse(self.address)).end_cell()
        return address_of(StateInit(code=self._item_code, data=data))

    def mint(self, *, index: int, owner: str, content: Cell, query_id: int) -> Cell:
        """The message that mints one item; on an item that exists it changes nothing."""
        item = build().store_address(parse(owner)).store_ref(content).end_cell()
        body = (
            build()
            .store_uint(_OP_MINT, 32)
            .store_uint(query_id, 64)
            .store_uint(index, 64)
            .store_coins(ITEM_AMOUNT)
            .store_ref(item)
            .end_cell()
        )
        return internal(self.address, MINT_VALUE, body)
