"""The feed: changes of mints, numbered densely in commit order."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import LiteralString

from psycopg.rows import dict_row

from mesh.db import Connection, driver
from nft_svc.mints import Mint
from nft_svc.resume import Target, TargetKind
from nft_svc.store.mints import COLUMNS, mint_from

CHANNEL = "nft_feed"

# The head's row lock is held until commit, so whoever gets the next position also commits next.
_APPEND = """
WITH head AS (
    UPDATE nft_feed_head SET position = position + cardinality(%b::uuid[]) RETURNING position
)
INSERT INTO nft_feed (position, mint_id, nft_id, user_id, change)
SELECT head.position - cardinality(%b::uuid[]) + c.n, c.mint_id, c.nft_id, c.user_id, c.change
FROM head, unnest(%b::uuid[], %b::uuid[], %b::text[], %b::bytea[])
    WITH ORDINALITY AS c (mint_id, nft_id, user_id, change, n)
"""
_COLUMN: dict[TargetKind, LiteralString] = {
    TargetKind.MINT: "m.mint_id = %s::uuid",
    TargetKind.NFT: "m.nft_id = %s::uuid",
    TargetKind.USER: "m.user_id = %s",
}
_TRIM = """
DELETE FROM nft_feed WHERE position IN (
    SELECT position FROM (SELECT position, create_time FROM nft_feed ORDER BY position LIMIT %s)
        AS oldest
    WHERE create_time < now() - %s
)
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """A change as it is stored: `change` is a serialised nft.v1.MintChange."""

    mint_id: str
    nft_id: str
    user_id: str
    change: bytes
    position: int = 0


@dataclass(frozen=True, slots=True)
class Extent:
    """What the feed holds: positions from `oldest` to `head`; `oldest` is head + 1 if none."""

    oldest: int
    head: int


async def append(connection: Connection, entries: Sequence[Entry]) -> None:
    """Adds changes to the feed; the last statement of its transaction, to hold the head briefly."""
    if not entries:
        return
    mint_ids = [entry.mint_id for entry in entries]
    rest = [
        [entry.nft_id for entry in entries],
        [entry.user_id for entry in entries],
        [entry.change for entry in entries],
    ]
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_APPEND, [mint_ids, mint_ids, mint_ids, *rest])


async def read(connection: Connection, after: int, limit: int) -> list[Entry]:
    """Changes behind position `after`, in order."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(
            "SELECT mint_id::text, nft_id::text, user_id, change, position FROM nft_feed"
            " WHERE position > %s ORDER BY position LIMIT %s",
            [after, limit],
        )
        return [Entry(*row) for row in await cursor.fetchall()]


async def read_target(
    connection: Connection, target: Target, after: int, limit: int
) -> list[Entry]:
    """Changes of one target's mints behind position `after`, in order."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(
            "SELECT f.mint_id::text, f.nft_id::text, f.user_id, f.change, f.position"
            " FROM nft_mint_queue AS m JOIN nft_feed AS f USING (mint_id)"
            f" WHERE {_COLUMN[target.kind]} AND f.position > %s ORDER BY f.position LIMIT %s",
            [target.id, after, limit],
        )
        return [Entry(*row) for row in await cursor.fetchall()]


async def snapshot(connection: Connection, target: Target, limit: int) -> list[Mint]:
    """The target's mints, the newest if there are more than `limit`, by id."""
    async with driver(connection).cursor(binary=True, row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {COLUMNS} FROM nft_mint_queue AS m WHERE {_COLUMN[target.kind]}"
            " ORDER BY m.mint_id DESC LIMIT %s",
            [target.id, limit],
        )
        return [mint_from(row) for row in reversed(await cursor.fetchall())]


async def extent(connection: Connection) -> Extent:
    """What the feed holds now."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(
            "SELECT (SELECT min(position) FROM nft_feed), position FROM nft_feed_head"
        )
        row = await cursor.fetchone()
    assert row is not None
    oldest, head = row
    return Extent(head + 1 if oldest is None else oldest, head)


async def epoch(connection: Connection) -> bytes:
    """The key of this feed's resume tokens."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute("SELECT uuid_send(epoch) FROM nft_feed_head")
        row = await cursor.fetchone()
    assert row is not None
    return bytes(row[0])


async def owner(connection: Connection, target: Target) -> str | None:
    """The user whom a mint or an instance belongs to; None if there is none of that id."""
    if target.kind is TargetKind.USER:
        return target.id
    table: LiteralString = "nft_mint_queue" if target.kind is TargetKind.MINT else "nft_instances"
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(
            f"SELECT m.user_id FROM {table} AS m WHERE {_COLUMN[target.kind]}", [target.id]
        )
        row = await cursor.fetchone()
    return None if row is None else row[0]


async def trim(connection: Connection, keep: timedelta, limit: int) -> int:
    """Deletes up to `limit` of the oldest changes, if older than `keep`; returns how many."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_TRIM, [limit, keep])
        return cursor.rowcount
