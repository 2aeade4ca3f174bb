"""The outbox of mints on their way to the Gateway: whoever queues a mint puts it in here."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from mesh.db import Connection
from mesh.outbox import Backoff, Queue, Work
from nft_svc import convert
from nft_svc.audit import AuditEntry, Origin
from nft_svc.errors import MintHandedOver
from nft_svc.mints import Change, Mint, cancel
from nft_svc.store import audit, mints
from nft_svc.tables import submissions

LANE = "mint"
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


async def call_off(
    connection: Connection, queue: Queue, mint: Mint, now: datetime, origin: Origin
) -> Change:
    """Cancels a locked mint that nobody tried to hand over.

    Raises `MintEnded` or `MintHandedOver`, and then has changed nothing. The caller adds the change
    to the feed, as the last statement of its transaction.
    """
    change = cancel(mint, now)
    if not await queue.withdraw(connection, [mint.mint_id]):
        raise MintHandedOver(field="mint_id", mint_id=mint.mint_id, state=mint.state)
    await mints.update(connection, [change.mint])
    await audit.write(connection, [_cancellation(change, origin)])
    return change


def _work(mint: Mint, traceparent: str | None) -> Work:
    """The order, ready to send."""
    order = convert.mint_order(mint.content, mint.mint_id, mint.user_id)
    return Work(mint.mint_id, LANE, order.SerializeToString(), traceparent=traceparent)


def _entry(mint: Mint, origin: Origin) -> AuditEntry:
    after = {"state": mint.state, "nft_id": mint.nft_id}
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
