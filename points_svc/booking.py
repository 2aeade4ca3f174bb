"""One database transaction of the ledger: lock, settle what is due, decide, write."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Self

from mesh.clock import new_id
from mesh.db import Connection
from mesh.errors import RequestIdReused
from mesh.idempotency import ANY_INPUT, Key
from points_svc.book import Book, Outcome
from points_svc.errors import UnknownUnit
from points_svc.ledger import (
    USER,
    AccountKey,
    Hold,
    HoldState,
    Instruction,
    Kind,
    LotId,
    Posting,
    Transaction,
    expiry,
)
from points_svc.store.booking import Moment, Store
from points_svc.store.holds import close_hold, due_holds


class Booking:
    """Locked accounts, their book, the moment, and what is booked so far.

    Whatever is due on a locked account is settled first: holds whose time has passed are closed
    and lots whose time has passed are booked to expiry, so that whoever comes first does what the
    upkeep would do later, and nobody decides on points that are gone.
    """

    def __init__(self, store: Store, book: Book, moment: Moment) -> None:
        self.store = store
        self.book = book
        self.now = moment.now
        self._units = moment.units
        self._booked: list[Transaction] = []
        self._remembered: list[tuple[Key, str]] = []
        self._closed: list[Hold] = []

    @classmethod
    async def begin(
        cls,
        store: Store,
        keys: Collection[AccountKey],
        *,
        opening: Collection[AccountKey] = (),
        needs: Mapping[AccountKey, int],
        lots: Collection[LotId] = (),
    ) -> Self:
        """Locks `keys`, opens those of `opening`, and loads lots.

        `needs` says how much may be taken from users' accounts at most, `lots` which lots will be
        changed besides. The expiry accounts may not be among `keys`: they are locked last.
        """
        accounts = await store.lock(keys, opening)
        moment = await store.moment()
        holders = [store.account_id(account.key) for account in accounts if account.held]
        due = await due_holds(store.connection, holders, moment.now) if holders else []
        reserved = {reservation.lot_id for hold in due for reservation in hold.lots}
        found = await store.next_lots(needs, moment.now) + await store.lots({*lots, *reserved})
        booking = cls(store, Book(accounts, found), moment)
        for hold in due:
            booking.close(hold, HoldState.EXPIRED)
        await booking.expire(key for key in keys if key.owner.startswith(USER))
        return booking

    def require_unit(self, unit: str) -> None:
        """Raises `UnknownUnit`."""
        if unit not in self._units:
            raise UnknownUnit(unit)

    def add(
        self,
        instruction: Instruction,
        outcome: Outcome,
        transaction_id: str,
        key: Key | None = None,
        effective_time: datetime | None = None,
    ) -> Transaction:
        """Books what was decided, in answer to the request `key`."""
        made = Transaction(
            transaction_id,
            instruction,
            effective_time or self.now,
            self.now,
            outcome.entries,
            tuple(sorted(outcome.lot_changes)),  # by lot, as they are read when it is replayed
        )
        self._booked.append(made)
        if key is not None:
            self.answer(key, transaction_id)
        return made

    def mark(self) -> tuple[int, int, int]:
        """A point to roll back to."""
        return self.book.mark(), len(self._booked), len(self._remembered)

    def roll_back(self, mark: tuple[int, int, int]) -> None:
        """Forgets what was booked since `mark`."""
        undone, booked, remembered = mark
        self.book.roll_back(undone)
        del self._booked[booked:]
        del self._remembered[remembered:]

    def answer(self, key: Key, answer: str) -> None:
        """Remembers the id that a request is answered with; empty leaves a tombstone."""
        self._remembered.append((key, answer))

    def close(self, hold: Hold, state: HoldState, captured: int = 0) -> Hold:
        """Ends a hold, frees what it reserved, and returns it as it is then."""
        for reservation in hold.lots:
            self.book.hold(self.book.lot(reservation.lot_id), -reservation.amount)
        closed = hold._replace(state=state, captured=captured, closed_time=self.now)
        self._closed.append(closed)
        return closed

    def closed(self, hold_id: str) -> Hold | None:
        """The hold, if this transaction ended it."""
        return next((hold for hold in self._closed if hold.hold_id == hold_id), None)

    def expired_out_of(self, transaction_id: str) -> int:
        """What this transaction booked to expiry out of the lots that an earlier one made."""
        return sum(
            -change.amount
            for booked in self._booked
            if booked.instruction.kind is Kind.EXPIRY
            for change in booked.lot_changes
            if change.lot_id[0] == transaction_id
        )

    async def expire(self, users: Iterable[AccountKey]) -> None:
        """Books to expiry what is free in the loaded lots whose time has passed."""
        due = {user: amount for user in users if (amount := self._due(user))}
        if not due:
            return
        purses = {expiry(user.unit) for user in due}
        self.book.admit(await self.store.lock(purses, purses))
        for user, amount in due.items():
            self._expire(user, amount)

    async def finish(self) -> None:
        """Writes everything."""
        await self.store.write(self._booked, self.book)
        for hold in self._closed:
            await close_hold(self.store.connection, hold)
        await self.store.remember(self._remembered)

    def _due(self, user: AccountKey) -> int:
        return sum(
            lot.free
            for lot in self.book.lots(user)
            if lot.expire_time is not None and lot.expire_time <= self.now
        )

    def _expire(self, user: AccountKey, amount: int) -> None:
        transaction_id = new_id()
        instruction = Instruction(
            Kind.EXPIRY,
            f"expiry:{transaction_id}",
            user.owner.removeprefix(USER),
            user.unit,
            amount,
            "lots-expired",
            "",
            {},
            None,
        )
        # Those whose time has passed come first among an account's lots.
        changes = self.book.take(self.book.lots(user), amount)
        entries = self.book.post([Posting(user, expiry(user.unit), amount)])
        self.add(instruction, Outcome(entries, tuple(changes)), transaction_id)


async def seen(store: Store, key: Key) -> bool:
    """Whether this request took effect before; raises `RequestIdReused`."""
    known = await store.recall_ids([key])
    if isinstance(answer := known.get(key), RequestIdReused):
        raise answer
    return key in known


async def bury(connection: Connection, key: Key, scope: str, request_id: str) -> None:
    """Leaves a tombstone in place of a request that has not arrived, in answer to `key`.

    Raises `RequestIdReused`, and `RetryTransaction` when that request arrives at this moment.
    """
    store = Store(connection)
    if await seen(store, key):
        return
    buried = await store.answered(scope, request_id) == ""
    target = [] if buried else [(Key(scope, request_id, ANY_INPUT), "")]
    await store.remember([(key, ""), *target])
