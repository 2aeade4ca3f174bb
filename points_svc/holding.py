"""Holds and overdraft limits: one plain transaction each."""

from datetime import timedelta
from typing import NamedTuple

from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.errors import RequestIdReused
from mesh.idempotency import Key
from points_svc.book import Outcome
from points_svc.booking import Booking, bury, seen
from points_svc.errors import (
    HoldClosed,
    HoldExceeded,
    HoldNotFound,
    HoldOfAnotherAccount,
    InsufficientFunds,
)
from points_svc.flows import pair
from points_svc.ledger import (
    AccountKey,
    Hold,
    HoldState,
    Instruction,
    Kind,
    Reservation,
    Transaction,
    debt_account,
    redemption,
    user_account,
)
from points_svc.store.booking import Store
from points_svc.store.holds import hold_by_id, place_hold, set_floor


class Wish(NamedTuple):
    """A hold as it was asked for."""

    request_id: str
    user_id: str
    unit: str
    amount: int
    reason: str
    reference: str
    time_to_live: timedelta


class Captured(NamedTuple):
    """A captured hold and what it booked; None when that was reversed before it arrived."""

    hold: Hold
    transaction: Transaction | None


class Vault:
    """Places, captures and releases holds, and limits overdrafts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def place(self, key: Key, wish: Wish) -> Hold | None:
        """Reserves points in named lots, those that expire first before the others.

        None when the hold was released before it arrived. Raises `UnknownUnit`,
        `InsufficientFunds` or `RequestIdReused`.
        """
        return await self._database.run(lambda connection: _place(connection, key, wish))

    async def capture(
        self, key: Key, hold_id: str, user_id: str, amount: int, reason: str
    ) -> Captured:
        """Spends `amount` of a hold, all of it if 0, and releases the rest.

        Raises `HoldNotFound`, `HoldOfAnotherAccount`, `HoldClosed`, `HoldExceeded` or
        `RequestIdReused`.
        """
        return await self._database.run(
            lambda connection: _capture(connection, key, hold_id, user_id, amount, reason)
        )

    async def release(self, key: Key, hold_id: str, user_id: str) -> Hold:
        """Gives a hold's points back to their lots. Raises as `capture`."""
        return await self._database.run(
            lambda connection: _release(connection, key, hold_id, user_id)
        )

    async def release_placed(
        self, key: Key, scope: str, request_id: str, user_id: str
    ) -> Hold | None:
        """Releases the hold that a request placed, or leaves a tombstone and returns None.

        `scope` is that of the request. Raises as `capture`.
        """

        async def work(connection: Connection) -> Hold | None:
            hold_id = await Store(connection).answered(scope, request_id)
            if hold_id:
                return await _release(connection, key, hold_id, user_id)
            await bury(connection, key, scope, request_id)
            return None

        return await self._database.run(work)

    async def limit_overdraft(self, key: Key, user_id: str, unit: str, limit: int) -> None:
        """Sets how far a user may spend what is not there.

        Raises `UnknownUnit` or `RequestIdReused`.
        """
        user = user_account(user_id, unit)

        async def work(connection: Connection) -> None:
            store = Store(connection)
            debt = debt_account(user)
            booking = await Booking.begin(store, {user, debt}, opening={user, debt}, needs={})
            if await seen(store, key):
                return
            booking.require_unit(unit)
            await set_floor(connection, store.account_id(debt), -limit)
            booking.answer(key, "limited")
            await booking.finish()

        await self._database.run(work)


async def _place(connection: Connection, key: Key, wish: Wish) -> Hold | None:
    store, user = Store(connection), user_account(wish.user_id, wish.unit)
    booking = await Booking.begin(store, {user}, needs={user: wish.amount})
    known = await store.recall_ids([key])
    if key in known:
        answer = known[key]
        if isinstance(answer, RequestIdReused):
            raise answer
        return await hold_by_id(connection, answer) if answer else None
    booking.require_unit(wish.unit)
    book = booking.book
    available = book.account(user).available
    if available < wish.amount:
        raise InsufficientFunds(available=available, amount=wish.amount)
    reserved, missing = [], wish.amount
    for lot in list(book.lots(user)):
        if part := min(lot.free, missing):
            book.hold(lot, part)
            reserved.append(Reservation(lot.lot_id, part))
            missing -= part
    hold = Hold(
        new_id(),
        wish.request_id,
        wish.user_id,
        wish.unit,
        wish.amount,
        0,
        HoldState.ACTIVE,
        wish.reason,
        wish.reference,
        booking.now,
        booking.now + wish.time_to_live,
        None,
        tuple(sorted(reserved)),
    )
    await place_hold(connection, hold, store.account_id(user))
    booking.answer(key, hold.hold_id)
    await booking.finish()
    return hold


async def _capture(
    connection: Connection, key: Key, hold_id: str, user_id: str, amount: int, reason: str
) -> Captured:
    store = Store(connection)
    hold = await _hold_of(connection, hold_id, user_id)
    purse = redemption(hold.unit)
    booking, hold = await _begin(store, hold, {hold.user, purse}, {purse})
    known = (await store.recall([key])).get(key, key)
    if isinstance(known, RequestIdReused):
        raise known
    if not isinstance(known, Key):
        return Captured(hold, known)
    _require_active(hold)
    amount = amount or hold.amount
    if amount > hold.amount:
        raise HoldExceeded(held=hold.amount, amount=amount)
    closed = booking.close(hold, HoldState.CAPTURED, amount)
    book, transaction_id = booking.book, new_id()
    reserved = {reservation.lot_id: reservation.amount for reservation in hold.lots}
    changes, missing = [], amount
    for lot in [lot for lot in book.lots(hold.user) if lot.lot_id in reserved]:
        if part := min(reserved[lot.lot_id], missing):
            changes.append(book.change_lot(lot, -part))
            missing -= part
    entries = book.post(pair([(hold.user, amount)], [(purse, amount)]))
    instruction = Instruction(
        Kind.CAPTURE,
        key.request_id,
        hold.user_id,
        hold.unit,
        amount,
        reason or hold.reason,
        hold.reference,
        {},
        None,
        hold_id=hold.hold_id,
    )
    made = booking.add(instruction, Outcome(entries, tuple(changes)), transaction_id, key)
    await booking.expire([hold.user])
    await booking.finish()
    return Captured(closed, made)


async def _release(connection: Connection, key: Key, hold_id: str, user_id: str) -> Hold:
    store = Store(connection)
    hold = await _hold_of(connection, hold_id, user_id)
    booking, hold = await _begin(store, hold, {hold.user}, set())
    if await seen(store, key):
        return hold
    _require_active(hold)
    closed = booking.close(hold, HoldState.RELEASED)
    booking.answer(key, hold.hold_id)
    await booking.expire([hold.user])
    await booking.finish()
    return closed


async def _begin(
    store: Store, hold: Hold, keys: set[AccountKey], opening: set[AccountKey]
) -> tuple[Booking, Hold]:
    """Locks the hold's account, which may close it: its time may have passed; reads it again."""
    lots = {reservation.lot_id for reservation in hold.lots}
    booking = await Booking.begin(store, keys, opening=opening, needs={}, lots=lots)
    current = booking.closed(hold.hold_id) or await hold_by_id(store.connection, hold.hold_id)
    return booking, current or hold


async def _hold_of(connection: Connection, hold_id: str, user_id: str) -> Hold:
    hold = await hold_by_id(connection, hold_id)
    if hold is None:
        raise HoldNotFound(hold_id)
    if hold.user_id != user_id:
        raise HoldOfAnotherAccount(hold_id)
    return hold


def _require_active(hold: Hold) -> None:
    if hold.state is not HoldState.ACTIVE:
        raise HoldClosed(hold.hold_id, hold.state.value)
