"""All accounts as they are now: the state trie in memory, the contents in the store."""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from functools import partial

from tonpy.libs.python_ton import PyCell

from ton_devnet.blocks import ACCOUNTS
from ton_devnet.cells import Builder, to_boc
from ton_devnet.engine import engine_cell, read_shard_account
from ton_devnet.store import AccountRow, Store, Subtree
from ton_devnet.trie import Node, Row, Stub, Trie, bits, build_below

CACHED = 1024
"""More than one block can touch: a changed account never leaves the cache before it is stored."""
NO_ACCOUNT = Builder().uint(0, 1).cell()
EMPTY_SHARD_ACCOUNT = to_boc(Builder().ref(NO_ACCOUNT).uint(0, 256).uint(0, 64).cell())


class Accounts:
    """`trie` is replaced, never changed, so a block may keep the one it was sealed with."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cells: OrderedDict[bytes, PyCell] = OrderedDict()
        self.trie = Trie.build(ACCOUNTS, list(self._rows(store.head())))

    def _rows(self, seqno: int) -> Iterator[Row]:
        """Digests where there are some, so that a restart need not look at every account."""
        for part in self._store.subtrees():
            if part.hash is None:
                yield from self._leaves(part.prefix, seqno)
            else:
                fetch = partial(self._subtree, part.prefix, seqno)
                stub = Stub(part.hash, part.depth, part.balance, fetch)
                yield _bits(part.prefix), stub, part.balance

    def _leaves(self, prefix: bytes, seqno: int) -> Iterator[Row]:
        # As of the block at which the stub was made: older tries may still refer to it.
        leaves = self._store.leaves(prefix, seqno)
        return ((_bits(address), leaf, balance) for address, leaf, balance in leaves)

    def _subtree(self, prefix: bytes, seqno: int) -> Node:
        return build_below(ACCOUNTS, _bits(prefix), list(self._leaves(prefix, seqno)))

    def subtrees(self, changed: Iterable[bytes]) -> list[Subtree]:
        """What has become of the subtrees with these addresses."""
        parts = []
        for prefix in {address[:1] for address in changed}:
            node = self.trie.below(_bits(prefix))
            found = (None, 0, 0) if node is None else (node.hash, node.depth, node.extra)
            parts.append(Subtree(prefix, *found))
        return parts

    def boc(self, address: bytes) -> bytes:
        """The ShardAccount as stored; an empty one for an address nobody has touched."""
        return self._store.account(address) or EMPTY_SHARD_ACCOUNT

    def cell(self, address: bytes) -> PyCell:
        """The engine's handle on the ShardAccount."""
        cell = self._cells.get(address)
        if cell is None:
            cell = engine_cell(self.boc(address))
        self._keep(address, cell)
        return cell

    def hash(self, address: bytes) -> bytes:
        """Hash of the Account cell."""
        leaf = self.trie.get(int.from_bytes(address, "big"))
        return leaf[:32] if leaf else NO_ACCOUNT.hash

    def put(self, address: bytes, cell: PyCell, boc: bytes) -> AccountRow:
        """Replace an account; gives the row to be stored with the block."""
        state = read_shard_account(cell)
        leaf = state.account_hash + state.account_depth.to_bytes(2, "big")
        leaf += state.last_transaction_hash + state.last_transaction_lt.to_bytes(8, "big")
        self.trie = self.trie.set(int.from_bytes(address, "big"), leaf, state.balance)
        self._keep(address, cell)
        return AccountRow(address, state.balance, leaf, boc)

    def _keep(self, address: bytes, cell: PyCell) -> None:
        self._cells[address] = cell
        self._cells.move_to_end(address)
        if len(self._cells) > CACHED:
            self._cells.popitem(last=False)


def _bits(key: bytes) -> str:
    return bits(int.from_bytes(key, "big"), 8 * len(key))
