"""The audit log; the service's database user can add to it and read it, nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg.types.json import Jsonb

from mesh.db import Connection, driver
from nft_svc.audit import AuditEntry

_INSERT = """
INSERT INTO nft_audit_log
    (actor, action, subject, user_id, before, after, reference, request_id, trace_id,
     nft_id)
SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::jsonb[], %b::jsonb[],
                     %b::text[], %b::text[], %b::text[], %b::uuid[])
"""


async def write(connection: Connection, entries: Sequence[AuditEntry]) -> None:
    """Adds lines, in order."""
    if not entries:
        return
    columns = [
        [entry.origin.actor for entry in entries],
        [entry.action for entry in entries],
        [entry.subject for entry in entries],
        [entry.user_id for entry in entries],
        [_json(entry.before) for entry in entries],
        [_json(entry.after) for entry in entries],
        [entry.reference for entry in entries],
        [entry.origin.request_id for entry in entries],
        [entry.origin.trace_id for entry in entries],
        [entry.nft_id for entry in entries],
    ]
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_INSERT, columns)


def _json(value: Mapping[str, Any] | None) -> Jsonb | None:
    return None if value is None else Jsonb(value)
