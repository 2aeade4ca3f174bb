"""Burnt items: those that nobody owns any more, and the transaction that made them so.

TEP-62 knows no burn; what everybody does is a transfer to the zero address, whose key nobody has. A
soulbound item (TEP-85) is destroyed by its owner. An item obeys nobody but its owner, and after
either it has none: so the burn is the newest such transaction that was not aborted.
"""

from dataclasses import dataclass

from chain_gateway.cells import read
from chain_gateway.reading import address_or_none, read_item
from chain_gateway.ton import Chain
from chain_gateway.transactions import Message

NOBODY = frozenset({"", "0:" + "00" * 32})
"""Owners without a key: none at all, and the zero address."""

_OP_TRANSFER = 0x5FCC3D14
_OP_DESTROY = 0x1F04537A


@dataclass(frozen=True, slots=True)
class Burn:
    """The transaction that burnt an item; `time` is chain time in seconds, `burner` is raw."""

    time: int
    lt: int
    hash: bytes
    burner: str


async def find_burn(chain: Chain, address: str, finality_blocks: int) -> Burn | None:
    """How the item at an address was burnt, beyond any rollback; None if it was not.

    Raises `InvalidAddress`, `ItemNotFound` or `ChainUnavailable`.
    """
    head = chain.head
    at = await chain.block_at(max(1, head.seqno - finality_blocks)) if finality_blocks else head
    item = await read_item(chain, address, at)
    if not item.initialised or item.owner not in NOBODY:
        return None
    account = await chain.account(item.address, at)
    async for transaction in chain.transactions(item.address, account):
        burner = None if transaction.incoming is None else _burner(transaction.incoming)
        if burner is not None and not transaction.aborted:
            return Burn(transaction.time, transaction.lt, transaction.hash, burner)
    return None


def _burner(message: Message) -> str | None:
    """Who sent it, if an item that obeys it has no owner afterwards."""
    if message.bounced or message.op not in (_OP_TRANSFER, _OP_DESTROY):
        return None
    if message.op == _OP_DESTROY:
        return message.source
    body = read(message.body)
    body.skip_bits(32 + 64)
    return message.source if address_or_none(body.load_address()) in NOBODY else None
