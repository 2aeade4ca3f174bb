"""TEP-64 token data: the on-chain dictionary and its snake and chunked values.

https://github.com/ton-blockchain/TEPs/blob/master/text/0064-token-data-standard.md
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import lru_cache

from pytoniq_core.boc.cell import Cell
from pytoniq_core.boc.hashmap.hashmap import HashMap
from pytoniq_core.boc.slice import Slice

from chain_gateway.cells import build, read

_ONCHAIN, _OFFCHAIN = 0x00, 0x01
_SNAKE, _CHUNKED, _NO_LAYOUT = 0x00, 0x01, 0xFF
_CELL_BYTES = 127

KNOWN_KEYS = ("uri", "name", "description", "image", "image_data", "attributes", "mint_id")
"""Keys whose names can be told from their hashes; others are read as `0x<hash>`."""


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest())


_NAMES = {_key(name): name for name in KNOWN_KEYS}


class ContentUnreadable(ValueError):
    """The cell does not hold TEP-64 content."""


def encode(entries: Mapping[str, str]) -> Cell:
    """The content cell of an on-chain dictionary with snake values."""
    common = tuple((name, value) for name, value in entries.items() if name != "mint_id")
    if "mint_id" not in entries:
        return _sealed(_dictionary((name, _snake(value)) for name, value in common))
    dictionary, path = _with_place_for_mint_id(common)
    return _sealed(_replaced(dictionary, path, _snake(entries["mint_id"])))


def off_chain(uri: str) -> Cell:
    """The content cell of a document that lies elsewhere."""
    return _snake_cell(bytes([_OFFCHAIN]) + uri.encode())


def decode(content: Cell) -> dict[str, str]:
    """Keys and values of on-chain content, or the single `uri` of off-chain content.

    Raises `ContentUnreadable`.
    """
    try:
        data = read(content)
        layout = data.load_uint(8)
        if layout == _OFFCHAIN:
            return {"uri": _text(data)}
        if layout != _ONCHAIN:
            raise ContentUnreadable(f"content layout {layout:#04x} is not of TEP-64")
        values = data.load_dict(256, value_deserializer=_value) or {}
    except ContentUnreadable:
        raise
    except Exception as error:  # the parser raises whatever the malformed cell makes it raise
        raise ContentUnreadable("the cell is cut short or malformed") from error
    return {_NAMES.get(key, f"{key:#066x}"): value for key, value in values.items()}


def _sealed(dictionary: Cell) -> Cell:
    content: Cell = build().store_uint(_ONCHAIN, 8).store_dict(dictionary).end_cell()
    return content


def _dictionary(values: Iterable[tuple[str, Cell]]) -> Cell:
    dictionary = HashMap(256, value_serializer=lambda value, into: into.store_ref(value))
    for name, value in values:
        dictionary.set_int_key(_key(name), value)
    cells: Cell = dictionary.serialize()
    return cells


# Badges of one kind differ in nothing but the mint id, and a tree's shape depends on its keys:
# it is made once, and for each mint only the cells above its mint id are made anew.
@lru_cache(maxsize=4096)
def _with_place_for_mint_id(common: tuple[tuple[str, str], ...]) -> tuple[Cell, tuple[int, ...]]:
    """A dictionary with a stand-in for the mint id, and the branches that lead to it."""
    stand_in = build().store_uint(_NO_LAYOUT, 8).end_cell()
    values = [(name, _snake(value)) for name, value in common]
    dictionary = _dictionary([*values, ("mint_id", stand_in)])
    return dictionary, _path(dictionary, stand_in.hash) or ()


def _path(tree: Cell, value_hash: bytes) -> tuple[int, ...] | None:
    if len(tree.refs) == 1:  # a leaf: its only reference is the value
        return () if tree.refs[0].hash == value_hash else None
    for branch, below in enumerate(tree.refs):
        if (rest := _path(below, value_hash)) is not None:
            return (branch, *rest)
    return None


def _replaced(tree: Cell, path: tuple[int, ...], value: Cell) -> Cell:
    if not path:
        return Cell(tree.bits, [value])
    branch, *rest = path
    refs = list(tree.refs)
    refs[branch] = _replaced(refs[branch], tuple(rest), value)
    return Cell(tree.bits, refs)


@lru_cache(maxsize=4096)
def _snake(text: str) -> Cell:
    return _snake_cell(bytes([_SNAKE]) + text.encode())


def _snake_cell(data: bytes) -> Cell:
    tail: Cell | None = None
    for start in reversed(range(0, len(data), _CELL_BYTES)):
        link = build().store_bytes(data[start : start + _CELL_BYTES])
        tail = (link if tail is None else link.store_ref(tail)).end_cell()
    assert tail is not None, "at least the prefix byte is there"
    return tail


def _value(leaf: Slice) -> str:
    data = read(leaf.load_ref())
    layout = data.load_uint(8)
    if layout == _SNAKE:
        return _text(data)
    if layout == _CHUNKED:
        chunks = data.load_dict(32, value_deserializer=lambda leaf: leaf.load_ref()) or {}
        raw = b"".join(_bytes(read(chunks[number])) for number in sorted(chunks))
        return raw.decode(errors="replace")
    raise ContentUnreadable(f"value layout {layout:#04x} is not of TEP-64")


def _text(data: Slice) -> str:
    return _bytes(data).decode(errors="replace")


def _bytes(data: Slice) -> bytes:
    raw = data.load_bytes(data.remaining_bits // 8)
    while data.remaining_refs:
        data = read(data.load_ref())
        raw += data.load_bytes(data.remaining_bits // 8)
    return bytes(raw)
