"""The rows a reward touches: progress first, then instances."""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from psycopg.types.json import Jsonb

from mesh.db import Connection, driver
from nft_svc.accrual import Holder, Instance, Standing
from nft_svc.progress import Progress

_INSERT_ZERO_ROWS = """
INSERT INTO nft_progress (user_id, nft_type) SELECT * FROM unnest(%b::text[], %b::text[])
ON CONFLICT DO NOTHING
"""
_LOCK = """
SELECT now(), p.user_id, p.nft_type, p.counters, p.level, p.grants, p.nft_id::text
FROM unnest(%b::text[], %b::text[]) WITH ORDINALITY AS k (user_id, nft_type, n)
JOIN nft_progress AS p USING (user_id, nft_type)
ORDER BY k.n FOR NO KEY UPDATE OF p
"""
_UPDATE_PROGRESS = """
UPDATE nft_progress AS p
SET counters = c.counters, level = c.level, grants = c.grants, nft_id = c.nft_id
FROM json_to_recordset(%b::json)
    AS c (user_id text, nft_type text, counters jsonb, level int, grants int, nft_id uuid)
WHERE p.user_id = c.user_id AND p.nft_type = c.nft_type
"""
_CREATE_INSTANCES = """
INSERT INTO nft_instances
    (nft_id, user_id, nft_type, level, metadata, create_time, update_time)
SELECT c.*, now(), now()
FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::int[], %b::jsonb[]) AS c
"""
_MOVE_INSTANCES = """
UPDATE nft_instances AS i SET level = c.level, metadata = c.metadata, update_time = now()
FROM unnest(%b::uuid[], %b::int[], %b::jsonb[]) AS c (nft_id, level, metadata)
WHERE i.nft_id = c.nft_id
"""


async def lock_progress(
    connection: Connection, holders: Collection[Holder]
) -> tuple[datetime, dict[Holder, Standing]]:
    """Locks each holder's progress, an empty one if it had none, and returns it with the time.

    Name at least one holder.
    Rows are inserted and locked in one order, so that concurrent batches wait for each other
    instead of deadlocking. Whether an instance has a mint is not known from here.
    """
    ordered = sorted(holders)
    keys = [[user_id for user_id, _ in ordered], [nft_type for _, nft_type in ordered]]
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_INSERT_ZERO_ROWS, keys)
        await cursor.execute(_LOCK, keys)
        rows = await cursor.fetchall()
    standings = {
        (user_id, nft_type): Standing(Progress(counters, level, grants), nft_id)
        for _, user_id, nft_type, counters, level, grants, nft_id in rows
    }
    return rows[0][0], standings


async def holder(connection: Connection, nft_id: str) -> Holder | None:
    """Whose an instance is, and of which type; None if there is none of that id."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(
            "SELECT user_id, nft_type FROM nft_instances WHERE nft_id = %s::uuid", [nft_id]
        )
        row = await cursor.fetchone()
    return None if row is None else (row[0], row[1])


async def write_progress(connection: Connection, changed: Mapping[Holder, Standing]) -> None:
    """Writes the progress of holders that `lock_progress` locked."""
    rows = [
        {
            "user_id": user_id,
            "nft_type": nft_type,
            "counters": standing.progress.counters,
            "level": standing.progress.level,
            "grants": standing.progress.grants,
            "nft_id": standing.nft_id,
        }
        for (user_id, nft_type), standing in changed.items()
    ]
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_UPDATE_PROGRESS, [json.dumps(rows)])


async def create_instances(connection: Connection, instances: Sequence[Instance]) -> None:
    """Adds instances at their level, with its metadata."""
    if not instances:
        return
    columns = [
        [instance.nft_id for instance in instances],
        [instance.user_id for instance in instances],
        [instance.nft_type.code for instance in instances],
        *_level_columns(instances),
    ]
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_CREATE_INSTANCES, columns)


async def move_instances(connection: Connection, instances: Sequence[Instance]) -> None:
    """Brings instances to their level and its metadata."""
    if not instances:
        return
    columns = [[instance.nft_id for instance in instances], *_level_columns(instances)]
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_MOVE_INSTANCES, columns)


def _level_columns(instances: Sequence[Instance]) -> tuple[list[int], list[Jsonb]]:
    levels = [instance.level for instance in instances]
    metadata = [
        Jsonb(instance.nft_type.rule(instance.level).metadata if instance.level else {})
        for instance in instances
    ]
    return levels, metadata
