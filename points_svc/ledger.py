"""The ledger's terms: accounts, postings, transactions, lots and holds; pure.

A posting moves an amount from a source account to a destination account and leaves two entries,
one the negative of the other, so whatever is posted sums to zero per unit. A transaction is one or
more postings that happen together or not at all. `book.py` decides what is posted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, TypeAlias

# The range is symmetric, so that every balance can also be shown from the other side.
MAX_BALANCE = 2**63 - 1

USER = "user:"
DEBT = "debt:"
SYSTEM = "system:"


class AccountKey(NamedTuple):
    """Names one account by owner and unit.

    The owner is `user:<id>`, `debt:<id>` (what that user owes) or `system:<purpose>`.
    """

    owner: str
    unit: str


class Account(NamedTuple):
    """One account's state, amounts in minor units.

    `version` counts its entries. `floor` is the lowest available balance, None for no limit; that
    of a debt account bounds spending alone, since what a reversal takes back is owed regardless.
    """

    key: AccountKey
    posted: int
    held: int
    version: int
    floor: int | None

    @property
    def available(self) -> int:
        """What is posted and not held."""
        return self.posted - self.held


class Posting(NamedTuple):
    """One movement; `amount` is above zero."""

    source: AccountKey
    destination: AccountKey
    amount: int


class Entry(NamedTuple):
    """One side of a posting: positive credits the account, negative debits it."""

    account: AccountKey
    amount: int
    balance_after: int
    account_version: int


LotId: TypeAlias = tuple[str, int]
"""The id of the transaction that made the lot, and its number among those it made."""


class Lot(NamedTuple):
    """Points that came and expire together, None for never; `remaining` includes `held`."""

    lot_id: LotId
    account: AccountKey
    amount: int
    remaining: int
    held: int
    expire_time: datetime | None

    @property
    def free(self) -> int:
        """What may be taken out of it."""
        return self.remaining - self.held


class LotChange(NamedTuple):
    """What one transaction put into (positive) or took out of (negative) one lot."""

    lot_id: LotId
    owner: str
    amount: int
    expire_time: datetime | None


class Part(NamedTuple):
    """Points on their way into lots, with the expiry they have."""

    amount: int
    expire_time: datetime | None


class Kind(StrEnum):
    """What kind of business a transaction books."""

    AWARD = "award"
    SPEND = "spend"
    TRANSFER = "transfer"
    CAPTURE = "capture"
    EXPIRY = "expiry"
    REVERSAL = "reversal"


class Instruction(NamedTuple):
    """A transaction as it was asked for; `effective_time` None means when it is booked.

    `recipient` is who receives a transfer, `expire_time` when an award expires, `reverses` the id
    of what a reversal takes back, `hold_id` the hold that a capture spends.
    """

    kind: Kind
    request_id: str
    user_id: str
    unit: str
    amount: int
    reason: str
    reference: str
    metadata: Mapping[str, str]
    effective_time: datetime | None
    recipient: str = ""
    expire_time: datetime | None = None
    reverses: str | None = None
    hold_id: str | None = None

    @property
    def user(self) -> AccountKey:
        """The account of the user it concerns."""
        return user_account(self.user_id, self.unit)

    @property
    def receiver(self) -> AccountKey:
        """The account of who receives a transfer."""
        return user_account(self.recipient, self.unit)


class Transaction(NamedTuple):
    """A booked transaction; `booked_time` is the database's."""

    transaction_id: str
    instruction: Instruction
    effective_time: datetime
    booked_time: datetime
    entries: tuple[Entry, ...]
    lot_changes: tuple[LotChange, ...] = ()


class HoldState(StrEnum):
    """Where a hold stands; from ACTIVE one of the others follows, and nothing after it."""

    ACTIVE = "active"
    CAPTURED = "captured"
    RELEASED = "released"
    EXPIRED = "expired"


class Reservation(NamedTuple):
    """What a hold reserves of one lot."""

    lot_id: LotId
    amount: int


class Hold(NamedTuple):
    """Reserved points: they stay posted, in named lots, but cannot be spent otherwise."""

    hold_id: str
    request_id: str
    user_id: str
    unit: str
    amount: int
    captured: int
    state: HoldState
    reason: str
    reference: str
    placed_time: datetime
    expire_time: datetime
    closed_time: datetime | None
    lots: tuple[Reservation, ...]

    @property
    def user(self) -> AccountKey:
        """The account whose points it reserves."""
        return user_account(self.user_id, self.unit)


@dataclass(frozen=True)
class Seal:
    """One link of the chain of seals: its number from 1 and its SHA-256."""

    number: int
    hash: bytes


@dataclass(frozen=True)
class Report:
    """What an audit counted, the sums per unit in minor units, and the contradictions it found.

    `awarded` is the debit of each unit's issuance account; each finding is a sentence.
    """

    transactions: int
    entries: int
    accounts: int
    sums: dict[str, int]
    awarded: dict[str, int]
    findings: list[str]
    lots: int = 0
    holds: int = 0
    seals: int = 0
    unsealed_transactions: int = 0
    checks: list[str] = field(default_factory=list)
    last_seal: Seal | None = None


def user_account(user_id: str, unit: str) -> AccountKey:
    """The account that holds a user's points."""
    return AccountKey(USER + user_id, unit)


def debt_account(user: AccountKey) -> AccountKey:
    """The account that holds what this user owes, as a balance below zero."""
    return AccountKey(DEBT + user.owner[len(USER) :], user.unit)


def issuance(unit: str) -> AccountKey:
    """The account that points come from; its debit is what was awarded and not taken back."""
    return AccountKey("system:issuance", unit)


def redemption(unit: str) -> AccountKey:
    """The account that spent points go to."""
    return AccountKey("system:redemption", unit)


def expiry(unit: str) -> AccountKey:
    """The account that expired points go to."""
    return AccountKey("system:expiry", unit)


def unopened(key: AccountKey) -> Account:
    """An account nothing was ever booked on: empty, and with a floor unless it is the system's."""
    floor = None if key.owner.startswith(SYSTEM) else 0
    return Account(key, posted=0, held=0, version=0, floor=floor)
