"""What operators do with actions: send failed ones again, take back those that were never sent."""

from collections.abc import Awaitable, Callable

from go2asia.connect.v1 import reward_actions_pb2

from connect_svc import convert
from connect_svc.errors import ActionNotFound, ActionStateForbidden
from connect_svc.lanes import QUEUE
from connect_svc.store import ActionStore, LimitStore
from connect_svc.tables import idempotency_keys
from mesh.db import Connection, Database
from mesh.idempotency import Key, recall, remember

MAX_RETRIED = 1_000

Change = Callable[[Connection], Awaitable[bool]]
RewardAction = reward_actions_pb2.RewardAction
Retried = reward_actions_pb2.RetryRewardActionsResponse


async def retry_action(database: Database, key: Key, action_id: str) -> RewardAction:
    """Sends a failed action, or a failed reversal, again.

    Raises `ActionNotFound` or `ActionStateForbidden`.
    """

    async def reopened(connection: Connection) -> bool:
        ids = await ActionStore(connection).reopen([action_id])
        await QUEUE.revive(connection, ids)
        return bool(ids)

    wanted = "only a failed action or reversal can be retried"
    return await database.run(lambda c: _change(c, key, action_id, reopened, wanted))


async def cancel_action(database: Database, key: Key, action_id: str) -> RewardAction:
    """Takes back an action that was never claimed, and counts it out of its rule's limits.

    Raises `ActionNotFound` or `ActionStateForbidden`.
    """

    async def cancelled(connection: Connection) -> bool:
        event_id = await ActionStore(connection).cancel(action_id)
        if event_id is None:
            return False
        await LimitStore(connection).refund(event_id, [action_id])
        return True

    wanted = "only a pending action that no dispatcher ever claimed can be cancelled"
    return await database.run(lambda c: _change(c, key, action_id, cancelled, wanted))


async def retry_actions(
    database: Database, key: Key, rule_id: str, recipient_user_id: str
) -> Retried:
    """Sends failed actions again: of one rule, for one user, where these are given."""

    async def work(connection: Connection) -> Retried:
        if (known := await _recall(connection, key)) is not None:
            return Retried.FromString(known)
        store = ActionStore(connection)
        # One more tells whether there are further ones.
        found = await store.lock_failed(rule_id, recipient_user_id, MAX_RETRIED + 1)
        reopened = await store.reopen(found[:MAX_RETRIED])
        await QUEUE.revive(connection, reopened)
        answer = Retried(retried=len(reopened), more=len(found) > MAX_RETRIED)
        await remember(connection, idempotency_keys, [(key, answer.SerializeToString())])
        return answer

    return await database.run(work)


async def _change(
    connection: Connection, key: Key, action_id: str, change: Change, wanted: str
) -> RewardAction:
    known = await _recall(connection, key)
    changed = known is None and await change(connection)
    if known is None and not changed:
        # This very request may have done it meanwhile, while the change waited for its lock.
        known = await _recall(connection, key)
    if known is not None:
        return RewardAction.FromString(known)
    record = await ActionStore(connection).get(action_id)
    if record is None:
        raise ActionNotFound(action_id)
    if not changed:
        raise ActionStateForbidden(action_id=action_id, state=record.state, wanted=wanted)
    answer = convert.action_record(record)
    await remember(connection, idempotency_keys, [(key, answer.SerializeToString())])
    return answer


async def _recall(connection: Connection, key: Key) -> bytes | None:
    answer = (await recall(connection, idempotency_keys, [key])).get(key)
    if isinstance(answer, Exception):
        raise answer
    return answer
