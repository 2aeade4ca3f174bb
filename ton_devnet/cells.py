"""Cells (TVM whitepaper, chapter 3): hashes, pruned branches, Merkle proofs, bags of cells.

Written for speed with only what a lite-server needs: levels 0 and 1, no library cells.
A `Digest` (or a trie node) may stand wherever an ordinary cell's hash and depth are enough.
"""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, Self

PRUNED, MERKLE_PROOF, MERKLE_UPDATE = 1, 3, 4
BOC_MAGIC = b"\xb5\xee\x9c\x72"
MAX_DEPTH = 1024


class BocError(ValueError):
    """The bytes are not a well-formed bag of cells."""


class Hashed(Protocol):
    """What a parent must know about a child; hash and depth also as seen through pruning."""

    @property
    def level(self) -> int: ...
    @property
    def hash(self) -> bytes: ...
    @property
    def depth(self) -> int: ...
    @property
    def hash0(self) -> bytes: ...
    @property
    def depth0(self) -> int: ...


class Digest:
    """An ordinary cell of which only hash and depth are known; it cannot be serialised."""

    __slots__ = ("depth", "hash")
    level = 0

    def __init__(self, hash: bytes, depth: int) -> None:
        self.hash, self.depth = hash, depth

    @property
    def hash0(self) -> bytes:
        return self.hash

    @property
    def depth0(self) -> int:
        return self.depth


class Cell:
    """An immutable cell. `data` is padded to bytes with the completion tag, `size` is in bits.

    `hash` and `depth` are those of the representation; `hash0` and `depth0` see through pruned
    branches to the tree they stand for.
    """

    __slots__ = ("data", "depth", "depth0", "hash", "hash0", "kind", "level", "refs", "size")

    def __init__(self, data: bytes, size: int, refs: Sequence[Hashed] = (), kind: int = 0) -> None:
        self.data, self.size, self.refs, self.kind = data, size, refs, kind
        if kind == PRUNED:
            self.level = 1
            self.hash0, self.depth0 = data[2:34], int.from_bytes(data[34:36], "big")
            self.hash, self.depth = hashlib.sha256(self.descriptors() + data).digest(), 0
        elif kind in (MERKLE_PROOF, MERKLE_UPDATE):
            self.level = 0
            self.hash, self.depth = self._over(data, [(r.hash, r.depth) for r in refs])
            self.hash0, self.depth0 = self.hash, self.depth
        else:
            self.level = 0
            self.hash0, self.depth0 = self._over(data, [(r.hash0, r.depth0) for r in refs])
            self.hash, self.depth = self.hash0, self.depth0
            if any(r.level for r in refs):
                self.level = 1
                self.hash, self.depth = self._over(self.hash0, [(r.hash, r.depth) for r in refs])

    def _over(self, body: bytes, children: list[tuple[bytes, int]]) -> tuple[bytes, int]:
        depths = b"".join([d.to_bytes(2, "big") for _, d in children])
        hashes = b"".join([h for h, _ in children])
        depth = 1 + max(d for _, d in children) if children else 0
        if depth > MAX_DEPTH:
            raise BocError(f"cells are nested deeper than {MAX_DEPTH}")
        return hashlib.sha256(self.descriptors() + body + depths + hashes).digest(), depth

    def descriptors(self) -> bytes:
        first = len(self.refs) + (8 if self.kind else 0) + 32 * self.level
        return bytes((first, self.size // 8 + (self.size + 7) // 8))

    def with_refs(self, refs: Sequence[Hashed]) -> "Cell":
        return Cell(self.data, self.size, refs, self.kind)

    def child(self, *path: int) -> "Cell":
        cell = self
        for index in path:
            ref = cell.refs[index]
            if not isinstance(ref, Cell):
                raise TypeError("only the hash of this cell is known, not its content")
            cell = ref
        return cell


class Builder:
    """Collects bits and references of one ordinary cell."""

    __slots__ = ("refs", "size", "value")

    def __init__(self) -> None:
        self.value, self.size = 0, 0
        self.refs: list[Hashed] = []

    def uint(self, value: int, bits: int) -> Self:
        self.value = (self.value << bits) | value
        self.size += bits
        return self

    def signed(self, value: int, bits: int) -> Self:
        return self.uint(value & ((1 << bits) - 1), bits)

    def raw(self, data: bytes) -> Self:
        return self.uint(int.from_bytes(data, "big"), 8 * len(data))

    def bits(self, text: str) -> Self:
        return self.uint(int(text, 2), len(text)) if text else self

    def coins(self, nanotons: int) -> Self:
        length = (nanotons.bit_length() + 7) // 8
        return self.uint(length, 4).uint(nanotons, 8 * length)

    def ref(self, cell: Hashed) -> Self:
        self.refs.append(cell)
        return self

    def maybe_ref(self, cell: Hashed | None) -> Self:
        return self.uint(0, 1) if cell is None else self.uint(1, 1).ref(cell)

    def append(self, cell: Cell) -> Self:
        """The bits and references of an ordinary cell."""
        self.refs.extend(cell.refs)
        return self.uint(int.from_bytes(cell.data, "big") >> (-cell.size % 8), cell.size)

    def cell(self) -> Cell:
        return Cell(self._padded(), self.size, self.refs)

    def digest(self) -> tuple[bytes, int]:
        """(hash, depth) of the cell without making it; the references must be of level 0."""
        hashes = b"".join([ref.hash for ref in self.refs])
        depths = [ref.depth for ref in self.refs]
        body = bytes((len(depths), self.size // 8 + (self.size + 7) // 8)) + self._padded()
        body += b"".join([depth.to_bytes(2, "big") for depth in depths])
        return hashlib.sha256(body + hashes).digest(), 1 + max(depths) if depths else 0

    def _padded(self) -> bytes:
        value, size = self.value, self.size
        if size % 8:
            value = ((value << 1) | 1) << (7 - size % 8)
        return value.to_bytes((size + 7) // 8, "big")


class Reader:
    """Reads bits and references of a cell in order."""

    __slots__ = ("_cell", "_next_ref", "_value", "left")

    def __init__(self, cell: Cell) -> None:
        self._cell, self._next_ref, self.left = cell, 0, cell.size
        self._value = int.from_bytes(cell.data, "big") >> (-cell.size % 8)

    def uint(self, bits: int) -> int:
        if bits > self.left:
            raise BocError(f"a cell ends {bits - self.left} bits too early")
        self.left -= bits
        return (self._value >> self.left) & ((1 << bits) - 1)

    def raw(self, count: int) -> bytes:
        return self.uint(8 * count).to_bytes(count, "big")

    def coins(self) -> int:
        return self.uint(8 * self.uint(4))

    def ref(self) -> Cell:
        if self._next_ref >= len(self._cell.refs):
            raise BocError("a cell has fewer references than its format wants")
        self._next_ref += 1
        return self._cell.child(self._next_ref - 1)

    def maybe_ref(self) -> Cell | None:
        return self.ref() if self.uint(1) else None

    def label(self, span: int) -> str:
        """The label of a Hashmap edge with `span` key bits still to come, as '0101'."""
        if not self.uint(1):
            length = 0
            while self.uint(1):
                length += 1
        elif not self.uint(1):
            length = self.uint(span.bit_length())
        else:
            return str(self.uint(1)) * self.uint(span.bit_length())
        return format(self.uint(length), f"0{length}b") if length else ""

    def rest(self) -> Cell:
        """What has not been read, as a cell."""
        builder = Builder().uint(self._value & ((1 << self.left) - 1), self.left)
        builder.refs.extend(self._cell.refs[self._next_ref :])
        return builder.cell()


def exotic(data: bytes, refs: Sequence[Hashed], kind: int) -> Cell:
    return Cell(data, 8 * len(data), refs, kind)


def pruned(cell: Hashed) -> Cell:
    """A level-1 pruned branch standing for a cell of level 0."""
    return exotic(b"\x01\x01" + cell.hash0 + cell.depth0.to_bytes(2, "big"), [], PRUNED)


def merkle_proof(root: Cell) -> Cell:
    return exotic(b"\x03" + root.hash0 + root.depth0.to_bytes(2, "big"), [root], MERKLE_PROOF)


def merkle_update(old: Hashed, new: Hashed) -> Cell:
    depths = old.depth0.to_bytes(2, "big") + new.depth0.to_bytes(2, "big")
    data = b"\x04" + old.hash0 + new.hash0 + depths
    return exotic(data, [pruned(old), pruned(new)], MERKLE_UPDATE)


def to_boc(*roots: Cell) -> bytes:
    """The roots as one bag of cells, without index or checksum."""
    order = _parents_first(roots)
    index = {cell.hash: i for i, cell in enumerate(order)}
    width = (len(order).bit_length() + 7) // 8
    body = bytearray()
    for cell in order:
        body += cell.descriptors() + cell.data
        for ref in cell.refs:
            body += index[ref.hash].to_bytes(width, "big")
    offset = (len(body).bit_length() + 7) // 8
    counts = [len(order), len(roots), 0]
    head = BOC_MAGIC + bytes((width, offset)) + b"".join(n.to_bytes(width, "big") for n in counts)
    places = b"".join(index[root.hash].to_bytes(width, "big") for root in roots)
    return head + len(body).to_bytes(offset, "big") + places + bytes(body)


def _parents_first(roots: Iterable[Cell]) -> list[Cell]:
    seen: set[bytes] = set()
    finished: list[Cell] = []
    for root in reversed(list(roots)):
        stack: list[tuple[Cell, bool]] = [(root, False)]
        while stack:
            cell, children_done = stack.pop()
            if children_done:
                finished.append(cell)
            elif cell.hash not in seen:
                seen.add(cell.hash)
                stack.append((cell, True))
                stack.extend((cell.child(i), False) for i in range(len(cell.refs)))
    finished.reverse()
    return finished


def from_boc(data: bytes) -> list[Cell]:
    """The roots of a bag of cells. Raises BocError with the reason."""
    try:
        return _parse(data)
    except IndexError:
        raise BocError("the bag of cells ends too early") from None


def _parse(data: bytes) -> list[Cell]:
    if data[:4] != BOC_MAGIC:
        raise BocError("not a bag of cells: it must begin with the bytes b5ee9c72")
    indexed, width, offset = data[4] >> 7, data[4] & 7, data[5]
    count, roots = (_uint(data, 6 + i * width, width) for i in range(2))
    at = 6 + 3 * width + offset
    places = [_uint(data, at + i * width, width) for i in range(roots)]
    at += roots * width + (count * offset if indexed else 0)
    raw: list[tuple[bytes, int, int, list[int]]] = []
    for _ in range(count):
        first, second = data[at], data[at + 1]
        length, refs = (second + 1) // 2, first & 7
        if refs > 4 or first >> 5 > 1:
            raise BocError("a cell has a descriptor this network does not understand")
        if first & 16:  # hashes and depths stored ahead of the data; they are computed anew
            at += 34 * (1 + (first >> 5))
        body = data[at + 2 : at + 2 + length]
        at += 2 + length
        raw.append((body, first, second, [_uint(data, at + i * width, width) for i in range(refs)]))
        at += refs * width
    if at > len(data):
        raise BocError("the bag of cells ends too early")
    cells: list[Cell | None] = [None] * count
    for i in range(count - 1, -1, -1):
        body, first, second, links = raw[i]
        children = [cell for link in links if link > i and (cell := cells[link]) is not None]
        if len(children) != len(links):
            raise BocError("a reference does not point to a later cell")
        size = 8 * len(body)
        if second & 1:
            size -= 1 + (body[-1] & -body[-1]).bit_length() - 1 if body[-1] else size
        cells[i] = Cell(body, size, children, body[0] if first & 8 else 0)
    return [cell for place in places if (cell := cells[place]) is not None]


def _uint(data: bytes, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], "big")
