"""Awards, spends and transfers: any number of orders in one database transaction."""

from collections.abc import Sequence
from datetime import timedelta
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias

from mesh.batching import GroupCommit
from mesh.clock import new_id
from mesh.db import Database
from mesh.errors import MeshError, RequestIdReused
from mesh.idempotency import Key
from points_svc.booking import Booking
from points_svc.errors import BatchRefused, EffectiveTimeInFuture, ExpireTimePassed, SameAccount
from points_svc.flows import touched
from points_svc.ledger import AccountKey, Instruction, Kind, Transaction
from points_svc.store.booking import Store

# Callers' clocks run a little ahead of the database's; a time within this is taken as now.
CLOCK_LEEWAY = timedelta(seconds=10)


class Order(NamedTuple):
    """An instruction and the request id it came under."""

    key: Key
    instruction: Instruction


Group: TypeAlias = tuple[Order, ...]
"""Orders that are booked together or not at all."""

Answer: TypeAlias = Transaction | None
"""What an order booked, now or earlier; None when it was reversed before it arrived."""


class Desk:
    """Takes orders from any number of callers and books them in batches; a context manager."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._batches = GroupCommit(self._commit, name="points.booking", writers=2)

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

    async def book(self, order: Order) -> Answer:
        """Books one order, or finds what its request id booked earlier.

        Raises `UnknownUnit`, `SameAccount`, `InsufficientFunds`, `BalanceOverflow`,
        `EffectiveTimeInFuture`, `ExpireTimePassed` or `RequestIdReused`; then nothing was written
        for it.
        """
        [answer] = await self._batches.submit((order,))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def book_many(self, orders: Sequence[Order]) -> list[Answer | Exception]:
        """Books each order by itself: its transaction, or what `book` would have raised."""
        groups = await self._batches.submit_many([(order,) for order in orders])
        return [group if isinstance(group, Exception) else group[0] for group in groups]

    async def book_together(self, orders: Sequence[Order]) -> list[Answer | Exception]:
        """Books all orders or none; the refused one says why, other new ones `BatchRefused`."""
        return list(await self._batches.submit(tuple(orders), weight=len(orders)))

    async def refuse_together(
        self, number: int, orders: Sequence[Order]
    ) -> list[Answer | Exception]:
        """What `book_together` says when it is item `number` of the batch that is refused."""
        async with self._database.transaction(read_only=True) as connection:
            known = await Store(connection).recall([order.key for order in orders])
        return [known.get(order.key, BatchRefused(number)) for order in orders]

    async def _commit(self, groups: Sequence[Group]) -> list[list[Answer | Exception]]:
        return await self._database.run(lambda connection: _book(Store(connection), groups))


async def _book(store: Store, groups: Sequence[Group]) -> list[list[Answer | Exception]]:
    orders = [order for group in groups for order in group]
    keys: set[AccountKey] = set()
    opening: set[AccountKey] = set()
    needs: dict[AccountKey, int] = {}
    for _, instruction in orders:
        locks, opens = touched(instruction)
        keys |= locks
        opening |= opens
        if instruction.kind is not Kind.AWARD:
            user = instruction.user
            needs[user] = needs.get(user, 0) + instruction.amount
    booking = await Booking.begin(store, keys, opening=opening, needs=needs)
    # Only with the locks held: a replica that booked the same request id held them until it
    # committed, so what it booked is seen here and not mistaken for funds that ran out.
    known = await store.recall([order.key for order in orders])
    batch = Batch(booking, known, len(orders))
    outcomes = [batch.decide(group) for group in groups]
    await booking.finish()
    return outcomes


class Batch:
    """Decides groups of orders one after the other; a refused one changes nothing."""

    def __init__(
        self, booking: Booking, known: dict[Key, Transaction | RequestIdReused | None], size: int
    ) -> None:
        self._booking = booking
        self._known = known
        # Rising in the order of decision, which a user's list of transactions follows.
        self._ids = iter(sorted(new_id() for _ in range(size)))
        self._new: dict[tuple[str, str], tuple[Key, Transaction]] = {}

    def decide(self, group: Group) -> list[Answer | Exception]:
        """Each order's transaction, known or new, or why there is none."""
        mark = self._booking.mark()
        answers: list[Answer | Exception] = []
        fresh: list[Key] = []
        for number, order in enumerate(group):
            try:
                answers.append(self._decide(order, fresh))
            except MeshError as refusal:
                self._booking.roll_back(mark)
                for key in fresh:
                    del self._new[key.scope, key.request_id]
                return self._refused(group, number, refusal)
        return answers

    def _decide(self, order: Order, fresh: list[Key]) -> Answer:
        key = order.key
        earlier = self._earlier(key)
        if isinstance(earlier, RequestIdReused):
            raise earlier
        if not isinstance(earlier, Key):
            return earlier
        made = self._post(order)
        self._new[key.scope, key.request_id] = key, made
        fresh.append(key)
        return made

    def _earlier(self, key: Key) -> Answer | RequestIdReused | Key:
        """What the request id of an order was used for before; the key itself if it is new."""
        if key in self._known:
            return self._known[key]
        if (earlier := self._new.get((key.scope, key.request_id))) is None:
            return key
        return earlier[1] if earlier[0] == key else RequestIdReused(request_id=key.request_id)

    def _post(self, order: Order) -> Transaction:
        asked, now = order.instruction, self._booking.now
        effective_time = asked.effective_time or now
        if effective_time > now + CLOCK_LEEWAY:
            raise EffectiveTimeInFuture(effective_time.isoformat())
        if asked.expire_time is not None and asked.expire_time <= now:
            raise ExpireTimePassed(asked.expire_time.isoformat())
        if asked.recipient == asked.user_id:
            raise SameAccount(asked.user.owner)
        self._booking.require_unit(asked.unit)
        transaction_id = next(self._ids)
        outcome = self._booking.book.book(asked, transaction_id)
        effective_time = min(effective_time, now)
        return self._booking.add(asked, outcome, transaction_id, order.key, effective_time)

    def _refused(self, group: Group, number: int, refusal: MeshError) -> list[Answer | Exception]:
        if len(group) == 1:
            return [refusal]
        earlier = [self._earlier(order.key) for order in group]
        answers: list[Answer | Exception] = [
            BatchRefused(number) if isinstance(answer, Key) else answer for answer in earlier
        ]
        answers[number] = refusal
        return answers
