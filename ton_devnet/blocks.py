"""Blocks and states as cells (TL-B: block.tlb), linked so that proofs hold.

Every step of this network is one basechain block and one masterchain block with the same number.
Message descriptors and value flow are left empty: no lite-client looks at them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ton_devnet.cells import Builder, Cell, Digest, Hashed, merkle_update, to_boc
from ton_devnet.trie import PLAIN, Schema, Trie

BASECHAIN, MASTERCHAIN = 0, -1
WHOLE_SHARD = -(2**63)
GLOBAL_ID = -239
KEY_BLOCK_SEQNO = 1
"""The first block carries the configuration and is the only key block."""
CONFIG_ADDRESS = b"\x55" * 32


class StateGoneError(LookupError):
    """The block is too old: only the newest few keep their states."""

    def __init__(self, seqno: int) -> None:
        super().__init__(f"the state of block {seqno} is gone; ask about a newer block")


@dataclass(frozen=True, slots=True)
class BlockId:
    workchain: int
    seqno: int
    root_hash: bytes
    file_hash: bytes

    @classmethod
    def of(cls, workchain: int, seqno: int, root: Cell) -> "BlockId":
        return cls(workchain, seqno, root.hash, hashlib.sha256(to_boc(root)).digest())


@dataclass(frozen=True, slots=True)
class BlockRef:
    """ExtBlkRef: how one block names an earlier one."""

    end_lt: int
    seqno: int
    root_hash: bytes
    file_hash: bytes

    def write(self, builder: Builder) -> Builder:
        builder.uint(self.end_lt, 64).uint(self.seqno, 32)
        return builder.raw(self.root_hash).raw(self.file_hash)


NOTHING_BEFORE = BlockRef(0, 0, bytes(32), bytes(32))


@dataclass(frozen=True, slots=True)
class Step:
    """When a pair of blocks happened: number, unix seconds, logical times."""

    seqno: int
    utime: int
    start_lt: int
    end_lt: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """One block with its state; the state is None once the block has left the window."""

    id: BlockId
    root: Cell
    state: Cell | None


@dataclass(frozen=True, slots=True)
class Block:
    """The pair of blocks of one step. `accounts` is None once the block has left the window."""

    step: Step
    shard: Sealed
    master: Sealed
    accounts: Trie | None

    def without_transactions(self) -> "Block":
        """The same with only a digest where the transactions were: states are what is asked for,
        and a full block weighs megabytes.
        """
        info, flow, update, _ = self.shard.root.refs
        extra = self.shard.root.child(3)
        inbound, outbound, accounts = extra.refs
        light = extra.with_refs([inbound, outbound, Digest(accounts.hash0, accounts.depth0)])
        root = self.shard.root.with_refs([info, flow, update, light])
        shard = Sealed(self.shard.id, root, self.shard.state)
        return Block(self.step, shard, self.master, self.accounts)

    def shard_ref(self) -> BlockRef:
        return _ref(self.step, self.shard.id)

    def master_ref(self) -> BlockRef:
        return _ref(self.step, self.master.id)


def _ref(step: Step, id: BlockId) -> BlockRef:
    return BlockRef(step.end_lt, step.seqno, id.root_hash, id.file_hash)


@dataclass(frozen=True, slots=True)
class AccountChange:
    """One account's transactions in a block, and the hash of its Account cell before and after."""

    before: bytes
    after: bytes
    transactions: Sequence[tuple[int, Cell]]


@dataclass(frozen=True, slots=True)
class Past:
    """What a new block builds on; `head` and `key_block` are None for the very first."""

    head: Block | None
    key_block: Block | None
    history: Trie


def _currency(builder: Builder, nanotons: int) -> Builder:
    return builder.coins(nanotons).uint(0, 1)


def _write_ref(builder: Builder, leaf: tuple[bool, BlockRef]) -> Builder:
    return leaf[1].write(builder.uint(leaf[0], 1))


def _write_account(builder: Builder, leaf: bytes) -> Builder:
    account = Digest(leaf[:32], int.from_bytes(leaf[32:34], "big"))
    return builder.ref(account).raw(leaf[34:])


ACCOUNTS = Schema(
    256, lambda a, b: a + b, lambda b, e: _currency(b.uint(0, 5), e), _write_account, 0
)
"""ShardAccounts. Leaf: account hash (32), depth (2), last transaction hash (32), its lt (8)."""

HISTORY = Schema(
    32,
    lambda a, b: (a[0] or b[0], max(a[1], b[1])),
    lambda b, e: b.uint(e[0], 1).uint(e[1], 64),
    _write_ref,
    (False, 0),
)
"""OldMcBlocksInfo. Leaf: (is it a key block, BlockRef); extra: (any key block, largest end_lt)."""

_ACCOUNT_BLOCKS = Schema(
    256, lambda _a, _b: 0, _currency, lambda b, account_block: b.append(account_block), 0
)
_TRANSACTIONS = Schema(64, lambda _a, _b: 0, _currency, lambda b, cell: b.ref(cell), 0)


def seal(
    past: Past,
    step: Step,
    accounts: Trie,
    changes: Mapping[bytes, AccountChange],
    config: Cell,
    fork: int,
) -> Block:
    """The next pair of blocks, with the states they lead to.

    `fork` counts the rollbacks so far, as catchain_seqno: no block is ever made twice.
    """
    shard = _seal_shard(past, step, accounts, changes, fork)
    shards = shard_list(step, shard.id)
    state = master_state(past, step, shards, accounts.extra, config)
    key_config = config if step.seqno == KEY_BLOCK_SEQNO else None
    extra = _block_extra(Builder().uint(0, 1), _master_extra(shards, key_config))
    previous = past.head.master if past.head else None
    ref = past.head.master_ref() if past.head else NOTHING_BEFORE
    info = _block_info(MASTERCHAIN, step, fork).ref(ref.write(Builder()).cell()).cell()
    root = _block(info, merkle_update(_state_before(previous), state), extra)
    master = Sealed(BlockId.of(MASTERCHAIN, step.seqno, root), root, state)
    return Block(step, shard, master, accounts)


def _seal_shard(
    past: Past, step: Step, accounts: Trie, changes: Mapping[bytes, AccountChange], fork: int
) -> Sealed:
    state = shard_state(past, step, accounts)
    previous = past.head.shard if past.head else None
    master_ref = past.head.master_ref() if past.head else NOTHING_BEFORE
    shard_ref = past.head.shard_ref() if past.head else NOTHING_BEFORE
    info = _block_info(BASECHAIN, step, fork).ref(master_ref.write(Builder()).cell())
    info.ref(shard_ref.write(Builder()).cell())
    extra = _block_extra(_account_blocks(changes), None)
    root = _block(info.cell(), merkle_update(_state_before(previous), state), extra)
    return Sealed(BlockId.of(BASECHAIN, step.seqno, root), root, state)


def _state_before(previous: Sealed | None) -> Hashed:
    if previous is None:
        return Builder().cell()
    return previous.root.child(2, 1)


def shard_state(past: Past, step: Step, accounts: Trie) -> Cell:
    master_ref = past.head.master_ref() if past.head else NOTHING_BEFORE
    return _state(BASECHAIN, step, accounts.cell(), accounts.extra, master_ref, None)


def master_state(past: Past, step: Step, shards: Cell, total: int, config: Cell) -> Cell:
    """`total` is all nanotons of the network; accounts live in the basechain alone."""
    inner = Builder().uint(0, 16).uint(0, 32).uint(0, 32).uint(0, 1)
    inner.append(past.history.cell()).uint(0, 1).uint(past.key_block is not None, 1)
    if past.key_block is not None:
        past.key_block.master_ref().write(inner)
    extra = Builder().raw(b"\xcc\x26").append(shards).raw(CONFIG_ADDRESS)
    extra.ref(config).ref(inner.cell())
    custom = _currency(extra, total).cell()
    return _state(MASTERCHAIN, step, Trie(ACCOUNTS).cell(), 0, None, custom)


def _state(
    workchain: int,
    step: Step,
    accounts: Cell,
    total: int,
    master: BlockRef | None,
    custom: Cell | None,
) -> Cell:
    queue = Builder().uint(0, 1).uint(0, 64).uint(0, 1).uint(0, 1).cell()
    inner = Builder().uint(0, 64).uint(0, 64)
    _currency(_currency(inner, total), 0).uint(0, 1)
    inner.uint(master is not None, 1)
    if master is not None:
        master.write(inner)
    state = Builder().raw(b"\x90\x23\xaf\xe2").signed(GLOBAL_ID, 32)
    _shard_ident(state, workchain).uint(step.seqno, 32).uint(0, 32).uint(step.utime, 32)
    state.uint(step.end_lt, 64).uint(step.seqno - 1, 32)
    return state.ref(queue).uint(0, 1).ref(accounts).ref(inner.cell()).maybe_ref(custom).cell()


def shard_list(step: Step, shard: BlockId) -> Cell:
    """ShardHashes with the one basechain shard."""
    descr = Builder().uint(0xB, 4).uint(step.seqno, 32).uint(step.seqno, 32)
    descr.uint(step.start_lt, 64).uint(step.end_lt, 64)
    descr.raw(shard.root_hash).raw(shard.file_hash).uint(0, 5).uint(0, 3)
    descr.uint(0, 32).signed(WHOLE_SHARD, 64).uint(step.seqno - 1, 32).uint(step.utime, 32).uint(
        0, 1
    )
    _currency(_currency(descr, 0), 0)
    leaf = Builder().uint(0, 1).append(descr.cell()).cell()
    root = Trie(PLAIN).set(BASECHAIN, leaf, None).root
    assert root is not None
    return Builder().uint(1, 1).ref(root.tree()).cell()


def _shard_ident(builder: Builder, workchain: int) -> Builder:
    return builder.uint(0, 2).uint(0, 6).signed(workchain, 32).uint(0, 64)


def _block_info(workchain: int, step: Step, fork: int) -> Builder:
    is_key = workchain == MASTERCHAIN and step.seqno == KEY_BLOCK_SEQNO
    last_key = 0 if step.seqno == KEY_BLOCK_SEQNO else KEY_BLOCK_SEQNO
    info = Builder().raw(b"\x9b\xc7\xa9\x87").uint(0, 32).uint(workchain != MASTERCHAIN, 1)
    info.uint(0, 5).uint(is_key, 1).uint(0, 1).uint(0, 8).uint(step.seqno, 32).uint(0, 32)
    _shard_ident(info, workchain).uint(step.utime, 32)
    info.uint(step.start_lt, 64).uint(step.end_lt, 64)
    return info.uint(0, 32).uint(fork, 32).uint(step.seqno - 1, 32).uint(last_key, 32)


def _block(info: Cell, update: Cell, extra: Cell) -> Cell:
    zeros = Builder()
    for _ in range(4):
        _currency(zeros, 0)
    flow = Builder().raw(b"\xb8\xe4\x8d\xfb").ref(zeros.cell())
    value_flow = _currency(flow, 0).ref(zeros.cell()).cell()
    block = Builder().raw(b"\x11\xef\x55\xaa").signed(GLOBAL_ID, 32)
    return block.ref(info).ref(value_flow).ref(update).ref(extra).cell()


def _block_extra(account_blocks: Builder, custom: Cell | None) -> Cell:
    inbound = _currency(Builder().uint(0, 1).coins(0), 0).cell()
    outbound = _currency(Builder().uint(0, 1), 0).cell()
    if account_blocks.size == 1:  # an empty dictionary still carries its sum
        _currency(account_blocks, 0)
    extra = Builder().raw(b"\x4a\x33\xf6\xfd").ref(inbound).ref(outbound)
    return extra.ref(account_blocks.cell()).raw(bytes(64)).maybe_ref(custom).cell()


def _master_extra(shards: Cell, config: Cell | None) -> Cell:
    extra = Builder().raw(b"\xcc\xa5").uint(config is not None, 1).append(shards).uint(0, 1)
    _currency(_currency(extra, 0), 0).ref(Builder().uint(0, 3).cell())
    if config is not None:
        extra.raw(CONFIG_ADDRESS).ref(config)
    return extra.cell()


def _account_blocks(changes: Mapping[bytes, AccountChange]) -> Builder:
    blocks = Trie(_ACCOUNT_BLOCKS)
    for address, change in changes.items():
        transactions = Trie(_TRANSACTIONS)
        for lt, cell in change.transactions:
            transactions = transactions.set(lt, cell, 0)
        assert transactions.root is not None
        update = Builder().uint(0x72, 8).raw(change.before).raw(change.after).cell()
        account = Builder().uint(5, 4).raw(address).append(transactions.root.tree()).ref(update)
        blocks = blocks.set(int.from_bytes(address, "big"), account.cell(), 0)
    if blocks.root is None:
        return Builder().uint(0, 1)
    return _currency(Builder().uint(1, 1).ref(blocks.root.tree()), 0)
