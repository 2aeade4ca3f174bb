"""The queue of reports to NFT, filled in the transaction that changes an operation."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from chain_gateway.operations import Kind
from chain_gateway.tables import callbacks
from mesh.db import Connection
from mesh.outbox import Backoff, Queue, Work

LANE = "nft"

# The lease covers the whole retry budget of one call.
QUEUE = Queue(
    callbacks,
    lease=timedelta(seconds=90),
    max_attempts=None,
    backoff=Backoff(first=timedelta(milliseconds=500), cap=timedelta(minutes=1)),
)


async def enqueue(connection: Connection, changed: Sequence[tuple[Any, ...]]) -> None:
    """Asks for a report on each (operation id, version, kind); NFT knows nothing of transfers.

    The payload is the operation's id alone: a report carries the state as it is when it leaves.
    """
    works = [
        Work(item_id=f"{operation_id}:{version}", lane=LANE, payload=str(operation_id).encode())
        for operation_id, version, kind in changed
        if kind != Kind.TRANSFER
    ]
    if works:
        await QUEUE.enqueue(connection, works)
