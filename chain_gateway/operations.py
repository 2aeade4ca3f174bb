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


class FailureReason:
    """Why an operation failed, as callers see it."""

    # The item at our index exists with somebody else's content: another minter took the index.
    INDEX_TAKEN = "INDEX_TAKEN"


@dataclass(frozen=True, slots=True)
class Content:
    """What an item says about itself; `attributes` are (trait type, value) pairs in order."""

    name: str
    description: str
    image: str
    attributes: tuple[tuple[str, str], ...]

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
class Order:
    """A mint that a caller asks for."""

    request_id: str
    mint_id: str
    user_id: str
    content: Content


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an item is minted and to whom; frozen before the first send. Addresses are raw."""

    collection: str
    index: int
    address: str
    owner: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an operation stands; `version` counts up with every change."""

    operation_id: str
    mint_id: str
    state: State
    version: int
    placement: Placement | None
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
