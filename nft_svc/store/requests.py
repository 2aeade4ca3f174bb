"""Requests remembered, one at a time."""

from mesh.db import Connection
from mesh.errors import RequestIdReused
from mesh.idempotency import Key, recall
from nft_svc.tables import idempotency_keys


async def recall_one(connection: Connection, key: Key) -> bytes | None:
    """The first answer to a request, or None if it is new; raises `RequestIdReused`."""
    known = (await recall(connection, idempotency_keys, [key])).get(key)
    if isinstance(known, RequestIdReused):
        raise known
    return known
