"""Burnt items: those that nobody owns any more, and the transaction that made them so.

TEP-62 knows no burn; what everybody does is a transfer to the zero address, whose key nobody has. A
soulbound item (TEP-85) is destroyed by its owner. After either nobody is the owner, whom alone an
item obeys: so it is the newest such transaction that was not aborted.
"""

from dataclasses import dataclass

from chain_gateway.cells import read
from chain_gateway.reading import read_item, show
from chain_gateway.ton import Block, Chain
from chain_gateway.transactions import Message, Transaction, read_transaction

NOBODY = frozenset({"", "0:" + "00" * 32})
"""Owners without a key: none at all, and the zero address."""

_OP_TRANSFER = 0x5FCC3D14
_OP_DESTROY = 0x1F04537A


@dataclass(frozen=True, slots=True)
class Burn:
    """The end of an item; `transaction` is None for an item that never had an owner."""

    transaction: Transaction | None

    @property
    def burner(self) -> str:
        """The last owner, raw form."""
        incoming = self.transaction.incoming if self.transaction else None
        return (incoming.source if incoming else None) or ""


async def find_burn(chain: Chain, address: str, at: Block) -> Burn | None:
    """How the item at an address was burnt, as of a block; None if somebody owns it.

    Raises `InvalidAddress`, `ItemNotFound` or `ChainUnavailable`.
    """
    item = await read_item(chain, address, at)
    if not item.initialised or item.owner not in NOBODY:
        return None
    account = await chain.account(item.address, at)
    async for cell in chain.history(item.address, account.last):
        transaction = read_transaction(cell)
        if not transaction.aborted and transaction.incoming and _ends(transaction.incoming):
            return Burn(transaction)
    return Burn(None)


def _ends(message: Message) -> bool:
    """Whether an item that obeys this message has no owner afterwards."""
    if message.source is None or message.bounced:
        return False
    if message.op != _OP_TRANSFER:
        return message.op == _OP_DESTROY
    body = read(message.body)
    body.skip_bits(32 + 64)
    return show(body.load_address()) in NOBODY
