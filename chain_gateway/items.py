"""Our collections and their items (`contracts/`): state-inits, addresses, messages, stored data."""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources

from pytoniq_core.boc.builder import Builder
from pytoniq_core.boc.cell import Cell
from pytoniq_core.boc.hashmap.hashmap import HashMap
from pytoniq_core.boc.slice import Slice
from pytoniq_core.tlb.account import StateInit

from chain_gateway import content
from chain_gateway.cells import EMPTY, address_of, build, internal, parse, raw, read
from chain_gateway.operations import Standard

NANOTON = 10**9

# collection.fc: `amount` becomes the item's balance; what a message brings must exceed it by WORK,
# which pays for gas and forwarding.
ITEM_AMOUNT = 50_000_000
WORK = 20_000_000
# What an edit or a revocation takes to the item; what it leaves comes back to the collection.
ERRAND_AMOUNT = 20_000_000
# Fees of the wallet for one message of its list; measured on a devnet with mainnet's configuration.
SENDING_FEE = 10_000_000
MINT_COST = ITEM_AMOUNT + WORK + SENDING_FEE
COLLECTION_VALUE = 100_000_000
MANDATE_VALUE = 50_000_000

OP_MINT = 1
OP_SET_MINTERS = 5
OP_EDIT_ITEM = 6
OP_REVOKE_ITEM = 8
OP_DEPLOY = 0x299A3E15
OP_EDIT_CONTENT = 0x1A0B9D51
OP_REVOKE = 0x6F89F5E3

# TEP-66: no royalty.
_ROYALTY = (0, 1000)


def _code(name: str) -> Cell:
    text = resources.files("chain_gateway.contracts").joinpath(f"{name}.boc").read_text()
    return Cell.one_from_boc(base64.b64decode(text))


_ITEM_CODES = {Standard.NFT: _code("item"), Standard.SBT: _code("sbt")}
ITEM_CODE_HASHES = {bytes(code.hash): standard for standard, code in _ITEM_CODES.items()}
"""Hashes of the code of our items; what another code stores, `read_item` cannot tell."""


NO_MINT_ID = "00000000-0000-0000-0000-000000000000"
"""Of an item that was minted past the Gateway."""


@dataclass(frozen=True, slots=True)
class ItemData:
    """What an item contract stores; only `index` and `collection` are set before it is initialised.

    A soulbound item that its owner destroyed has no owner, and keeps the rest.
    """

    index: int
    collection: str
    owner: str | None = None
    mint_id: str | None = None
    version: int = 0
    revoked_at: int = 0
    content: Cell | None = None

    @property
    def destroyed(self) -> bool:
        """Whether its owner destroyed it."""
        return self.content is not None and self.owner is None


def read_item(data: Cell) -> ItemData:
    """Reads the data cell of one of our items."""
    stored = read(data)
    index, collection = stored.load_uint(64), raw(stored.load_address())
    if not stored.remaining_bits:
        return ItemData(index, collection)
    owner = stored.load_address()
    return ItemData(
        index,
        collection,
        None if owner is None else raw(owner),
        read_mint_id(stored),
        stored.load_uint(64),
        stored.load_uint(64),
        stored.load_ref(),
    )


def read_mint_id(stored: Slice) -> str:
    """The mint id that comes next, as a UUID; the zero UUID where the collection was given none."""
    if stored.remaining_bits < 128:
        return NO_MINT_ID
    digits = f"{stored.load_uint(128):032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def read_next_index(data: Cell) -> int:
    """The next index that our collection contract would give, from its data cell."""
    stored = read(data)
    stored.load_address()
    return int(stored.load_uint(64))


def mint(
    collection: str,
    *,
    index: int,
    owner: str,
    content: Cell,
    mint_id: str,
    query_id: int,
    work: int = WORK,
) -> Cell:
    """The message that mints one item; on an item that exists it changes nothing.

    `work` pays for gas, in nanoton; what it leaves stays with the collection.
    """
    item = build().store_address(parse(owner)).store_uint(int(mint_id.replace("-", ""), 16), 128)
    body = _order(OP_MINT, query_id, index, ITEM_AMOUNT)
    body.store_ref(item.store_ref(content).end_cell())
    return internal(collection, ITEM_AMOUNT + work, body.end_cell())


def edit(
    collection: str, *, index: int, version: int, content: Cell, query_id: int, work: int = WORK
) -> Cell:
    """The message that changes an item's content, unless it has this version or a higher one."""
    body = _order(OP_EDIT_ITEM, query_id, index, ERRAND_AMOUNT).store_uint(version, 64)
    return internal(collection, ERRAND_AMOUNT + work, body.store_ref(content).end_cell())


def revoke(collection: str, *, index: int, query_id: int, work: int = WORK) -> Cell:
    """The message that revokes a soulbound item; on one that is revoked it changes nothing."""
    body = _order(OP_REVOKE_ITEM, query_id, index, ERRAND_AMOUNT)
    return internal(collection, ERRAND_AMOUNT + work, body.end_cell())


def _order(op: int, query_id: int, index: int, amount: int) -> Builder:
    return (
        build()
        .store_uint(op, 32)
        .store_uint(query_id, 64)
        .store_uint(index, 64)
        .store_coins(amount)
    )


def may_mint(data: Cell, wallet: str) -> bool:
    """Whether our collection with this data cell takes mints of a wallet: its owner or a minter."""
    owner, minters = read_minters(data)
    return wallet == owner or wallet in minters


def read_minters(data: Cell) -> tuple[str, set[str]]:
    """Owner and minters of our collection, from its data cell."""
    stored = read(data)
    owner = raw(stored.load_address())
    stored.load_uint(64)
    accounts = stored.load_dict(256, value_deserializer=lambda leaf: leaf) or {}
    return owner, {f"0:{account:064x}" for account in accounts}


def set_minters(collection: str, minters: Iterable[str]) -> Cell:
    """The message of the owner after which these, and no others, may mint besides the owner."""
    accounts = HashMap(256, value_serializer=lambda _, builder: builder)
    for address in minters:
        accounts.set(int(address.removeprefix("0:"), 16), None)
    body = build().store_uint(OP_SET_MINTERS, 32).store_uint(0, 64).store_dict(accounts.serialize())
    return internal(collection, MANDATE_VALUE, body.end_cell())


def runway(balance: int, reserve: int) -> int:
    """Mints that a balance pays for until only the reserve is left, both in nanoton."""
    return max(0, balance - reserve) // MINT_COST


class Collection:
    """The collection that `owner` mints into; its address follows from code, owner and content.

    So the same key and the same description always give the same collection, on every network.
    """

    def __init__(
        self,
        owner: str,
        *,
        name: str,
        description: str,
        image: str,
        standard: Standard = Standard.NFT,
    ) -> None:
        about = {"name": name, "description": description, "image": image}
        described = content.encode({key: value for key, value in about.items() if value})
        self._item_code = _ITEM_CODES[standard]
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


Collections = Mapping[Standard, Collection]
"""Each standard has its collection."""
