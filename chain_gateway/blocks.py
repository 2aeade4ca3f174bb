"""What a shard block says about our items: what our collections brought about at them.

One block answers for hundreds of items in one read, and proves itself: its cells hash to the id
that a masterchain block committed to (block.tlb: Block, AccountBlock, Transaction).
"""

from collections.abc import Collection, Iterator

from pytoniq_core.boc.cell import Cell
from pytoniq_core.boc.slice import Slice
from pytoniq_core.tl.block import BlockIdExt
from pytoniq_core.tlb.block import BlockInfo, CurrencyCollection

from chain_gateway import items
from chain_gateway.cells import read
from chain_gateway.effects import Refusal, Sighting
from chain_gateway.operations import FailureReason, Kind
from chain_gateway.transactions import (
    Message,
    aborted,
    activated,
    read_message,
    read_transaction,
)

_INFO, _EXTRA = 0, 3
_ACCOUNT_BLOCKS = 2
_ORDERS = {
    items.OP_MINT: Kind.MINT,
    items.OP_EDIT_ITEM: Kind.UPDATE_CONTENT,
    items.OP_REVOKE_ITEM: Kind.REVOKE,
}
_NOT_ALLOWED = 401  # collection.fc


def previous(block: BlockIdExt, root: Cell) -> BlockIdExt | None:
    """The block before; None where the shard was split or merged."""
    info = BlockInfo.deserialize(read(root.refs[_INFO]))
    if info.after_merge or info.after_split:
        return None
    before = info.prev_ref.prev
    return BlockIdExt(
        block.workchain, block.shard, before.seqno, before.root_hash, before.file_hash
    )


def events(
    root: Cell, collections: Collection[str], wallet: str
) -> tuple[list[Sighting], list[Refusal]]:
    """What the block with this root shows of our collections' items, and of what `wallet` asked
    for and a collection turned down.

    Items take orders from nobody but their collection, and what they turned down is no sighting.
    """
    sightings, refusals = [], []
    for account, transaction, incoming in _internal(root):
        if incoming.source in collections:
            if (sighting := _sighting(account, transaction, incoming)) is not None:
                sightings.append(sighting)
        elif (
            incoming.source == wallet
            and account in collections
            and (refusal := _refusal(account, transaction, incoming)) is not None
        ):
            refusals.append(refusal)
    return sightings, refusals


def _internal(root: Cell) -> Iterator[tuple[str, Cell, Message]]:
    """Account, transaction and message of whatever the block did because of an internal message."""
    accounts_root = read(root.refs[_EXTRA].refs[_ACCOUNT_BLOCKS])
    accounts, _ = accounts_root.load_hashmap_aug_e(
        256, _transactions, CurrencyCollection.deserialize
    )
    for account, transactions in accounts.items():
        for transaction in transactions:
            incoming = read(transaction.refs[0]).load_maybe_ref()
            if incoming is None:
                continue
            message = read_message(incoming)
            if message.source is not None:
                yield f"0:{account:064x}", transaction, message


def _transactions(account_block: Slice) -> list[Cell]:
    account_block.skip_bits(4 + 256)
    transactions, _ = account_block.load_hashmap_aug(
        64, lambda leaf: leaf.load_ref(), CurrencyCollection.deserialize
    )
    return list(transactions.values())


def _sighting(address: str, transaction: Cell, incoming: Message) -> Sighting | None:
    """What the message of its collection made of an item."""
    if incoming.op not in (items.OP_DEPLOY, items.OP_EDIT_CONTENT, items.OP_REVOKE):
        return None
    body = read(incoming.body)
    body.skip_bits(32 + 64)
    if incoming.op == items.OP_DEPLOY:
        # An account turns active only if its contract accepted the message.
        if not activated(transaction):
            return None
        body.load_address()
        return Sighting(address, mint_id=items.read_mint_id(body))
    if aborted(transaction):
        return None
    if incoming.op == items.OP_REVOKE:
        return Sighting(address, revoked=True)
    return Sighting(address, version=body.load_uint(64))


def _refusal(collection: str, transaction: Cell, incoming: Message) -> Refusal | None:
    kind = _ORDERS.get(incoming.op or 0)
    if kind is None or not aborted(transaction):
        return None
    found = read_transaction(transaction)
    body = read(incoming.body)
    body.skip_bits(32)
    query_id, index = body.load_uint(64), body.load_uint(64)
    refused = found.exit_code == _NOT_ALLOWED
    reason = FailureReason.REFUSED if refused else FailureReason.OUT_OF_GAS
    return Refusal(collection, index, kind, query_id, reason)
