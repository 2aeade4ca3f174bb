"""Taking orders: durable, idempotent, in batches; parked while their user has no wallet."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from chain_gateway.errors import MintAlreadyOrdered, OperationNotFound
from chain_gateway.operations import Operation, Order, State, check_size
from chain_gateway.store.orders import Admission, OrderStore
from mesh.batching import GroupCommit
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.errors import MeshError, RequestIdReused
from mesh.idempotency import Key


@dataclass(frozen=True, slots=True)
class Request:
    """An order and the request id it came under."""

    key: Key
    order: Order


class OrderDesk:
    """Takes orders from any number of callers; a context manager.

    `wake` is called after each commit that took something.
    """

    def __init__(self, database: Database, wake: Callable[[], None]) -> None:
        self._database = database
        self._wake = wake
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

        Refusals are `ContentTooLarge`, `MintAlreadyOrdered` and `RequestIdReused`; nothing was
        written for them.
        """
        return await self._batches.submit_many(requests)

    async def _commit(self, requests: Sequence[Request]) -> list[Operation | MeshError]:
        outcomes = await self._database.run(lambda connection: _take(connection, requests))
        self._wake()
        return outcomes


async def _take(connection: Connection, requests: Sequence[Request]) -> list[Operation | MeshError]:
    store = OrderStore(connection)
    wallets = await store.lock_users([request.order.user_id for request in requests])
    batch = _Batch(
        wallets,
        await store.recall([request.key for request in requests]),
        await store.ordered([request.order.mint_id for request in requests]),
    )
    answers = [batch.decide(request) for request in requests]
    await store.admit(list(batch.admitted.values()))
    found = await store.operations([answer for answer in answers if isinstance(answer, str)])
    return [found[answer] if isinstance(answer, str) else answer for answer in answers]


class _Batch:
    """Decides requests one after the other: the id of an operation, or a refusal."""

    def __init__(
        self,
        wallets: dict[str, str | None],
        known: dict[Key, str | RequestIdReused],
        ordered: dict[str, str],
    ) -> None:
        self._wallets = wallets
        self._known = known
        self._ordered = ordered
        self.admitted: dict[tuple[str, str], Admission] = {}

    def decide(self, request: Request) -> str | MeshError:
        key, order = request.key, request.order
        if (answer := self._known.get(key)) is not None:
            return answer
        if (earlier := self.admitted.get((key.scope, key.request_id))) is not None:
            same = earlier.key == key
            return earlier.operation_id if same else RequestIdReused(request_id=key.request_id)
        if (operation_id := self._ordered.get(order.mint_id)) is not None:
            return MintAlreadyOrdered(mint_id=order.mint_id, operation_id=operation_id)
        try:
            check_size(order.content, order.mint_id)
        except MeshError as refusal:
            return refusal
        linked = self._wallets[order.user_id] is not None
        state = State.QUEUED if linked else State.AWAITING_WALLET
        admission = Admission(key, new_id(), order, state)
        self.admitted[key.scope, key.request_id] = admission
        self._ordered[order.mint_id] = admission.operation_id
        return admission.operation_id


async def read_operation(database: Database, operation_id: str) -> Operation:
    """One operation; raises `OperationNotFound`."""
    operation_id = operation_id.lower()
    async with database.transaction(read_only=True) as connection:
        found = await OrderStore(connection).operations([operation_id])
    if operation_id not in found:
        raise OperationNotFound(operation_id)
    return found[operation_id]
