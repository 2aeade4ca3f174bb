"""Running balances and lots: given what is locked and loaded, decides what is posted; pure.

Every operation either happens whole or raises and leaves the book as it was up to the last `mark`:
callers roll back to it. What is taken from a user's account comes out of its lots, those that
expire first before the others.
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from points_svc.errors import BalanceOverflow, InsufficientFunds
from points_svc.flows import Flow, merged, pair, without
from points_svc.ledger import (
    DEBT,
    MAX_BALANCE,
    Account,
    AccountKey,
    Entry,
    Instruction,
    Kind,
    Lot,
    LotChange,
    LotId,
    Part,
    Posting,
    debt_account,
    issuance,
    redemption,
    unopened,
)

_NEVER = datetime.max.replace(tzinfo=UTC)


class Outcome(NamedTuple):
    """What one transaction leaves behind."""

    entries: tuple[Entry, ...]
    lot_changes: tuple[LotChange, ...]


class Book:
    """The accounts and lots of one database transaction while it decides."""

    def __init__(self, accounts: Iterable[Account], lots: Iterable[Lot] = ()) -> None:
        self._accounts = {account.key: account for account in accounts}
        self._lots = {lot.lot_id: lot for lot in lots}
        self._accounts_before = dict(self._accounts)
        self._lots_before = dict(self._lots)
        self._queues: dict[AccountKey, list[tuple[datetime, LotId]]] = {}
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []
        for lot in self._lots.values():
            self._queue(lot)

    def admit(self, accounts: Iterable[Account]) -> None:
        """Adds accounts that were locked later; those known already stay as they are."""
        found = {account.key: account for account in accounts if account.key not in self._accounts}
        self._accounts |= found
        self._accounts_before |= found

    def account(self, key: AccountKey) -> Account:
        """The account as it stands now."""
        return self._accounts.get(key) or unopened(key)

    def lot(self, lot_id: LotId) -> Lot:
        """The lot as it stands now."""
        return self._lots[lot_id]

    def lots(self, key: AccountKey) -> Iterator[Lot]:
        """The account's lots as they stand now, those that expire first before the others."""
        for _, lot_id in self._queues.get(key, ()):
            if (lot := self._lots.get(lot_id)) is not None:
                yield lot

    def owed(self, user: AccountKey) -> int:
        """What the user owes."""
        return -self.account(debt_account(user)).posted

    def changed(self) -> list[Account]:
        """The accounts that differ from what was loaded."""
        before = self._accounts_before
        return [a for key, a in self._accounts.items() if a is not before.get(key)]

    def changed_lots(self) -> list[Lot]:
        """The stored lots that differ from what was loaded."""
        return [self._lots[i] for i, lot in self._lots_before.items() if self._lots[i] is not lot]

    def made_lots(self) -> list[Lot]:
        """The lots that are not stored yet."""
        before = self._lots_before
        return [lot for lot_id, lot in self._lots.items() if lot_id not in before]

    def mark(self) -> int:
        """A point to roll back to."""
        return len(self._undo)

    def roll_back(self, mark: int) -> None:
        """Undoes everything since `mark`."""
        while len(self._undo) > mark:
            table, key, old = self._undo.pop()
            if old is None:
                del table[key]
            else:
                table[key] = old

    def book(self, instruction: Instruction, transaction_id: str) -> Outcome:
        """Awards, spends or transfers.

        Raises `InsufficientFunds` or `BalanceOverflow`.
        """
        amount, unit, user = instruction.amount, instruction.unit, instruction.user
        match instruction.kind:
            case Kind.AWARD:
                parts = [Part(amount, instruction.expire_time)]
                return self.credit(user, [(issuance(unit), amount)], [], parts, transaction_id)
            case Kind.SPEND:
                sources, changes = self._debit(user, amount)
                entries = self.post(pair(sources, [(redemption(unit), amount)]))
                return Outcome(entries, tuple(changes))
            case Kind.TRANSFER:
                sources, changes = self._debit(user, amount)
                parts = [Part(-change.amount, change.expire_time) for change in changes]
                overdrawn = amount - sum(part.amount for part in parts)
                if overdrawn:
                    parts.append(Part(overdrawn, None))
                return self.credit(instruction.receiver, sources, changes, parts, transaction_id)
        raise ValueError(f"{instruction.kind} is not booked by an instruction alone")

    def credit(
        self,
        user: AccountKey,
        sources: Sequence[Flow],
        changes: Sequence[LotChange],
        parts: Sequence[Part],
        transaction_id: str,
    ) -> Outcome:
        """Posts `parts` to a user out of `sources`: first to what the user owes, then into lots.

        What repays a debt is what would expire first. `changes` are those of the same transaction
        so far. Raises `BalanceOverflow`.
        """
        total = sum(part.amount for part in parts)
        repaid = min(self.owed(user), total)
        sinks = [(debt_account(user), repaid), (user, total - repaid)]
        entries = self.post(pair(sources, sinks))
        made = [
            self.make_lot((transaction_id, number), user, part)
            for number, part in enumerate(merged(without(parts, repaid)))
        ]
        return Outcome(entries, (*changes, *made))

    def _debit(self, user: AccountKey, amount: int) -> tuple[list[Flow], list[LotChange]]:
        """Takes points out of lots, and what they lack, if allowed, out of the overdraft."""
        available = self.account(user).available
        own = min(available, amount)
        flows = [(user, own)]
        if own < amount:
            debt = self.account(debt_account(user))
            headroom = max(0, debt.posted - (debt.floor or 0))
            if amount - own > headroom:
                raise InsufficientFunds(available=available + headroom, amount=amount)
            flows.append((debt.key, amount - own))
        return flows, self.take(self.lots(user), own)

    def take(self, lots: Iterable[Lot], amount: int) -> list[LotChange]:
        """Takes `amount` out of what is free in these lots, in their order."""
        changes: list[LotChange] = []
        for lot in lots:
            if amount == 0:
                break
            if part := min(lot.free, amount):
                changes.append(self.change_lot(lot, -part))
                amount -= part
        if amount:
            raise RuntimeError(f"lots lack {amount} of what their account's balance promises")
        return changes

    def change_lot(self, lot: Lot, amount: int) -> LotChange:
        """Puts into (positive) or takes out of (negative) one lot."""
        self._put(self._lots, lot.lot_id, lot._replace(remaining=lot.remaining + amount))
        return LotChange(lot.lot_id, lot.account.owner, amount, lot.expire_time)

    def hold(self, lot: Lot, amount: int) -> None:
        """Reserves (positive) or frees (negative) part of a lot and of its account."""
        account = self.account(lot.account)
        self._put(self._lots, lot.lot_id, lot._replace(held=lot.held + amount))
        self._put(self._accounts, account.key, account._replace(held=account.held + amount))

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
        for key, account in moved.items():
            self._put(self._accounts, key, account)
        return tuple(entries)

    def make_lot(self, lot_id: LotId, user: AccountKey, part: Part) -> LotChange:
        """A new lot with `part` in it."""
        lot = Lot(lot_id, user, part.amount, part.amount, 0, part.expire_time)
        self._put(self._lots, lot_id, lot)
        self._queue(lot)
        return LotChange(lot_id, user.owner, part.amount, part.expire_time)

    def _queue(self, lot: Lot) -> None:
        entry = (lot.expire_time or _NEVER, lot.lot_id)
        insort(self._queues.setdefault(lot.account, []), entry)

    def _put(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self._undo.append((table, key, table.get(key)))
        table[key] = value


def _move(account: Account, change: int) -> Account:
    key, posted, held, version, floor = account
    below = change < 0 and floor is not None and posted - held + change < floor
    if below and not key.owner.startswith(DEBT):  # whose floor bounds spending alone: `_debit`
        raise InsufficientFunds(available=posted - held - (floor or 0), amount=-change)
    if not -MAX_BALANCE <= posted + change <= MAX_BALANCE:
        raise BalanceOverflow(key.owner)
    return Account(key, posted + change, held, version + 1, floor)
