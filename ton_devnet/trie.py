"""HashmapAugE (TL-B: an augmented dictionary) as an immutable Patricia trie of hashes.

A node holds its hash and depth and no cell, so 100,000 accounts fit in some 80 MB, an update costs
one path, and every earlier root stays valid for proofs. A node stands in for its own cell wherever
a hash is enough.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ton_devnet.cells import Builder, Cell, Hashed, Reader, pruned


@dataclass(frozen=True)
class Schema:
    """How one kind of dictionary writes its leaves and augmentation (the value summed upwards)."""

    width: int
    combine: Callable[[Any, Any], Any]
    write_extra: Callable[[Builder, Any], object]
    write_leaf: Callable[[Builder, Any], object]
    zero: Any


Row = tuple[str, Any, Any]
"""What a trie is built from: (key as '0101', leaf, extra), or (prefix, Stub, the stub's extra)."""


class Node:
    """An edge with `span` key bits still to come, then a leaf or a fork.

    A collapsed fork keeps only the digests of its children: it can be hashed, not walked.
    """

    __slots__ = ("_depth", "_hash", "extra", "label", "leaf", "left", "right", "schema", "span")
    level = 0

    def __init__(
        self,
        schema: Schema,
        label: str,
        span: int,
        extra: Any,
        leaf: Any = None,
        left: Hashed | None = None,
        right: Hashed | None = None,
    ) -> None:
        self.schema, self.label, self.span, self.extra = schema, label, span, extra
        self.leaf, self.left, self.right = leaf, left, right
        self._hash: bytes | None = None
        self._depth = 0

    def _seal(self) -> bytes:
        hash, self._depth = self._write(self.left, self.right).digest()
        self._hash = hash
        return hash

    @property
    def hash(self) -> bytes:
        return self._hash or self._seal()

    @property
    def depth(self) -> int:
        if self._hash is None:
            self._seal()
        return self._depth

    hash0 = hash
    depth0 = depth

    def cell(self, left: Hashed | None = None, right: Hashed | None = None) -> Cell:
        """This edge's cell; the children may be given in another form (whole, or pruned)."""
        return self._write(left or self.left, right or self.right).cell()

    def _write(self, left: Hashed | None, right: Hashed | None) -> Builder:
        builder = Builder()
        write_label(builder, self.label, self.span)
        if left is not None and right is not None:
            builder.ref(left).ref(right)
            self.schema.write_extra(builder, self.extra)
        else:
            self.schema.write_extra(builder, self.extra)
            self.schema.write_leaf(builder, self.leaf)
        return builder

    def tree(self) -> Cell:
        """This edge with everything below it, ready to be serialised."""
        if isinstance(self.left, Node) and isinstance(self.right, Node):
            return self.cell(self.left.tree(), self.right.tree())
        return self.cell()

    def relabelled(self, label: str, span: int) -> "Node":
        return Node(self.schema, label, span, self.extra, self.leaf, self.left, self.right)


class Stub:
    """A subtree of which digest and sum are known; `fetch` gives its nodes when one is wanted."""

    __slots__ = ("_fetch", "_node", "depth", "extra", "hash")
    level = 0

    def __init__(self, hash: bytes, depth: int, extra: Any, fetch: Callable[[], Node]) -> None:
        self.hash, self.depth, self.extra, self._fetch = hash, depth, extra, fetch
        self._node: Node | None = None

    @property
    def hash0(self) -> bytes:
        return self.hash

    @property
    def depth0(self) -> int:
        return self.depth

    def node(self) -> Node:
        """Raises TrieError when what was fetched is not what the digest stands for."""
        if self._node is None:
            node = self._fetch()
            if node.hash != self.hash:
                raise TrieError(
                    "a part of the trie does not match its digest; the stored accounts are damaged:"
                    " start with a new state folder, or bring back a copy"
                )
            self._node = node
        return self._node


class TrieError(RuntimeError):
    """The parts of a trie do not fit together."""


class Trie:
    """A dictionary of fixed-width keys. Every change gives a new trie; the old one stays valid."""

    __slots__ = ("root", "schema")

    def __init__(self, schema: Schema, root: Node | None = None) -> None:
        self.schema, self.root = schema, root

    @property
    def extra(self) -> Any:
        return self.root.extra if self.root else self.schema.zero

    def set(self, key: int, leaf: Any, extra: Any) -> "Trie":
        schema = self.schema
        return self.graft(bits(key, schema.width), Node(schema, "", 0, extra, leaf))

    def graft(self, prefix: str, node: Node) -> "Trie":
        """Put a leaf (or a whole collapsed subtree) at the place that `prefix` names."""
        return Trie(self.schema, _insert(self.root, prefix, self.schema.width, node))

    def get(self, key: int) -> Any:
        node, rest = self.root, bits(key, self.schema.width)
        while node is not None and rest.startswith(node.label):
            rest = rest[len(node.label) :]
            if not rest:
                return node.leaf
            child = node.right if rest[0] == "1" else node.left
            node, rest = _opened(child), rest[1:]
        return None

    def below(self, prefix: str) -> Node | None:
        """The edge that begins exactly where the prefix ends, if one does."""
        node, rest = self.root, prefix
        while node is not None and rest:
            label = node.label
            if len(rest) <= len(label) or not rest.startswith(label):
                return None
            child = node.right if rest[len(label)] == "1" else node.left
            node, rest = _opened(child), rest[len(label) + 1 :]
        return node

    def subtree(self, prefix: str) -> Node | None:
        """The fork all keys with this prefix hang from, when the prefix is exactly its path."""
        node, rest = self.root, prefix
        while node is not None and rest.startswith(node.label):
            rest = rest[len(node.label) :]
            if not rest:
                return node
            child = node.right if rest[0] == "1" else node.left
            node, rest = _opened(child), rest[1:]
        return None

    def cell(self, root: Hashed | None = None) -> Cell:
        """The HashmapAugE cell; `root` may be a partly pruned copy of the root edge."""
        builder = Builder()
        if self.root is None:
            builder.uint(0, 1)
        else:
            builder.uint(1, 1).ref(root or self.root)
        self.schema.write_extra(builder, self.extra)
        return builder.cell()

    def proof(self, key: int) -> Cell:
        """The HashmapAugE cell with everything pruned but the path to `key`, present or not."""
        if self.root is None:
            return self.cell()
        return self.cell(_path(self.root, bits(key, self.schema.width)))

    @classmethod
    def build(cls, schema: Schema, rows: Sequence[Row]) -> "Trie":
        """From rows in ascending order, in linear time."""
        root = _bottom_up(schema, rows, 0, len(rows), 0) if rows else None
        if isinstance(root, Stub):
            raise TrieError("a stub cannot be the whole trie")
        return cls(schema, root)


def build_below(schema: Schema, prefix: str, rows: Sequence[Row]) -> Node:
    """The edge that begins where the prefix ends, from rows with whole keys."""
    node = _bottom_up(schema, rows, 0, len(rows), len(prefix)) if rows else None
    if not isinstance(node, Node):
        raise TrieError(f"there is nothing below {prefix}")
    return node


def _opened(node: Hashed | None) -> Node | None:
    """None for what can only be hashed."""
    if isinstance(node, Stub):
        return node.node()
    return node if isinstance(node, Node) else None


def bits(key: int, width: int) -> str:
    return format(key, f"0{width}b")


def write_label(builder: Builder, label: str, span: int) -> None:
    """The shortest of the three label forms; of equals, the one the reference node takes."""
    size, length_bits = len(label), span.bit_length()
    short, long = 2 + 2 * size, 2 + length_bits + size
    same = 3 + length_bits if size > 1 and label == label[0] * size else short
    if same < short and same < long:
        builder.uint(0b11, 2).bits(label[0]).uint(size, length_bits)
    elif long < short:
        builder.uint(0b10, 2).uint(size, length_bits).bits(label)
    else:
        builder.bits("0" + "1" * size + "0" + label)


def _insert(node: Hashed | None, key: str, span: int, new: Node) -> Node:
    if node is None:
        return new.relabelled(key, span)
    opened = _opened(node)
    if opened is None:
        raise TypeError("a collapsed part of a trie cannot be changed")
    node = opened
    label = node.label
    if key == label:
        return new.relabelled(key, span)
    schema, common = node.schema, _common(label, key)
    inner = span - common - 1
    tail = key[common + 1 :]
    if common == len(label):
        left, right = node.left, node.right
        if key[common] == "0":
            left = _insert(left, tail, inner, new)
        else:
            right = _insert(right, tail, inner, new)
    else:
        old, added = node.relabelled(label[common + 1 :], inner), new.relabelled(tail, inner)
        left, right = (old, added) if label[common] == "0" else (added, old)
    return Node(schema, label[:common], span, _sum(schema, left, right), None, left, right)


def _sum(schema: Schema, left: Hashed | None, right: Hashed | None) -> Any:
    assert isinstance(left, Node | Stub)  # a child beside a changed path is never collapsed
    assert isinstance(right, Node | Stub)
    return schema.combine(left.extra, right.extra)


def _common(a: str, b: str) -> int:
    if b.startswith(a):
        return len(a)
    at = 0
    while a[at] == b[at]:
        at += 1
    return at


def _path(hashed: Hashed, key: str) -> Cell:
    node = _opened(hashed)
    if node is None:
        return pruned(hashed)
    cell = node.cell()
    if not key.startswith(node.label):
        return cell.with_refs([pruned(ref) for ref in cell.refs])
    rest = key[len(node.label) :]
    if not rest:
        return cell.with_refs([pruned(ref) for ref in cell.refs])
    taken = int(rest[0])
    refs = [_path(ref, rest[1:]) if i == taken else pruned(ref) for i, ref in enumerate(cell.refs)]
    return cell.with_refs(refs)


def _bottom_up(schema: Schema, rows: Sequence[Row], lo: int, hi: int, at: int) -> Node | Stub:
    first, last = rows[lo][0], rows[hi - 1][0]
    span = schema.width - at
    if hi - lo == 1 and isinstance(stub := rows[lo][1], Stub):
        if len(first) != at:
            raise TrieError(f"a stub stands at {first} where no edge begins")
        return stub
    if hi - lo == 1:
        return Node(schema, first[at:], span, rows[lo][2], rows[lo][1])
    fork = at
    while first[fork] == last[fork]:
        fork += 1
    middle, end = lo, hi
    while middle < end:
        probe = (middle + end) // 2
        if rows[probe][0][fork] == "0":
            middle = probe + 1
        else:
            end = probe
    left = _bottom_up(schema, rows, lo, middle, fork + 1)
    right = _bottom_up(schema, rows, middle, hi, fork + 1)
    extra = schema.combine(left.extra, right.extra)
    return Node(schema, first[at:fork], span, extra, None, left, right)


def read_dictionary(root: Cell | None, width: int) -> Iterator[tuple[int, Reader]]:
    """(key, reader at the value) of a plain Hashmap, in key order; None is the empty one."""
    if root is not None:
        yield from _leaves(root, width, 0)


def _leaves(edge: Cell, span: int, prefix: int) -> Iterator[tuple[int, Reader]]:
    reader = Reader(edge)
    label = reader.label(span)
    key = (prefix << len(label)) | int(label or "0", 2)
    if len(label) == span:
        yield key, reader
        return
    for bit in range(2):
        yield from _leaves(edge.child(bit), span - len(label) - 1, (key << 1) | bit)


PLAIN = Schema(32, lambda _a, _b: None, lambda _b, _e: None, lambda b, ref: b.ref(ref), None)
"""Hashmap 32 ^Cell without augmentation: the blockchain configuration, the shard list."""
