"""The ledger's arithmetic: given balances, it decides; pure.

A posting moves an amount from a source account to a destination account and leaves two entries,
one the negative of the other, so whatever is posted sums to zero per unit. A transaction is one or
more postings that happen together or not at all.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from points_svc.errors import BalanceOverflow, InsufficientFunds

# The range is symmetric, so that every balance can also be shown from the other side.
MAX_BALANCE = 2**63 - 1

_USER = "user:"


class AccountKey(NamedTuple):
    """Names one account: its owner, `user:<id>` or `system:<purpose>`, and its unit."""

    owner: str
    unit: str


class Account(NamedTuple):
    """One account's state, amounts in minor units.

    `version` counts its entries; `floor` is the lowest available balance, None for no limit.
    """

    key: AccountKey
    posted: int
    held: int
    version: int
    floor: int | None

    @property
    def available(self) -> int:
        """What may be spent now, above a floor of zero."""
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


class Kind(StrEnum):
    """What kind of business a transaction books."""

    AWARD = "award"
    SPEND = "spend"


class Instruction(NamedTuple):
    """A transaction as it was asked for; `effective_time` None means when it is booked."""

    kind: Kind
    request_id: str
    user_id: str
    unit: str
    amount: int
    reason: str
    reference: str
    metadata: Mapping[str, str]
    effective_time: datetime | None

    @property
    def postings(self) -> tuple[Posting, ...]:
        """The movements this instruction stands for."""
        user = user_account(self.user_id, self.unit)
        match self.kind:
            case Kind.AWARD:
                return (Posting(issuance(self.unit), user, self.amount),)
            case Kind.SPEND:
                return (Posting(user, redemption(self.unit), self.amount),)


class Transaction(NamedTuple):
    """A booked transaction; `booked_time` is the database's."""

    transaction_id: str
    instruction: Instruction
    effective_time: datetime
    booked_time: datetime
    entries: tuple[Entry, ...]


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


def user_account(user_id: str, unit: str) -> AccountKey:
    """The account that holds a user's points."""
    return AccountKey(_USER + user_id, unit)


def issuance(unit: str) -> AccountKey:
    """The account that points come from; its debit is what was ever awarded."""
    return AccountKey("system:issuance", unit)


def redemption(unit: str) -> AccountKey:
    """The account that spent points go to."""
    return AccountKey("system:redemption", unit)


def unopened(key: AccountKey) -> Account:
    """An account nothing was ever booked on: empty, and with a floor if it is a user's."""
    return Account(
        key, posted=0, held=0, version=0, floor=0 if key.owner.startswith(_USER) else None
    )


def to_open(postings: Iterable[Posting]) -> set[AccountKey]:
    """The accounts that these postings may change though nothing was ever booked on them.

    The source with a floor is not among them: it has nothing to give.
    """
    keys: set[AccountKey] = set()
    for posting in postings:
        keys.add(posting.destination)
        if unopened(posting.source).floor is None:
            keys.add(posting.source)
    return keys


class Book:
    """Running balances while transactions are decided one after the other."""

    def __init__(self, accounts: Iterable[Account]) -> None:
        self._accounts = {account.key: account for account in accounts}
        self._changed: set[AccountKey] = set()

    def account(self, key: AccountKey) -> Account:
        """The account as it stands now."""
        return self._accounts.get(key) or unopened(key)

    def changed(self) -> list[Account]:
        """The accounts that something was posted on, as they stand now."""
        return [self._accounts[key] for key in self._changed]

    def post(self, postings: Sequence[Posting]) -> tuple[Entry, ...]:
        """Applies one transaction's postings in order and returns their entries.

        Raises `InsufficientFunds` when one would take its source below its floor, and
        `BalanceOverflow` when a balance would leave the range of int64; then nothing has changed.
        """
        moved: dict[AccountKey, Account] = {}
        entries: list[Entry] = []
        for source, destination, amount in postings:
            for key, change in ((source, -amount), (destination, amount)):
                account = _move(moved.get(key) or self.account(key), change)
                moved[key] = account
                entries.append(Entry(key, change, account.posted, account.version))
        self._accounts.update(moved)
        self._changed.update(moved)
        return tuple(entries)


def _move(account: Account, change: int) -> Account:
    key, posted, held, version, floor = account
    if change < 0 and floor is not None and posted - held + change < floor:
        raise InsufficientFunds(available=posted - held - floor, amount=-change)
    if not -MAX_BALANCE <= posted + change <= MAX_BALANCE:
        raise BalanceOverflow(key.owner)
    return Account(key, posted + change, held, version + 1, floor)
