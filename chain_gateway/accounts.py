"""Accounts as lite-servers prove them (block.tlb: ShardStateUnsplit, ShardAccounts, Account). Pure.

pytoniq checks the proof of what is there, and believes whoever says that something is not. Here the
proof has to show that too, and it tells the time of the shard.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from pytoniq_core.boc.address import Address
from pytoniq_core.boc.cell import Cell
from pytoniq_core.boc.exotic import CellTypes
from pytoniq_core.boc.hashmap.parse import deserialize_hml
from pytoniq_core.boc.slice import Slice
from pytoniq_core.proof.check_proof import ProofError, check_block_header_proof, check_proof
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tlb import account as tlb

from chain_gateway.cells import build, read

_UNSPLIT = 0x9023AFE2
_ACCOUNTS = 1  # among the references of a shard's state
_NO_ACCOUNT: Cell = build().store_bit_int(0).end_cell()


@dataclass(frozen=True, slots=True)
class Account:
    """An account as of a block; `data` and `code_hash` are None unless a contract is active there.

    `last_lt` and `last_hash` name its newest transaction; 0 and empty if it had none. `time` is
    that of its shard's newest block, in seconds: what may still change the account comes no
    earlier, though the masterchain block itself may be younger.
    """

    balance: int
    data: Cell | None
    code_hash: bytes | None
    last_lt: int
    last_hash: bytes
    time: int


class _Leaf(NamedTuple):
    account_hash: bytes
    last_hash: bytes
    last_lt: int


_ABSENT = _Leaf(_NO_ACCOUNT.hash, b"", 0)


def read_account(answer: Mapping[str, Any], address: Address) -> Account:
    """Reads a `liteServer.accountState`, whose shard block is the right one.

    Raises `ProofError` where it proves something else than it says, and whatever a malformed one
    makes the parser raise.
    """
    header, proof = Cell.from_boc(answer["proof"])
    root_hash = BlockIdExt.from_dict(answer["shardblk"]).root_hash
    check_proof(proof, check_block_header_proof(header[0], root_hash, store_state_hash=True))
    state = proof[0]
    time = _time(_opened(state), address)
    leaf = _find(state[_ACCOUNTS], address.hash_part)
    said = Cell.one_from_boc(answer["state"]) if answer["state"] else _NO_ACCOUNT
    if said.hash != leaf.account_hash:
        raise ProofError("the account is another than the one that is proven")
    found = tlb.Account.deserialize(read(said))
    if found is None:
        return Account(0, None, None, leaf.last_lt, leaf.last_hash, time)
    storage = found.storage
    active = storage.state.type_ == "account_active"
    init = storage.state.state_init if active else None
    return Account(
        storage.balance.grams,
        None if init is None else init.data,
        None if init is None else bytes(init.code.hash),
        leaf.last_lt,
        leaf.last_hash,
        time,
    )


def _time(state: Slice, address: Address) -> int:
    """The time of a shard's state, which has to be that of the address's shard."""
    if state.load_uint(32) != _UNSPLIT:
        raise ProofError("this is no state of a shard")
    state.skip_bits(32 + 2)
    size, workchain, prefix = state.load_uint(6), state.load_int(32), state.load_uint(64)
    account = int.from_bytes(address.hash_part[:8])
    if workchain != address.wc or (account ^ prefix) >> (64 - size):
        raise ProofError("this is the state of another shard")
    state.skip_bits(32 + 32)
    return int(state.load_uint(32))


def _find(accounts: Cell, account: bytes) -> _Leaf:
    """Follows an account's bits down a HashmapAugE, to its leaf or to where the paths part."""
    root = _opened(accounts)
    if not root.load_bit():
        return _ABSENT
    edge, rest = _opened(root.load_ref()), f"{int.from_bytes(account):0256b}"
    while True:
        size, label = deserialize_hml(edge, len(rest))
        if not rest.startswith(label.to01()):
            return _ABSENT
        rest = rest[size:]
        if not rest:
            break
        children = [edge.load_ref(), edge.load_ref()]
        edge, rest = _opened(children[int(rest[0])]), rest[1:]
    edge.skip_bits(5)  # DepthBalanceInfo: split depth, nanoton, other currencies
    edge.load_coins()
    edge.load_maybe_ref()
    account_hash = edge.load_ref().get_hash(0)
    return _Leaf(account_hash, edge.load_bytes(32), edge.load_uint(64))


def _opened(cell: Cell) -> Slice:
    if cell.type_ != CellTypes.ordinary:
        raise ProofError("the proof leaves out the account's place")
    return read(cell)
