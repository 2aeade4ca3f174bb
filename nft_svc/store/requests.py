"""Requests remembered."""

from mesh.db import Connection
from mesh.errors import RequestIdReused
from mesh.idempotency import Key, recall
from nft_svc.tables import idempotency_keys


async def recall_one(connection: Connection, key: Key) -> bytes | None:
    """The first answer to a request, or None if it is new; raises `RequestIdReused`."""
    return (await recall_together(connection, key))[0]


async def recall_together(connection: Connection, *keys: Key) -> list[bytes | None]:
    """Like `recall_one` for several requests as they were at one moment."""
    known = await recall(connection, idempotency_keys, keys)
    answers: list[bytes | None] = []
    for key in keys:
        answer = known.get(key)
        if isinstance(answer, RequestIdReused):
            raise answer
        answers.append(answer)
    return answers
