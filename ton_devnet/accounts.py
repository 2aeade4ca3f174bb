"""All accounts as they are now: the state trie in memory, the contents in the store."""

from collections import OrderedDict

from tonpy.libs.python_ton import PyCell

from ton_devnet.blocks import ACCOUNTS
from ton_devnet.cells import Builder, to_boc
from ton_devnet.engine import engine_cell, read_shard_account
from ton_devnet.store import AccountRow, Store
from ton_devnet.trie import Trie

CACHED = 1024
"""More than one block can touch: a changed account never leaves the cache before it is stored."""
NO_ACCOUNT = Builder().uint(0, 1).cell()
EMPTY_SHARD_ACCOUNT = to_boc(Builder().ref(NO_ACCOUNT).uint(0, 256).uint(0, 64).cell())


class Accounts:
    """`trie` is replaced, never changed, so a block may keep the one it was sealed with."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cells: OrderedDict[bytes, PyCell] = OrderedDict()
        leaves = store.leaves()
        items = ((int.from_bytes(address, "big"), leaf, sum_) for address, leaf, sum_ in leaves)
        self.trie = Trie.build(ACCOUNTS, items)

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
