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
    chain moves ACCEPTED or MINTED back to SUBMITTED. FAILED may follow SUBMITTED or ACCEPTED.
    """

    QUEUED = 1
    AWAITING_WALLET = 2
    SUBMITTED = 3
    ACCEPTED = 4
    MINTED = 5
    FINALIZED = 6
    FAILED = 7
    CANCELLED = 8


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
    """Why an operation failed, as callers see it."""

    # The item at our index is somebody else's mint: another minter took the index.
    INDEX_TAKEN = "INDEX_TAKEN"
    # The mint whose item was to be changed ended without an item.
    ITEM_NOT_MINTED = "ITEM_NOT_MINTED"


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

        The mint id is among them, so that an audit of the chain finds any double.
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
    """One operation as stored."""

    order: Order
    standing: Standing
    query_id: int | None
    create_time: datetime
    update_time: datetime
