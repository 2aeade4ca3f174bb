"""The outbox of what follows from changes of the record.

Mints are on their way to the Gateway, each kind in a lane of its own; and instances whose items may
have to follow a change of level are to be looked at.
"""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta

from mesh.clock import new_id
from mesh.db import Connection
from mesh.outbox import Backoff, Queue, Work
from nft_svc.audit import AuditEntry, Origin
from nft_svc.convert_orders import order
from nft_svc.mints import Change, Mint, MintKind, MintState, cancel
from nft_svc.store import audit, mints
from nft_svc.tables import submissions

LANES = {MintKind.MINT: "mint", MintKind.UPDATE: "update", MintKind.REVOKE: "revoke"}
UPGRADES = "upgrade"
# Longer than the whole retry budget of one call, so that no other replica repeats it meanwhile;
# what a crash leaves behind waits so long.
LEASE = timedelta(seconds=30)


def submission_queue() -> Queue:
    """The queue; transient failures are retried for ever."""
    return Queue(
        submissions,
        lease=LEASE,
        max_attempts=None,
        backoff=Backoff(first=timedelta(seconds=1), cap=timedelta(minutes=1)),
    )


async def queue_mints(
    connection: Connection, queue: Queue, queued: Sequence[tuple[Mint, Origin]]
) -> None:
    """Stores new mints with their orders, each in the trace of what asked for it.

    The caller adds them to the feed, as the last statement of its transaction.
    """
    if not queued:
        return
    await mints.insert(connection, [mint for mint, _ in queued])
    await audit.write(connection, [_entry(*pair) for pair in queued])
    await queue.enqueue(connection, [_work(mint, origin.traceparent) for mint, origin in queued])


async def withdraw(
    connection: Connection, queue: Queue, mint: Mint, now: datetime, origin: Origin
) -> Change | None:
    """Cancels a locked mint that nobody tried to hand over; None if somebody may have.

    The caller adds the change to the feed, as the last statement of its transaction.
    """
    reported = mint.operation_id is not None or mint.state is not MintState.QUEUED
    if reported or not await queue.withdraw(connection, [mint.mint_id]):
        return None
    change = cancel(mint, now)
    await mints.update(connection, [change.mint])
    await audit.write(connection, [_cancellation(change, origin)])
    if mint.outdated:
        await ask_for_upgrades(connection, queue, [mint.nft_id], origin.traceparent)
    return change


async def ask_for_upgrades(
    connection: Connection, queue: Queue, nft_ids: Collection[str], traceparent: str | None
) -> None:
    """Has instances looked at whose level and items may differ.

    Each asks anew, also while an earlier look is being taken: that one may have seen less.
    """
    works = [_look(nft_id, traceparent) for nft_id in nft_ids]
    if works:
        await queue.enqueue(connection, works)


async def ask_to_call_off(
    connection: Connection, queue: Queue, mint: Mint, traceparent: str | None
) -> None:
    """Has a mint called off whose instance has no level left, and the instance looked at again.

    It is asked for like a look, so that neither is lost with the process: until the mint is off,
    the level may be back.
    """
    await queue.enqueue(connection, [_look(f"{mint.nft_id}/{mint.mint_id}", traceparent)])


def _look(target: str, traceparent: str | None) -> Work:
    return Work(f"{target}/{new_id()}", UPGRADES, target.encode(), traceparent=traceparent)


def _work(mint: Mint, traceparent: str | None) -> Work:
    """The order, ready to send."""
    payload = order(mint).SerializeToString()
    return Work(mint.mint_id, LANES[mint.kind], payload, traceparent=traceparent)


def _entry(mint: Mint, origin: Origin) -> AuditEntry:
    after = {"state": mint.state, "nft_id": mint.nft_id, "kind": mint.kind}
    if mint.item_mint_id:
        after["item_mint_id"] = mint.item_mint_id
    if mint.retry_of:
        after["retry_of"] = mint.retry_of
    return AuditEntry(
        origin=origin,
        action="mint.queue",
        subject=f"mint/{mint.mint_id}",
        user_id=mint.user_id,
        before=None,
        after=after,
        nft_id=mint.nft_id,
    )


def _cancellation(change: Change, origin: Origin) -> AuditEntry:
    mint = change.mint
    return AuditEntry(
        origin=origin,
        action="mint.cancel",
        subject=f"mint/{mint.mint_id}",
        user_id=mint.user_id,
        before={"state": change.previous},
        after={"state": mint.state},
        nft_id=mint.nft_id,
    )
