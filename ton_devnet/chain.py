"""The chain itself: a queue of messages, their execution, the sealing of blocks, the restart."""

import hashlib
import itertools
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from tonpy.libs.python_ton import PyCell

from ton_devnet import history
from ton_devnet.blocks import (
    ACCOUNTS,
    HISTORY,
    KEY_BLOCK_SEQNO,
    AccountChange,
    Block,
    Past,
    Sealed,
    Step,
    master_state,
    seal,
    shard_list,
    shard_state,
)
from ton_devnet.cells import Builder, Cell, from_boc, to_boc
from ton_devnet.engine import Engine, Outcome, engine_cell, read_shard_account
from ton_devnet.messages import MessageRejectedError, parse_external, read_transaction
from ton_devnet.store import WINDOW, AccountRow, Queued, Store, TransactionRow
from ton_devnet.trie import Trie

LT_STEP = 1_000_000
MAX_BLOCK_MESSAGES = 512
"""More waiting messages go into the next block, so that queries are answered in between."""
CACHED_ACCOUNTS = 4096
CLOCK_OFFSET = "clock_offset"

NO_ACCOUNT = Builder().uint(0, 1).cell()
_EMPTY_SHARD_ACCOUNT = to_boc(Builder().ref(NO_ACCOUNT).uint(0, 256).uint(0, 64).cell())

log = logging.getLogger(__name__)


class StateDamagedError(RuntimeError):
    """The stored chain does not add up; start with a new state folder, or bring back a copy."""


class Chain:
    """One network. Single-threaded: every method runs to its end before the next begins.

    What is in memory is a function of the store alone, so a process may die at any moment.
    """

    def __init__(
        self, store: Store, engine: Engine, config: Cell, clock: Callable[[], float] = time.time
    ) -> None:
        self.store, self.engine, self.config, self._clock = store, engine, config, clock
        self.clock_offset = store.setting(CLOCK_OFFSET) or 0
        self._queue = deque(store.queue())
        self._waiting = {message.boc for message in self._queue}
        last = self._queue[-1].position if self._queue else 0
        self._positions = itertools.count(last + 1)
        self._cells: OrderedDict[bytes, PyCell] = OrderedDict()
        self._recent: OrderedDict[int, Block] = OrderedDict()
        self._accounts = Trie(ACCOUNTS)
        self._past = Past(None, None, Trie(HISTORY))
        if head := store.head():
            self._restore(head)

    # Reading

    @property
    def head(self) -> Block:
        """The newest block; the chain must have had its genesis."""
        if self._past.head is None:
            raise StateDamagedError("this chain has no blocks yet")
        return self._past.head

    @property
    def is_new(self) -> bool:
        return self._past.head is None

    @property
    def pending(self) -> int:
        return len(self._queue)

    def now(self) -> int:
        """Chain time in unix seconds: wall clock plus offset, never behind the last block."""
        wall = int(self._clock()) + self.clock_offset
        return wall if self._past.head is None else max(wall, self._past.head.step.utime)

    def block(self, seqno: int) -> Block | None:
        """With states for the last `WINDOW` blocks made by this process, else without."""
        return self._recent.get(seqno) or self.store.block(seqno)

    def set_clock_offset(self, seconds: int) -> None:
        self.store.set(CLOCK_OFFSET, seconds)
        self.clock_offset = seconds

    # Writing

    def submit(self, boc: bytes) -> None:
        """Accept an external message; it is on disk when this returns.

        A copy of one that is still waiting changes nothing. Raises MessageRejectedError.
        """
        address = parse_external(boc).address
        if boc in self._waiting:
            return
        if self._execute(address, boc, self.now(), self._next_lt()) is None:
            raise MessageRejectedError(self._refusal(address, boc))
        message = Queued(next(self._positions), address, boc)
        self.store.enqueue(message)
        self._queue.append(message)
        self._waiting.add(boc)

    def _refusal(self, address: bytes, boc: bytes) -> str:
        account = self.store.account(address, self.head.step.seqno) or _EMPTY_SHARD_ACCOUNT
        code = self.engine.refusal(account, from_boc(boc)[0], now=self.now())
        if code is None:
            why = "the account has no code and the message brings none; deploy or fund it first"
        else:
            why = f"inbound external message rejected by the contract: exitcode={code}"
        return f"cannot apply external message to current state : 0:{address.hex()}: {why}"

    def endow(self, accounts: dict[bytes, bytes]) -> None:
        """Put ShardAccount BoCs by address into the genesis block."""
        rows = [self._place(address, engine_cell(boc), boc) for address, boc in accounts.items()]
        self._seal(Step(KEY_BLOCK_SEQNO, self.now(), 0, 1), {}, rows, [], 0, [])

    def produce(self) -> Block:
        """Execute what is waiting, up to a block's limit, and seal it, empty or not."""
        start_lt, now, seqno = self._next_lt(), self.now(), self.head.step.seqno + 1
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BLOCK_MESSAGES))]
        self._waiting.difference_update(message.boc for message in batch)
        changes: dict[bytes, AccountChange] = {}
        accounts: dict[bytes, AccountRow] = {}
        rows: list[TransactionRow] = []
        sent: list[Queued] = []
        end_lt = start_lt + 1
        for message in batch:
            outcome = self._execute(message.address, message.boc, now, start_lt)
            if outcome is None:
                log.info("dropped: 0:%s no longer accepts a message", message.address.hex())
                continue
            address, before = message.address, self._account_hash(message.address)
            accounts[address] = self._place(address, outcome.account, outcome.account_boc)
            done = read_transaction(from_boc(outcome.transaction_boc)[0])
            earlier = changes.get(address, AccountChange(before, before, ()))
            changes[address] = AccountChange(
                earlier.before,
                self._account_hash(address),
                (*earlier.transactions, (done.lt, done.cell)),
            )
            hash, boc = done.cell.hash, outcome.transaction_boc
            rows.append(TransactionRow(address, done.lt, seqno, hash, boc))
            sent += [Queued(next(self._positions), to, to_boc(cell)) for to, cell in done.sent]
            end_lt = max(end_lt, done.end_lt)
        taken = batch[-1].position if batch else 0
        step = Step(seqno, now, start_lt, end_lt)
        return self._seal(step, changes, list(accounts.values()), rows, taken, sent)

    def _next_lt(self) -> int:
        return (self.head.step.end_lt // LT_STEP + 1) * LT_STEP

    def _execute(self, address: bytes, boc: bytes, now: int, lt: int) -> Outcome | None:
        seed = hashlib.sha256(self.head.shard.id.root_hash).digest()
        return self.engine.execute(self._cell(address), boc, now=now, lt=lt, seed=seed)

    def _cell(self, address: bytes) -> PyCell:
        cell = self._cells.get(address)
        if cell is None:
            boc = self.store.account(address, self.head.step.seqno) or _EMPTY_SHARD_ACCOUNT
            cell = engine_cell(boc)
        self._remember(address, cell)
        return cell

    def _remember(self, address: bytes, cell: PyCell) -> None:
        self._cells[address] = cell
        self._cells.move_to_end(address)
        if len(self._cells) > CACHED_ACCOUNTS:
            self._cells.popitem(last=False)

    def _account_hash(self, address: bytes) -> bytes:
        leaf = self._accounts.get(int.from_bytes(address, "big"))
        return leaf[:32] if leaf else NO_ACCOUNT.hash

    def _place(self, address: bytes, cell: PyCell, boc: bytes) -> AccountRow:
        state = read_shard_account(cell)
        leaf = state.account_hash + state.account_depth.to_bytes(2, "big")
        leaf += state.last_transaction_hash + state.last_transaction_lt.to_bytes(8, "big")
        self._accounts = self._accounts.set(int.from_bytes(address, "big"), leaf, state.balance)
        self._remember(address, cell)
        return AccountRow(address, state.balance, leaf, boc)

    def _seal(
        self,
        step: Step,
        changes: dict[bytes, AccountChange],
        accounts: list[AccountRow],
        rows: list[TransactionRow],
        taken: int,
        sent: list[Queued],
    ) -> Block:
        block = seal(self._past, step, self._accounts, changes, self.config)
        self.store.commit(block, accounts, rows, taken, sent)
        self._queue.extend(sent)
        self._advance(block)
        return block

    def _advance(self, block: Block) -> None:
        past, group = history.collapse(
            history.extend(self._past.history, block.master_ref()), block.step.seqno
        )
        if group is not None:
            self.store.add_group(group)
        self._past = Past(block, self._past.key_block or block.master_ref(), past)
        self._recent[block.step.seqno] = block
        if len(self._recent) > WINDOW:
            self._recent.popitem(last=False)

    # Restart

    def _restore(self, seqno: int) -> None:
        """Rebuild the head with its states from the store, and check them against its hashes."""
        stored, key_block = self.store.block(seqno), self.store.block(KEY_BLOCK_SEQNO)
        if stored is None or key_block is None:
            raise StateDamagedError(f"block {seqno} or the first block is missing")
        items = ((int.from_bytes(a, "big"), leaf, grams) for a, leaf, grams in self.store.leaves())
        self._accounts = Trie.build(ACCOUNTS, items)
        earlier = history.restore(self.store, seqno - 1)
        is_first = seqno == KEY_BLOCK_SEQNO
        key_ref = None if is_first else key_block.master_ref()
        past = Past(self.store.block(seqno - 1), key_ref, earlier)
        shard = shard_state(past, stored.step, self._accounts)
        shards = shard_list(stored.step, stored.shard.id)
        master = master_state(past, stored.step, shards, self._accounts.extra, self.config)
        for state, sealed in ((shard, stored.shard), (master, stored.master)):
            if state.hash != sealed.root.child(2, 1).hash0:
                raise StateDamagedError(f"block {seqno} does not lead to the stored accounts")
        head = Block(
            stored.step,
            Sealed(stored.shard.id, stored.shard.root, shard),
            Sealed(stored.master.id, stored.master.root, master),
            self._accounts,
        )
        self._past = Past(None, key_ref, earlier)
        self._advance(head)
