"""What the chain shows of operations: whether they came true. Pure, given what was read."""

from dataclasses import dataclass
from enum import Enum, auto

from pytoniq_core.boc.cell import Cell

from chain_gateway.items import ITEM_CODE_HASHES, ItemData, read_item
from chain_gateway.operations import Kind


@dataclass(frozen=True, slots=True)
class Awaited:
    """An operation in flight; what of it has to show depends on its kind.

    A mint's item says the mint id; a changed item has `version` or a later one; a revoked one says
    so. A transfer shows at no item.
    """

    message_id: int
    operation_id: str
    kind: Kind
    address: str | None
    mint_id: str | None
    version: int | None


@dataclass(frozen=True, slots=True)
class Sighting:
    """What an item was seen to say of itself, as far as it was seen."""

    address: str
    mint_id: str | None = None
    version: int = 0
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order to one of our collections that it turned down, and why (`FailureReason`)."""

    collection: str
    index: int
    kind: Kind
    query_id: int
    reason: str


class Effect(Enum):
    """What became of an awaited operation, as far as its item shows."""

    THERE = auto()
    ABSENT = auto()
    # Never to come true: these are what `FailureReason` calls them.
    INDEX_TAKEN = auto()
    ITEM_DESTROYED = auto()
    CODE_MISMATCH = auto()


def of_item(awaited: Awaited, code_hash: bytes | None, data: Cell | None) -> Effect:
    """What an item's account shows; both are None where no contract is active."""
    if data is None:
        return Effect.ABSENT
    if code_hash not in ITEM_CODE_HASHES:
        return Effect.CODE_MISMATCH
    item = read_item(data)
    if item.content is None:
        return Effect.ABSENT
    if awaited.kind is Kind.MINT:
        return Effect.THERE if item.mint_id == awaited.mint_id else Effect.INDEX_TAKEN
    return _of_change(awaited, item)


def _of_change(awaited: Awaited, item: ItemData) -> Effect:
    if awaited.kind is Kind.REVOKE:
        there = item.revoked_at > 0
    else:
        there = item.version >= (awaited.version or 0)
    if there:
        return Effect.THERE
    return Effect.ITEM_DESTROYED if item.destroyed else Effect.ABSENT
