"""Taking events back: what they gave is withdrawn from the queue, or sent on its way back."""

from collections.abc import Sequence

from go2asia.connect.v1 import events_pb2

from connect_svc import convert
from connect_svc.errors import EventNotFound
from connect_svc.lanes import LANES, QUEUE, REVERSALS
from connect_svc.normalization import own_source
from connect_svc.records import ActionRecord, State
from connect_svc.store import ActionStore, EventStore, LimitStore, ReversalStore
from connect_svc.store.backfills import keep_backfills_out
from connect_svc.tables import idempotency_keys
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.idempotency import Key, recall, remember
from mesh.identity import Identity
from mesh.outbox import Work

EventName = events_pb2.ExternalKey | str
"""A source's key, or an event id."""
Response = events_pb2.ReverseEventResponse


async def reverse_event(
    database: Database, key: Key, author: Identity, event: EventName, reason: str
) -> Response:
    """Takes an event back, or finds how it was; an external key may be one that has yet to come.

    Raises `EventNotFound` for an unknown event id, `SourceNotOwned`, or `RequestIdReused`.
    """

    async def work(connection: Connection) -> Response:
        known = (await recall(connection, idempotency_keys, [key])).get(key)
        if isinstance(known, Exception):
            raise known
        if known is not None:
            return Response.FromString(known)
        event_id, is_first = await _take_back(connection, author, event, reason)
        reversal = await ReversalStore(connection).of_event(event_id)
        if reversal is None:
            raise RuntimeError(f"the reversal of event {event_id} vanished within its transaction")
        answer = Response(
            reversal=convert.event_reversal(reversal),
            actions=[
                convert.action_record(each)
                for each in await ActionStore(connection).of_event(event_id)
            ],
        )
        await remember(connection, idempotency_keys, [(key, answer.SerializeToString())])
        if is_first:
            # Last, because every event of the rules waits for their counters.
            await LimitStore(connection).refund(event_id)
        return answer

    return await database.run(work)


def way_back(state: State, attempts: int) -> State:
    """Where an action goes when its event is taken back, having been claimed so many times."""
    if state is State.CANCELLED:
        return state
    return State.REVERSING if attempts else State.CANCELLED


async def _take_back(
    connection: Connection, author: Identity, event: EventName, reason: str
) -> tuple[str, bool]:
    """The id of the event, and whether it is taken back now rather than before."""
    await keep_backfills_out(connection)
    store = ReversalStore(connection)
    if isinstance(event, str):
        event_id, arrived = event, True
        await _check_arrived(connection, author, event_id)
    else:
        own_source(author, event.source, "external_key.source")
        key = (event.source, event.external_id)
        found = await EventStore(connection).find(key)
        event_id, arrived = found or new_id(), found is not None
        if not arrived:
            await store.bury(key, event_id)
    if await store.of_event(event_id) is not None:
        return event_id, False
    await store.add(event_id, reason, str(author), before_arrival=not arrived)
    await _take_back_actions(connection, event_id)
    return event_id, True


async def _check_arrived(connection: Connection, author: Identity, event_id: str) -> None:
    story = await EventStore(connection).story(event_id)
    if story is None:
        raise EventNotFound(event_id)
    own_source(author, story.event.source, "event_id")


async def _take_back_actions(connection: Connection, event_id: str) -> None:
    store = ReversalStore(connection)
    standings = await store.withdraw(event_id)
    await store.move({each.action_id: way_back(each.state, each.attempts) for each in standings})
    records = await ActionStore(connection).of_event(event_id)
    await QUEUE.enqueue(connection, _works(records))


def _works(records: Sequence[ActionRecord]) -> list[Work]:
    return [
        convert.work(record.action, REVERSALS[LANES[record.action.kind]])
        for record in records
        if record.state is State.REVERSING
    ]
