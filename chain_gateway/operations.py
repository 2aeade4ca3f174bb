"""What the Gateway performs: orders, operations and their states. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from chain_gateway.errors import ContentTooLarge

# Leaves room for seven of the largest items in one external message of 65,535 bytes, and keeps the
# chain of text cells far below the depth limit of 512.
MAX_CONTENT_BYTES = 8_192


class State(IntEnum):
    """Life of an operation; the numbers are those of `OperationState` in the contract.

    QUEUED ⇄ AWAITING_WALLET, QUEUED → SUBMITTED → ACCEPTED → MINTED → FINALIZED. A rollback of the
    chain moves ACCEPTED or MINTED back to SUBMITTED. FAILED may follow what comes before MINTED.
    """

    QUEUED = 1
    AWAITING_WALLET = 2
    SUBMITTED = 3
    ACCEPTED = 4
    MINTED = 5
    FINALIZED = 6
    FAILED = 7
    CANCELLED = 8


ON_CHAIN = frozenset({State.MINTED, State.FINALIZED})
"""States of a mint whose item is there."""

ENDED_WITHOUT_ITEM = frozenset({State.FAILED, State.CANCELLED})
"""States of a mint that will never have an item."""


class Kind(IntEnum):
    """What an operation does; the numbers are those of `OperationKind` in the contract."""

    MINT = 1
    TRANSFER = 2
    UPDATE_CONTENT = 3
    REVOKE = 4


class Standard(IntEnum):
    """What an item is; the numbers are those of `ItemStandard` in the contract."""

    NFT = 1
    SBT = 2


class FailureReason:
    """Why an operation failed, or why its last message came to nothing, as callers see it.

    What no message can double is sent again by itself, in a new message with a new query id:

    - EXPIRED: no block took the message in time.
    - NOTHING_SENT: the wallet kept the query id and sent nothing; its balance was too low for the
      message as a whole, or the message was one that it cannot send.
    - LOW_BALANCE: the wallet sent a part of the message and left this out.
    - OUT_OF_GAS: the collection had too little gas or value; the next message brings more.
    - REFUSED: the collection does not know our wallet as owner or minter.
    - NO_EFFECT: it went out, and by the end of the grace nothing was to be seen.

    For the kinds that act on items a second message changes nothing where the first one arrived
    after all; a transfer is sent again only where the wallet's transactions prove that it did not
    go out. A gap between indices is no failure: our collection takes any index.

    The rest is final, state FAILED:

    - INDEX_TAKEN: the item at our index is another minter's. The index is frozen, so the mint has
      to be ordered anew; the counter of indices goes on above what the chain has.
    - CODE_MISMATCH: the item's address holds code that is not ours, so that nobody here can tell
      whether the mint is there; look before ordering anew.
    - ITEM_DESTROYED: the owner destroyed the soulbound item that was to be changed.
    - ITEM_NOT_MINTED: the mint whose item was to be changed ended without an item.
    - UNSENDABLE: no message can be made of it, so nothing was sent: a defect of the Gateway, whose
      log says more.
    """

    EXPIRED = "EXPIRED"
    NOTHING_SENT = "NOTHING_SENT"
    LOW_BALANCE = "LOW_BALANCE"
    OUT_OF_GAS = "OUT_OF_GAS"
    REFUSED = "REFUSED"
    NO_EFFECT = "NO_EFFECT"
    INDEX_TAKEN = "INDEX_TAKEN"
    CODE_MISMATCH = "CODE_MISMATCH"
    ITEM_DESTROYED = "ITEM_DESTROYED"
    ITEM_NOT_MINTED = "ITEM_NOT_MINTED"
    UNSENDABLE = "UNSENDABLE"


@dataclass(frozen=True, slots=True)
class Content:
    """What an item says about itself; `attributes` are (trait type, value) pairs in order.

    With a `uri` the content lies there, off chain, and the rest is not written on chain.
    """

    name: str
    description: str
    image: str
    attributes: tuple[tuple[str, str], ...]
    uri: str = ""

    def entries(self, mint_id: str) -> Mapping[str, str]:
        """Keys and values of the TEP-64 dictionary; what is empty is left out.

        The mint id is among the keys, for people; items also keep it apart from their content, so
        that an audit of the chain finds any double, whatever the content is.
        """
        traits = [{"trait_type": kind, "value": value} for kind, value in self.attributes]
        entries = {
            "name": self.name,
            "description": self.description,
            "image": self.image,
            "attributes": json.dumps(traits, ensure_ascii=False, separators=(",", ":")),
            "mint_id": mint_id,
        }
        if not traits:
            del entries["attributes"]
        return {key: value for key, value in entries.items() if value}


def check_size(content: Content, mint_id: str) -> None:
    """Raises `ContentTooLarge` if the texts take more than `MAX_CONTENT_BYTES` in UTF-8."""
    if content.uri:
        return  # nothing else is written, and the contract bounds it
    size = sum(len(value.encode()) for value in content.entries(mint_id).values())
    if size > MAX_CONTENT_BYTES:
        raise ContentTooLarge(limit=MAX_CONTENT_BYTES, actual=size)


@dataclass(frozen=True, slots=True)
class Mint:
    """An item to bring on to the chain."""

    content: Content
    standard: Standard = Standard.NFT


@dataclass(frozen=True, slots=True)
class Transfer:
    """TON to send, in nanoton; the recipient's wallet shows the comment."""

    amount: int
    comment: str


@dataclass(frozen=True, slots=True)
class Update:
    """What the item of a mint is to say from now on."""

    item_mint_id: str
    content: Content


@dataclass(frozen=True, slots=True)
class Revocation:
    """The end of the soulbound item of a mint."""

    item_mint_id: str


Task = Mint | Transfer | Update | Revocation

_KINDS: Mapping[type[Task], Kind] = {
    Mint: Kind.MINT,
    Transfer: Kind.TRANSFER,
    Update: Kind.UPDATE_CONTENT,
    Revocation: Kind.REVOKE,
}


@dataclass(frozen=True, slots=True)
class Order:
    """What a caller asks for.

    `mint_id` is NFT's id of the mint or of the change; a transfer has none. A change is for the
    user of the mint that it names.
    """

    request_id: str
    mint_id: str | None
    user_id: str
    task: Task

    @property
    def kind(self) -> Kind:
        """What kind of operation it becomes."""
        return _KINDS[type(self.task)]


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an item is; frozen before its mint is first sent. Addresses are raw."""

    collection: str
    index: int
    address: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an operation stands; `version` counts up with every change.

    `owner` is whom an item is minted to or TON is sent to, frozen before the first send. A transfer
    has no placement; a change has that of its mint, once there is an item.
    """

    operation_id: str
    kind: Kind
    mint_id: str | None
    state: State
    version: int
    placement: Placement | None
    owner: str | None
    failure_reason: str
    retryable: bool


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation as stored.

    `wallet` is the one that carries or carried it last. `cost`, in nanoton, is what left wallets
    for it, the amount of a transfer aside; 0 until that is final.
    """

    order: Order
    standing: Standing
    query_id: int | None
    wallet: str | None
    cost: int
    create_time: datetime
    update_time: datetime
