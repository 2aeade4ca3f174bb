"""Calling an operation off: until it is sent, and before it comes.

An order's remembered answer is its operation's id. Calling off an order that has not come yet
remembers one in its place, under every method that it may come by and for whatever it says (see
ADR 4); an order that finds the id of no operation becomes the operation with that id, CANCELLED.
"""

from collections.abc import Sequence

from chain_gateway.operations import Operation
from chain_gateway.store.cancellations import CancellationStore
from chain_gateway.store.orders import OrderStore
from chain_gateway.tables import idempotency_keys
from mesh import idempotency
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.errors import RequestIdReused
from mesh.idempotency import Key


async def cancel(database: Database, key: Key, named: Sequence[Key]) -> Operation | None:
    """Calls off what came under one of the `named` keys; None if nothing has, and then none will.

    `named` is one request id under each method that takes orders, for any input; should a caller
    have used it with several, all are called off and the first is answered. Raises
    `OperationAlreadySent` or `RequestIdReused`; then nothing was changed.
    """

    async def work(connection: Connection) -> Operation | None:
        store = OrderStore(connection)
        answer = (await store.recall([key])).get(key)
        if isinstance(answer, RequestIdReused):
            raise answer
        if answer is None:
            answer = await _call_off(connection, store, named)
            entry = (key, answer.encode())
            await idempotency.remember(connection, idempotency_keys, [entry])
        return (await store.operations([answer])).get(answer) if answer else None

    return await database.run(work)


async def _call_off(connection: Connection, store: OrderStore, named: Sequence[Key]) -> str:
    known = [answer for answer in (await store.recall(named)).values() if isinstance(answer, str)]
    if not known:
        tombstones = [(each, new_id().encode()) for each in named]
        await idempotency.remember(connection, idempotency_keys, tombstones)
        return ""
    came = sorted(set(known) - await store.missing(known))
    await CancellationStore(connection).cancel(came)
    return came[0] if came else ""
