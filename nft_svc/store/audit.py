"""The audit log; the service's database user can add to it and read it, nothing else."""

import json
from collections.abc import Sequence

from mesh.db import Connection, driver
from nft_svc.audit import AuditEntry

# One document instead of ten arrays: every reward leaves a line, and arrays are slow to write.
_INSERT = """
INSERT INTO nft_audit_log
    (actor, action, subject, user_id, before, after, reference, request_id, trace_id, nft_id)
SELECT * FROM json_to_recordset(%b::json) AS line
    (actor text, action text, subject text, user_id text, before jsonb, after jsonb,
     reference text, request_id text, trace_id text, nft_id uuid)
"""


async def write(connection: Connection, entries: Sequence[AuditEntry]) -> None:
    """Adds lines, in order."""
    if not entries:
        return
    lines = [
        {
            "actor": entry.origin.actor,
            "action": entry.action,
            "subject": entry.subject,
            "user_id": entry.user_id,
            "before": entry.before,
            "after": entry.after,
            "reference": entry.reference,
            "request_id": entry.origin.request_id,
            "trace_id": entry.origin.trace_id,
            "nft_id": entry.nft_id,
        }
        for entry in entries
    ]
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_INSERT, [json.dumps(lines)])
