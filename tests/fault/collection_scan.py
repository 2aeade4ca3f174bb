"""What a collection's own transactions say was minted, read from a lite-server one by one."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from pytoniq import LiteBalancer
from pytoniq_core.tlb.transaction import Transaction

from chain_gateway.cells import raw
from chain_gateway.content import decode

OP_MINT = 1  # collection.fc
PAGE = 16


@dataclass(frozen=True)
class Minting:
    """One order that the collection ran, and whether the item is what was ordered."""

    mint_id: str
    index: int
    owner: str


async def mintings(client: LiteBalancer, collection: str) -> list[Minting]:
    """Every mint that a transaction of the collection ran, the newest first."""
    return [
        minting
        async for transaction in _transactions(client, collection)
        if (minting := _minting(transaction)) is not None
    ]


async def _transactions(client: LiteBalancer, address: str) -> AsyncIterator[Transaction]:
    at: tuple[Any, Any] = (None, None)
    while at[0] != 0:
        page, _ = await client.raw_get_transactions(address, PAGE, *at)
        for transaction in page:
            yield transaction
        at = page[-1].prev_trans_lt, page[-1].prev_trans_hash


def _minting(transaction: Transaction) -> Minting | None:
    message = transaction.in_msg
    if message is None or not message.is_internal or transaction.description.aborted:
        return None
    body = message.body.begin_parse()
    if body.remaining_bits < 32 or body.load_uint(32) != OP_MINT:
        return None
    body.load_uint(64)
    index = body.load_uint(64)
    body.load_coins()
    item = body.load_ref().begin_parse()
    owner = raw(item.load_address())
    return Minting(decode(item.load_ref())["mint_id"], index, owner)
