"""The chain itself: a queue of messages, their execution, the sealing of blocks, the restart."""

import hashlib
import itertools
import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ton_devnet import history
from ton_devnet.accounts import Accounts
from ton_devnet.blocks import (
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
from ton_devnet.cells import BocError, Cell, from_boc, to_boc
from ton_devnet.engine import Engine, Outcome, engine_cell
from ton_devnet.messages import MessageRejectedError, parse_external, read_transaction
from ton_devnet.store import FORK, WINDOW, AccountRow, Queued, Store, TransactionRow
from ton_devnet.trie import Trie

LT_STEP = 1_000_000
MAX_BLOCK_MESSAGES = 128
"""More waiting messages go into the next block: queries are answered in between, and the tries of
the last blocks share most of their nodes.
"""

log = logging.getLogger(__name__)


class TooFarBackError(ValueError):
    """The chain cannot be rolled back that far."""


class StateDamagedError(RuntimeError):
    """The stored chain does not add up; start with a new state folder, or bring back a copy."""


@dataclass(slots=True)
class Draft:
    """What the messages of one block have done so far."""

    end_lt: int
    changes: dict[bytes, AccountChange] = field(default_factory=dict)
    accounts: dict[bytes, AccountRow] = field(default_factory=dict)
    transactions: list[TransactionRow] = field(default_factory=list)
    sent: list[Queued] = field(default_factory=list)

    def add(
        self,
        seqno: int,
        message: Queued,
        outcome: Outcome,
        accounts: Accounts,
        positions: Iterator[int],
    ) -> None:
        address, done = message.address, read_transaction(from_boc(outcome.transaction_boc)[0])
        before = accounts.hash(address)
        self.accounts[address] = accounts.put(address, outcome.account, outcome.account_boc)
        earlier = self.changes.get(address, AccountChange(before, before, ()))
        listed = (*earlier.transactions, (done.lt, done.cell))
        self.changes[address] = AccountChange(earlier.before, accounts.hash(address), listed)
        row = TransactionRow(address, done.lt, seqno, done.cell.hash, outcome.transaction_boc)
        self.transactions.append(row)
        self.sent += [Queued(next(positions), to, to_boc(cell)) for to, cell in done.sent]
        self.end_lt = max(self.end_lt, done.end_lt)


class Chain:
    """One network. Single-threaded: every method runs to its end before the next begins.

    What is in memory is a function of the store alone, so a process may die at any moment.
    """

    def __init__(
        self, store: Store, engine: Engine, config: Cell, clock: Callable[[], int]
    ) -> None:
        """`clock` gives the time in unix seconds that blocks are to be made at."""
        self.store, self.engine, self.config, self._clock = store, engine, config, clock
        self._recent: OrderedDict[int, Block] = OrderedDict()
        self._load()

    def _load(self) -> None:
        self._fork = self.store.setting(FORK) or 0
        self._queue = deque(self.store.queue())
        self._waiting = {message.boc for message in self._queue}
        self._positions = itertools.count(self.store.last_position() + 1)
        self._accounts = Accounts(self.store)
        self._past = Past(None, None, Trie(HISTORY))
        if head := self.store.head():
            self._restore(head)

    # Reading

    @property
    def head(self) -> Block:
        """The newest block; the chain must have had its genesis."""
        if self._past.head is None:
            raise StateDamagedError("this chain has no blocks yet")
        return self._past.head

    @property
    def key_block(self) -> Block:
        """The first block, which carries the configuration."""
        if self._past.key_block is None:
            raise StateDamagedError("this chain has no blocks yet")
        return self._past.key_block

    @property
    def is_new(self) -> bool:
        return self._past.head is None

    @property
    def pending(self) -> int:
        return len(self._queue)

    def now(self) -> int:
        """Chain time in unix seconds: the clock's, never behind the last block."""
        told = self._clock()
        return told if self._past.head is None else max(told, self._past.head.step.utime)

    def block(self, seqno: int) -> Block | None:
        """With states for the last `WINDOW` blocks made by this process, else without; with its
        transactions when it is the head or has no states. For them see `whole_block`.
        """
        return self._recent.get(seqno) or self.store.block(seqno)

    def whole_block(self, seqno: int) -> Block | None:
        """With its transactions; with states only when it is the head."""
        return self._past.head if seqno == self.head.step.seqno else self.store.block(seqno)

    # Writing

    def submit(self, boc: bytes) -> None:
        """Accept an external message; it is on disk when this returns.

        A copy of one that is still waiting changes nothing. Raises MessageRejectedError.
        """
        if boc in self._waiting:
            return
        address = self.check(boc)
        message = Queued(next(self._positions), address, boc)
        self.store.enqueue(message)
        self._queue.append(message)
        self._waiting.add(boc)

    def check(self, boc: bytes) -> bytes:
        """The address of an external message that would be accepted now. Raises
        MessageRejectedError when it would not.
        """
        address = parse_external(boc).address
        if self._execute(address, boc, self.now(), self._next_lt()) is None:
            raise MessageRejectedError(self._refusal(address, boc))
        return address

    def _refusal(self, address: bytes, boc: bytes) -> str:
        account = self._accounts.boc(address)
        code = self.engine.refusal(account, from_boc(boc)[0], now=self.now())
        if code is None:
            why = "the account has no code and the message brings none; deploy or fund it first"
        else:
            why = f"inbound external message rejected by the contract: exitcode={code}"
        return f"cannot apply external message to current state : 0:{address.hex()}: {why}"

    def endow(self, accounts: dict[bytes, bytes]) -> None:
        """Make the first block, with these ShardAccount BoCs by address."""
        draft = Draft(end_lt=1)
        for address, boc in accounts.items():
            draft.accounts[address] = self._accounts.put(address, engine_cell(boc), boc)
        self._seal(Step(KEY_BLOCK_SEQNO, self.now(), 0, 1), draft, ())

    def produce(self) -> Block:
        """Execute what is waiting, up to a block's limit, and seal it, empty or not."""
        start_lt, now, seqno = self._next_lt(), self.now(), self.head.step.seqno + 1
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BLOCK_MESSAGES))]
        self._waiting.difference_update(message.boc for message in batch)
        draft = Draft(end_lt=start_lt + 1)
        for message in batch:
            outcome = self._execute(message.address, message.boc, now, start_lt)
            if outcome is None:
                log.info("dropped: 0:%s no longer accepts a message", message.address.hex())
                continue
            try:
                draft.add(seqno, message, outcome, self._accounts, self._positions)
            except BocError as error:
                # One strange contract must not stop the chain at the same message for ever.
                log.error("dropped a message to 0:%s: %s", message.address.hex(), error)
        self._seal(Step(seqno, now, start_lt, draft.end_lt), draft, batch)
        return self.head

    def roll_back(self, blocks: int, *, lose_externals: bool = False) -> Block:
        """Undo the newest blocks for good; the next one begins another fork.

        What they took from the queue waits again, except, with `lose_externals`, the external
        messages among it. Raises TooFarBackError.
        """
        head, oldest = self.head.step.seqno, self.store.oldest_head()
        if not 0 < blocks <= head - oldest:
            possible = f"give 1 to {head - oldest}" if head > oldest else "make some blocks first"
            raise TooFarBackError(
                f"cannot roll back {blocks} blocks: the head is block {head}, and block {oldest} is"
                f" the oldest that can become the head again; {possible}"
            )
        target = head - blocks
        self.store.undo(target, lose_externals=lose_externals, fork=self._fork + 1)
        for seqno in [seqno for seqno in self._recent if seqno >= target]:
            del self._recent[seqno]
        self._load()
        return self.head

    def _next_lt(self) -> int:
        return (self.head.step.end_lt // LT_STEP + 1) * LT_STEP

    def _execute(self, address: bytes, boc: bytes, now: int, lt: int) -> Outcome | None:
        seed = hashlib.sha256(self.head.shard.id.root_hash).digest()
        return self.engine.execute(self._accounts.cell(address), boc, now=now, lt=lt, seed=seed)

    def _seal(self, step: Step, draft: Draft, batch: Sequence[Queued]) -> None:
        block = seal(self._past, step, self._accounts.trie, draft.changes, self.config, self._fork)
        longer = history.extend(self._past.history, block.master_ref())
        longer, group = history.collapse(longer, step.seqno)
        rows, taken = list(draft.accounts.values()), batch[-1].position if batch else 0
        parts = self._accounts.subtrees(draft.accounts)
        self.store.commit(block, rows, parts, draft.transactions, taken, draft.sent, group)
        self._queue.extend(draft.sent)
        self._advance(Past(block, self._past.key_block or block, longer))

    def _advance(self, past: Past) -> None:
        if self._past.head is not None:
            last = self._past.head.without_transactions()
            self._recent[last.step.seqno] = last
        self._past = past
        self._recent[self.head.step.seqno] = self.head
        if len(self._recent) > WINDOW:
            self._recent.popitem(last=False)

    # Restart

    def _restore(self, seqno: int) -> None:
        """Rebuild the head with its states from the store, and check them against its hashes."""
        stored, key_block = self.store.block(seqno), self.store.block(KEY_BLOCK_SEQNO)
        if stored is None or key_block is None:
            raise StateDamagedError(f"block {seqno} or the first block is missing")
        step, accounts = stored.step, self._accounts.trie
        earlier = history.restore(self.store, seqno - 1)
        before = self.store.block(seqno - 1)
        past = Past(before, None if before is None else key_block, earlier)
        shard = shard_state(past, step, accounts)
        shards = shard_list(step, stored.shard.id)
        master = master_state(past, step, shards, accounts.extra, self.config)
        for state, sealed in ((shard, stored.shard), (master, stored.master)):
            if state.hash != sealed.root.child(2, 1).hash0:
                raise StateDamagedError(f"block {seqno} does not lead to the stored accounts")
        head = Block(
            step,
            Sealed(stored.shard.id, stored.shard.root, shard),
            Sealed(stored.master.id, stored.master.root, master),
            accounts,
        )
        self._advance(Past(head, key_block, history.extend(earlier, head.master_ref())))
