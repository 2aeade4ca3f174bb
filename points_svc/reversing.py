"""Taking a transaction back, whole or in part, in the very lots it moved."""

from typing import NamedTuple

from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.errors import RequestIdReused
from mesh.idempotency import Key
from points_svc.book import Book, Outcome
from points_svc.booking import Booking, bury
from points_svc.errors import NotReversible, OriginalNotFound, ReversalExceeds, TransactionNotFound
from points_svc.flows import Flow, pair
from points_svc.ledger import (
    AccountKey,
    Instruction,
    Kind,
    LotChange,
    Part,
    Transaction,
    debt_account,
    expiry,
    issuance,
    redemption,
)
from points_svc.store.booking import Store
from points_svc.store.history import transactions_by_id
from points_svc.store.reversals import Undone, count_reversal, undone

_REVERSIBLE = frozenset({Kind.AWARD, Kind.SPEND, Kind.TRANSFER, Kind.CAPTURE})


class Name(NamedTuple):
    """A request by its scope (caller and operation) and its id."""

    scope: str
    request_id: str


class Return(NamedTuple):
    """What to take back: `amount` of the original, all that is left of it if 0."""

    original: str | Name
    amount: int
    reason: str


class Reverser:
    """Reverses transactions."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def reverse(self, key: Key, wanted: Return) -> Transaction | None:
        """Books the reversal; None when a tombstone was left in the place of the original.

        Raises `TransactionNotFound`, `OriginalNotFound`, `NotReversible`, `ReversalExceeds` or
        `RequestIdReused`.
        """
        return await self._database.run(lambda connection: _reverse(connection, key, wanted))


async def _reverse(connection: Connection, key: Key, wanted: Return) -> Transaction | None:
    store = Store(connection)
    transaction_id = wanted.original
    if isinstance(transaction_id, Name):
        name = transaction_id
        found = await store.answered(*name)
        if not found and wanted.amount:
            raise OriginalNotFound(name.request_id)
        if not found:
            await bury(connection, key, *name)
            return None
        transaction_id = found
    originals = await transactions_by_id(connection, [transaction_id])
    if not originals:
        raise TransactionNotFound(transaction_id)
    [original] = originals.values()
    return await _reverse_booked(store, key, original, wanted)


async def _reverse_booked(
    store: Store, key: Key, original: Transaction, wanted: Return
) -> Transaction | None:
    asked = original.instruction
    if asked.kind not in _REVERSIBLE:
        raise NotReversible(original.transaction_id, asked.kind.value)
    booking = await _begin(store, original)
    known = await store.recall([key])
    if key in known:
        answer = known[key]
        if isinstance(answer, RequestIdReused):
            raise answer
        return answer
    done = await undone(store.connection, original, expiry(asked.unit).owner)
    expired = done.expired + booking.expired_out_of(original.transaction_id)
    left = asked.amount - done.amount
    amount = wanted.amount or left
    if not 0 < amount <= left:
        raise ReversalExceeds(original.transaction_id, left=left, amount=amount)
    reversal_id = new_id()
    outcome = _decide(booking.book, original, done._replace(expired=expired), amount, reversal_id)
    instruction = Instruction(
        Kind.REVERSAL,
        key.request_id,
        asked.user_id,
        asked.unit,
        amount,
        wanted.reason,
        asked.reference,
        {},
        None,
        recipient=asked.recipient,
        reverses=original.transaction_id,
    )
    made = booking.add(instruction, outcome, reversal_id, key)
    await booking.expire(_users(original))
    await booking.finish()
    await count_reversal(store.connection, original, amount)
    return made


async def _begin(store: Store, original: Transaction) -> Booking:
    """Locks whatever the reversal may change, the expiry account last, and loads its lots."""
    asked, users = original.instruction, _users(original)
    debts = {debt_account(user) for user in users}
    system = {issuance(asked.unit)} if asked.kind is Kind.AWARD else {redemption(asked.unit)}
    if asked.kind is Kind.TRANSFER:
        system = set()
    booking = await Booking.begin(
        store,
        users | debts | system,
        opening=users | debts,
        needs={},
        lots={change.lot_id for change in original.lot_changes},
    )
    purse = {expiry(asked.unit)}
    booking.book.admit(await store.lock(purse, purse))
    return booking


def _decide(
    book: Book, original: Transaction, done: Undone, amount: int, reversal_id: str
) -> Outcome:
    """Out of what the original filled, into what it emptied."""
    asked = original.instruction
    match asked.kind:
        case Kind.AWARD:
            sources, changes = _take_back(book, original, asked.user, done, amount)
            entries = book.post(pair(sources, [(issuance(asked.unit), amount)]))
            return Outcome(entries, tuple(changes))
        case Kind.TRANSFER:
            sources, changes = _take_back(book, original, asked.receiver, done, amount)
        case _:
            sources, changes = [(redemption(asked.unit), amount)], []
    return _give_back(book, original, done, amount, sources, changes, reversal_id)


def _take_back(
    book: Book, original: Transaction, user: AccountKey, done: Undone, amount: int
) -> tuple[list[Flow], list[LotChange]]:
    """Takes from the lots the original made what is free in them, then what expired out of them.

    The rest was spent, given away, held, or repaid a debt: the user owes it.
    """
    made = [
        book.lot(change.lot_id)
        for change in original.lot_changes
        if change.lot_id[0] == original.transaction_id
    ]
    free = min(amount, sum(lot.free for lot in made))
    expired = min(amount - free, done.expired)
    flows = [
        (user, free),
        (expiry(user.unit), expired),
        (debt_account(user), amount - free - expired),
    ]
    return flows, book.take(made, free)


def _give_back(
    book: Book,
    original: Transaction,
    done: Undone,
    amount: int,
    sources: list[Flow],
    changes: list[LotChange],
    reversal_id: str,
) -> Outcome:
    """Puts back into the lots the original took from, what expires last first.

    What the user owes is repaid before. What came out of an overdraft that was repaid since has no
    lot to return to and gets one of its own, without expiry.
    """
    user = original.instruction.user
    repaid = min(book.owed(user), amount)
    missing = amount - repaid
    returned: list[LotChange] = []
    taken = {c.lot_id: -c.amount for c in original.lot_changes if c.amount < 0}
    for lot in reversed([lot for lot in book.lots(user) if lot.lot_id in taken]):
        room = taken[lot.lot_id] - done.returned.get(lot.lot_id, 0)
        if part := min(room, missing):
            returned.append(book.change_lot(lot, part))
            missing -= part
    if missing:
        returned.append(book.make_lot((reversal_id, 0), user, Part(missing, None)))
    entries = book.post(pair(sources, [(debt_account(user), repaid), (user, amount - repaid)]))
    return Outcome(entries, (*changes, *returned))


def _users(original: Transaction) -> set[AccountKey]:
    asked = original.instruction
    return {asked.user, asked.receiver} if asked.recipient else {asked.user}
