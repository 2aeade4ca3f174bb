"""What a shard block says about our items: which of them it brought to life.

One block answers for hundreds of items in one read, and proves itself: its cells hash to the id
that a masterchain block committed to (block.tlb: Block, AccountBlock, Transaction).
"""

from dataclasses import dataclass

from pytoniq_core.boc.cell import Cell
from pytoniq_core.boc.slice import Slice
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tlb.block import BlockInfo, CurrencyCollection
from pytoniq_core.tlb.transaction import MessageAny

from chain_gateway.cells import raw, read
from chain_gateway.items import OP_DEPLOY

_INFO, _EXTRA = 0, 3
_ACCOUNT_BLOCKS = 2
_ACTIVE = 0b10


@dataclass(frozen=True, slots=True)
class Deployment:
    """An item that became active by its collection's deploy message."""

    address: str
    content_hash: bytes


def previous(block: BlockIdExt, root: Cell) -> BlockIdExt | None:
    """The block before; None where the shard was split or merged."""
    info = BlockInfo.deserialize(read(root.refs[_INFO]))
    if info.after_merge or info.after_split:
        return None
    before = info.prev_ref.prev
    return BlockIdExt(
        block.workchain, block.shard, before.seqno, before.root_hash, before.file_hash
    )


def deployments(root: Cell, collection: str) -> list[Deployment]:
    """The items of `collection` that the block with this root initialised.

    An account turns active only if its contract accepted the message, and ours accepts the first
    one from nobody but its collection.
    """
    accounts_root = read(root.refs[_EXTRA].refs[_ACCOUNT_BLOCKS])
    accounts, _ = accounts_root.load_hashmap_aug_e(
        256, _transactions, CurrencyCollection.deserialize
    )
    found = []
    for account, transactions in accounts.items():
        for transaction in transactions:
            content_hash = _deployed_content(transaction, collection)
            if content_hash is not None:
                found.append(Deployment(f"0:{account:064x}", content_hash))
    return found


def _transactions(account_block: Slice) -> list[Cell]:
    account_block.skip_bits(4 + 256)
    transactions, _ = account_block.load_hashmap_aug(
        64, lambda leaf: leaf.load_ref(), CurrencyCollection.deserialize
    )
    return list(transactions.values())


def _deployed_content(transaction: Cell, collection: str) -> bytes | None:
    header = read(transaction)
    header.skip_bits(4 + 256 + 64 + 256 + 64 + 32 + 15)
    before, after = header.load_uint(2), header.load_uint(2)
    if before == _ACTIVE or after != _ACTIVE:
        return None
    incoming = read(header.load_ref()).load_maybe_ref()
    if incoming is None:
        return None
    message = MessageAny.deserialize(read(incoming))
    if not message.is_internal or raw(message.info.src) != collection:
        return None
    body = read(message.body)
    if body.remaining_bits < 32 or body.load_uint(32) != OP_DEPLOY:
        return None
    body.skip_bits(64)
    body.load_address()
    return bytes(body.load_ref().hash)
