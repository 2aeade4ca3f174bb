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
# How a mint m is found by the id that a target names, k.id.
_WATCHED: dict[TargetKind, LiteralString] = {
    TargetKind.MINT: "m.mint_id = k.id::uuid",
    TargetKind.NFT: "m.nft_id = k.id::uuid",
    TargetKind.USER: "m.user_id = k.id",
}
# Only what has nothing younger before it: times are those of the transactions' beginnings, which
# may have committed in another order, and readers rely on the feed having no holes.
_TRIM = """
DELETE FROM nft_feed WHERE position IN (
    SELECT position FROM (
        SELECT position, bool_and(create_time < now() - %s) OVER (ORDER BY position) AS past
        FROM (SELECT position, create_time FROM nft_feed ORDER BY position LIMIT %s) AS oldest
    ) AS oldest WHERE past
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
class Behind:
    """A target's changes behind the position `after`."""

    target: Target
    after: int


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


async def changes_behind(
    connection: Connection, behind: Sequence[Behind], limit: int
) -> list[list[Entry]]:
    """For each its changes, in order, at most `limit`."""
    found: list[list[Entry]] = [[] for _ in behind]
    for kind, numbers in _by_kind([one.target for one in behind]).items():
        async with driver(connection).cursor(binary=True) as cursor:
            await cursor.execute(
                "SELECT k.number, f.*"
                " FROM unnest(%b::int[], %b::text[], %b::bigint[]) AS k (number, id, after)"
                " CROSS JOIN LATERAL ("
                "  SELECT f.mint_id::text, f.nft_id::text, f.user_id, f.change, f.position"
                "  FROM nft_mint_queue AS m JOIN nft_feed AS f USING (mint_id)"
                f" WHERE {_WATCHED[kind]} AND f.position > k.after ORDER BY f.position LIMIT %s"
                " ) AS f ORDER BY f.position",
                [
                    numbers,
                    [behind[number].target.id for number in numbers],
                    [behind[number].after for number in numbers],
                    limit,
                ],
            )
            for number, *columns in await cursor.fetchall():
                found[number].append(Entry(*columns))
    return found


async def snapshots(
    connection: Connection, targets: Sequence[Target], limit: int
) -> list[list[Mint]]:
    """For each target its mints, the newest if there are more than `limit`, by id."""
    found: list[list[Mint]] = [[] for _ in targets]
    for kind, numbers in _by_kind(targets).items():
        async with driver(connection).cursor(binary=True, row_factory=dict_row) as cursor:
            await cursor.execute(
                "SELECT k.number, m.* FROM unnest(%b::int[], %b::text[]) AS k (number, id)"
                f" CROSS JOIN LATERAL (SELECT {COLUMNS} FROM nft_mint_queue AS m"
                f"  WHERE {_WATCHED[kind]} ORDER BY m.mint_id DESC LIMIT %s) AS m"
                " ORDER BY m.mint_id",
                [numbers, [targets[number].id for number in numbers], limit],
            )
            for row in await cursor.fetchall():
                found[row["number"]].append(mint_from(row))
    return found


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


async def owners(connection: Connection, targets: Sequence[Target]) -> list[str | None]:
    """The user whom each mint or instance belongs to; None if there is none of that id."""
    found: list[str | None] = [None] * len(targets)
    for kind, numbers in _by_kind(targets).items():
        table: LiteralString = "nft_mint_queue" if kind is TargetKind.MINT else "nft_instances"
        async with driver(connection).cursor(binary=True) as cursor:
            await cursor.execute(
                "SELECT k.number, m.user_id FROM unnest(%b::int[], %b::text[]) AS k (number, id)"
                f" JOIN {table} AS m ON {_WATCHED[kind]}",
                [numbers, [targets[number].id for number in numbers]],
            )
            for number, user_id in await cursor.fetchall():
                found[number] = user_id
    return found


async def trim(connection: Connection, keep: timedelta, limit: int) -> int:
    """Deletes up to `limit` of the oldest changes, while older than `keep`; returns how many."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_TRIM, [keep, limit])
        return cursor.rowcount


def _by_kind(targets: Sequence[Target]) -> dict[TargetKind, list[int]]:
    """The numbers of the targets of each kind: one query for each."""
    numbers: dict[TargetKind, list[int]] = {}
    for number, target in enumerate(targets):
        numbers.setdefault(target.kind, []).append(number)
    return numbers
