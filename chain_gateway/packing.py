"""Packing operations into one message of the wallet. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytoniq_core.boc.cell import Cell

from chain_gateway import content, items
from chain_gateway.cells import EMPTY, build, internal
from chain_gateway.items import Collections
from chain_gateway.operations import (
    Content,
    FailureReason,
    Mint,
    Placement,
    Revocation,
    Transfer,
    Update,
)
from chain_gateway.store.sending import Packed, Waiting
from chain_gateway.wallet import ActionList

TRANSFER_FEE = items.SENDING_FEE
# Gas is doubled at each refusal for want of it, up to this many times.
_DOUBLINGS = 3


@dataclass(frozen=True, slots=True)
class Packing:
    """What goes into a message, in its order, and what it takes from the balance, in nanoton.

    `unsendable` are operations that nobody can make a message of, and why.
    """

    actions: ActionList
    operations: Sequence[Packed]
    next_indices: Mapping[str, int]
    value: int
    unsendable: Mapping[str, Exception]


def cost(waiting: Waiting) -> int:
    """What an operation takes from the wallet's balance at most, in nanoton."""
    match waiting.task:
        case Transfer(amount):
            return amount + TRANSFER_FEE
        case Mint():
            return items.ITEM_AMOUNT + _work(waiting) + items.SENDING_FEE
        case Update() | Revocation():
            return items.ERRAND_AMOUNT + _work(waiting) + items.SENDING_FEE


def affordable(waiting: Sequence[Waiting], budget: int) -> list[Waiting]:
    """Those that a budget, in nanoton, pays for; what is too dear lets others pass."""
    chosen = []
    for each in waiting:
        if (price := cost(each)) <= budget:
            budget -= price
            chosen.append(each)
    return chosen


def pack(
    waiting: Sequence[Waiting],
    collections: Collections,
    next_indices: Mapping[str, int],
    query_id: int,
) -> Packing:
    """As many as fit into one message; items that were placed before stay where they are."""
    actions = ActionList()
    packed: list[Packed] = []
    unsendable: dict[str, Exception] = {}
    value = 0
    indices = dict(next_indices)
    for each in waiting:
        place = each.placement
        if place is None and isinstance(each.task, Mint):
            collection = collections[each.task.standard]
            index = indices[collection.address]
            place = Placement(collection.address, index, collection.item_address(index))
        try:
            message = _message(each, place, query_id)
        except Exception as error:  # whatever it is, the others must not wait behind it
            unsendable[each.operation_id] = error
            continue
        if not actions.add(message):
            break
        if place is not None and place.collection in indices:
            indices[place.collection] = max(indices[place.collection], place.index + 1)
        packed.append(Packed(each.operation_id, place, each.owner))
        value += cost(each)
    return Packing(actions, packed, indices, value, unsendable)


def _message(waiting: Waiting, place: Placement | None, query_id: int) -> Cell:
    """The message by which the wallet performs an operation."""
    if isinstance(waiting.task, Transfer):
        return internal(waiting.owner, waiting.task.amount, _comment(waiting.task), bounce=False)
    assert place is not None, "what acts on an item was placed before"
    work = _work(waiting)
    match waiting.task:
        case Mint(described):
            mint_id = waiting.mint_id or ""
            return items.mint(
                place.collection,
                index=place.index,
                owner=waiting.owner,
                content=_content(described, mint_id),
                mint_id=mint_id,
                query_id=query_id,
                work=work,
            )
        case Update(item_mint_id, described):
            return items.edit(
                place.collection,
                index=place.index,
                version=waiting.version,
                content=_content(described, item_mint_id),
                query_id=query_id,
                work=work,
            )
        case Revocation():
            return items.revoke(place.collection, index=place.index, query_id=query_id, work=work)


def _content(described: Content, mint_id: str) -> Cell:
    if described.uri:
        return content.off_chain(described.uri)
    return content.encode(described.entries(mint_id))


def _work(waiting: Waiting) -> int:
    short = waiting.setback == FailureReason.OUT_OF_GAS
    return items.WORK << min(waiting.refusals, _DOUBLINGS) if short else items.WORK


def _comment(transfer: Transfer) -> Cell:
    """A comment as wallets show it: 32 zero bits, then UTF-8."""
    if not transfer.comment:
        return EMPTY
    body: Cell = build().store_uint(0, 32).store_bytes(transfer.comment.encode()).end_cell()
    return body
