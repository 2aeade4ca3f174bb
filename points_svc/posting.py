"""Booking: lock, decide, write, for any number of orders in one database transaction."""

from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import NamedTuple, Self

from mesh.batching import GroupCommit
from mesh.clock import new_id
from mesh.db import Database
from mesh.errors import MeshError, RequestIdReused
from mesh.idempotency import Key
from points_svc.errors import EffectiveTimeInFuture, UnknownUnit
from points_svc.ledger import Book, Instruction, Transaction, to_open
from points_svc.store import Moment, Store

# Callers' clocks run a little ahead of the database's; a time within this is taken as now.
CLOCK_LEEWAY = timedelta(seconds=10)


class Order(NamedTuple):
    """An instruction and the request id it came under."""

    key: Key
    instruction: Instruction


class Desk:
    """Takes orders from any number of callers and books them in batches; a context manager."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batches = GroupCommit(self._commit, name="points.booking")

    async def __aenter__(self) -> Self:
        await self._batches.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._batches.__aexit__(kind, error, trace)

    async def book(self, order: Order) -> Transaction:
        """Books one order, or finds what its request id booked earlier.

        Raises `UnknownUnit`, `InsufficientFunds`, `BalanceOverflow`, `EffectiveTimeInFuture` or
        `RequestIdReused`; then nothing was written for it.
        """
        return await self._batches.submit(order)

    async def book_many(self, orders: Sequence[Order]) -> list[Transaction | Exception]:
        """Books each order by itself: its transaction, or what `book` would have raised."""
        return await self._batches.submit_many(orders)

    async def _commit(self, orders: Sequence[Order]) -> list[Transaction | MeshError]:
        return await self._database.run(lambda connection: _book(Store(connection), orders))


async def _book(store: Store, orders: Sequence[Order]) -> list[Transaction | MeshError]:
    postings = [posting for order in orders for posting in order.instruction.postings]
    touched = {key for posting in postings for key in (posting.source, posting.destination)}
    book = Book(await store.lock(touched, to_open(postings)))
    # Only with the locks held: a replica that booked the same request id held them until it
    # committed, so what it booked is seen here and not mistaken for funds that ran out.
    known = await store.recall([order.key for order in orders])
    batch = Batch(book, await store.moment(), known)
    # Rising in the order of decision, which a user's list of transactions follows.
    ids = sorted(new_id() for _ in orders)
    outcomes = [batch.decide(order, new) for order, new in zip(orders, ids, strict=True)]
    await store.write(batch.booked, book.changed())
    return outcomes


class Batch:
    """Decides orders one after the other; a refused one changes nothing."""

    def __init__(
        self, book: Book, moment: Moment, known: dict[Key, Transaction | RequestIdReused]
    ) -> None:
        self._book = book
        self._moment = moment
        self._known = known
        self._new: dict[tuple[str, str], tuple[Key, Transaction]] = {}

    @property
    def booked(self) -> list[tuple[Key, Transaction]]:
        """What this batch books, in order, each request id once."""
        return list(self._new.values())

    def decide(self, order: Order, transaction_id: str) -> Transaction | MeshError:
        """The order's transaction, known or new with this id, or why there is none."""
        key = order.key
        if (answer := self._known.get(key)) is not None:
            return answer
        if (earlier := self._new.get((key.scope, key.request_id))) is not None:
            same = earlier[0] == key
            return earlier[1] if same else RequestIdReused(request_id=key.request_id)
        try:
            made = self._post(order.instruction, transaction_id)
        except MeshError as refusal:
            return refusal
        self._new[key.scope, key.request_id] = key, made
        return made

    def _post(self, instruction: Instruction, transaction_id: str) -> Transaction:
        now = self._moment.now
        effective_time = instruction.effective_time or now
        if effective_time > now + CLOCK_LEEWAY:
            raise EffectiveTimeInFuture(effective_time.isoformat())
        if instruction.unit not in self._moment.units:
            raise UnknownUnit(instruction.unit)
        entries = self._book.post(instruction.postings)
        return Transaction(transaction_id, instruction, min(effective_time, now), now, entries)
