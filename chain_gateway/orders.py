"""Taking orders: durable, idempotent, in batches; parked while their user has no wallet."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import TracebackType
from typing import Self

from chain_gateway.errors import (
    ItemNotRevocable,
    MintAlreadyOrdered,
    MintNotFound,
    OperationNotFound,
    TransferLimitReached,
)
from chain_gateway.operations import (
    ENDED_WITHOUT_ITEM,
    FailureReason,
    Kind,
    Mint,
    Operation,
    Order,
    Revocation,
    Standard,
    State,
    Transfer,
    Update,
    check_size,
)
from chain_gateway.store.orders import OrderStore
from chain_gateway.store.rows import Admission, OrderedItem
from mesh.batching import GroupCommit
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.errors import MeshError, RequestIdReused
from mesh.idempotency import Key


@dataclass(frozen=True, slots=True)
class Request:
    """An order and the request id it came under; the user of a change is found by its mint."""

    key: Key
    order: Order


class OrderDesk:
    """Takes orders from any number of callers; a context manager.

    `daily_limit` is what a user may get in transfers a day (UTC), in nanoton. `wake` is called
    after each commit that took something.
    """

    def __init__(self, database: Database, wake: Callable[[], None], *, daily_limit: int) -> None:
        self._database = database
        self._wake = wake
        self._daily_limit = daily_limit
        self._batches = GroupCommit(self._commit, name="gateway.orders", max_batch=1000)

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

    async def take(self, requests: Sequence[Request]) -> list[Operation | Exception]:
        """Takes each order by itself: its operation, as it is now, or why there is none.

        Refusals are `ContentTooLarge`, `MintAlreadyOrdered`, `MintNotFound`, `ItemNotRevocable`,
        `TransferLimitReached` and `RequestIdReused`; nothing was written for them.
        """
        return await self._batches.submit_many(requests)

    async def _commit(self, requests: Sequence[Request]) -> list[Operation | MeshError]:
        take = partial(_take, requests=requests, daily_limit=self._daily_limit)
        outcomes = await self._database.run(take)
        self._wake()
        return outcomes


async def _take(
    connection: Connection, *, requests: Sequence[Request], daily_limit: int
) -> list[Operation | MeshError]:
    store = OrderStore(connection)
    orders = [request.order for request in requests]
    paid = {order.user_id for order in orders if order.kind is Kind.TRANSFER}
    # Whoever counts what a user got today is alone with that user.
    wallets = await store.lock_users({o.user_id for o in orders if o.user_id}, alone=bool(paid))
    known = await store.recall([request.key for request in requests])
    batch = _Batch(
        daily_limit,
        wallets,
        await store.lock_items({mint_id for o in orders if (mint_id := _changed(o)) is not None}),
        await store.sent_today(paid),
        known,
        await store.missing({answer for answer in known.values() if isinstance(answer, str)}),
        await store.ordered({o.mint_id for o in orders if o.mint_id is not None}),
    )
    answers = [batch.decide(request) for request in requests]
    await store.admit(list(batch.admitted.values()))
    found = await store.operations([answer for answer in answers if isinstance(answer, str)])
    return [found[answer] if isinstance(answer, str) else answer for answer in answers]


def _changed(order: Order) -> str | None:
    return order.task.item_mint_id if isinstance(order.task, Update | Revocation) else None


class _Batch:
    """Decides requests one after the other: the id of an operation, or a refusal."""

    def __init__(
        self,
        daily_limit: int,
        wallets: Mapping[str, str | None],
        items: dict[str, OrderedItem],
        sent_today: dict[str, int],
        known: Mapping[Key, str | RequestIdReused],
        called_off: Collection[str],
        ordered: dict[str, str],
    ) -> None:
        self._daily_limit = daily_limit
        self._wallets = wallets
        self._items = items
        self._sent_today = sent_today
        self._known = known
        self._called_off = called_off
        self._ordered = ordered
        self.admitted: dict[tuple[str, str], Admission] = {}

    def decide(self, request: Request) -> str | MeshError:
        key, order = request.key, request.order
        answer = self._known.get(key)
        if answer is not None and answer not in self._called_off:
            return answer
        if (earlier := self.admitted.get((key.scope, key.request_id))) is not None:
            same = earlier.key == key
            return earlier.operation_id if same else RequestIdReused(request_id=key.request_id)
        if order.mint_id is not None and (ordered := self._ordered.get(order.mint_id)):
            return MintAlreadyOrdered(mint_id=order.mint_id, operation_id=ordered)
        try:
            admission = self._admit(key, order)
        except MeshError as refusal:
            return refusal
        if isinstance(answer, str):
            admission = replace(admission, operation_id=answer, state=State.CANCELLED)
        self.admitted[key.scope, key.request_id] = admission
        if order.mint_id is not None:
            self._ordered[order.mint_id] = admission.operation_id
        return admission.operation_id

    def _admit(self, key: Key, order: Order) -> Admission:
        match order.task:
            case Mint(content):
                check_size(content, order.mint_id or "")
            case Transfer(amount):
                self._count(order.user_id, amount)
            case Update(item_mint_id, content):
                check_size(content, item_mint_id)
                return self._change(key, order, self._item(item_mint_id))
            case Revocation(item_mint_id):
                item = self._item(item_mint_id)
                if item.standard is not Standard.SBT:
                    raise ItemNotRevocable(item_mint_id)
                return self._change(key, order, item)
        linked = self._wallets[order.user_id] is not None
        return Admission(key, new_id(), order, State.QUEUED if linked else State.AWAITING_WALLET)

    def _count(self, user_id: str, amount: int) -> None:
        sent = self._sent_today.get(user_id, 0)
        if sent + amount > self._daily_limit:
            left = max(0, self._daily_limit - sent)
            raise TransferLimitReached(limit=self._daily_limit, left=left)
        self._sent_today[user_id] = sent + amount

    def _item(self, mint_id: str) -> OrderedItem:
        item = self._items.get(mint_id)
        if item is None:
            raise MintNotFound(mint_id)
        # Several changes of one item may come in one batch.
        self._items[mint_id] = replace(item, next_version=item.next_version + 1)
        return item

    def _change(self, key: Key, order: Order, item: OrderedItem) -> Admission:
        order = replace(order, user_id=item.user_id)
        if item.state in ENDED_WITHOUT_ITEM:
            reason = FailureReason.ITEM_NOT_MINTED
            return Admission(key, new_id(), order, State.FAILED, item, reason)
        return Admission(key, new_id(), order, State.QUEUED, item)


async def read_operation(database: Database, operation_id: str) -> Operation:
    """One operation; raises `OperationNotFound`."""
    operation_id = operation_id.lower()
    async with database.transaction(read_only=True) as connection:
        found = await OrderStore(connection).operations([operation_id])
    if operation_id not in found:
        raise OperationNotFound(operation_id)
    return found[operation_id]
