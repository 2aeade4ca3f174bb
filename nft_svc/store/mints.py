"""The mints themselves: queued by rewards, moved by reports, never deleted."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, LiteralString

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from mesh.db import Connection, driver
from nft_svc.definitions import TokenStandard
from nft_svc.metadata import ItemContent
from nft_svc.mints import Location, Mint, MintKind, MintState

COLUMNS: LiteralString = """
m.mint_id::text, m.nft_id::text, m.user_id, m.nft_type, m.state, m.version, m.content,
m.operation_id::text, m.operation_version, m.collection_address, m.item_index, m.item_address,
m.owner_address, m.present_owner_address, m.failure_reason, m.retryable, m.retry_of::text,
m.create_time, m.update_time, m.kind, m.item_mint_id::text, m.token_standard, m.level, m.outdated
"""
# Changes are alive only beside an item that is not revoked yet, so mints alone tell.
_ON_CHAIN = """
SELECT DISTINCT m.nft_id::text FROM nft_mint_queue AS m
WHERE m.nft_id = ANY (%b::uuid[]) AND m.kind = 'MINT' AND m.state NOT IN ('FAILED', 'CANCELLED')
    AND NOT EXISTS (
        SELECT FROM nft_mint_queue AS r
        WHERE r.nft_id = m.nft_id AND r.item_mint_id = m.mint_id AND r.kind = 'REVOKE'
            AND r.state = 'FINALIZED'
    )
"""
_LOCK: LiteralString = f"""
SELECT now() AS now, {COLUMNS} FROM nft_mint_queue AS m
WHERE m.mint_id = ANY (%b::uuid[]) ORDER BY m.mint_id FOR NO KEY UPDATE
"""
_INSERT = """
INSERT INTO nft_mint_queue
    (mint_id, nft_id, user_id, nft_type, state, version, content, retry_of, create_time,
     update_time, kind, item_mint_id, token_standard, level)
SELECT * FROM unnest(%b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::text[], %b::bigint[],
                     %b::jsonb[], %b::uuid[], %b::timestamptz[], %b::timestamptz[],
                     %b::text[], %b::uuid[], %b::text[], %b::int[])
"""
_UPDATE = """
UPDATE nft_mint_queue AS m
SET state = c.state, version = c.version, operation_id = c.operation_id,
    operation_version = c.operation_version, collection_address = c.collection_address,
    item_index = c.item_index, item_address = c.item_address, owner_address = c.owner_address,
    present_owner_address = c.present_owner_address, failure_reason = c.failure_reason,
    retryable = c.retryable, update_time = c.update_time
FROM unnest(%b::uuid[], %b::text[], %b::bigint[], %b::uuid[], %b::bigint[], %b::text[],
            %b::numeric[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bool[],
            %b::timestamptz[])
    AS c (mint_id, state, version, operation_id, operation_version, collection_address,
          item_index, item_address, owner_address, present_owner_address, failure_reason,
          retryable, update_time)
WHERE m.mint_id = c.mint_id
"""


async def on_chain(connection: Connection, nft_ids: Collection[str]) -> set[str]:
    """Those instances that have an item on chain, revoked ones aside, or a mint on its way."""
    if not nft_ids:
        return set()
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_ON_CHAIN, [list(nft_ids)])
        return {nft_id for (nft_id,) in await cursor.fetchall()}


async def history(connection: Connection, nft_id: str, called_off: str | None = None) -> list[Mint]:
    """Mints and changes of an instance in order, without those that failed or were cancelled.

    The mint `called_off` is there also when it was cancelled.
    """
    async with driver(connection).cursor(binary=True, row_factory=dict_row) as cursor:
        await cursor.execute(
            f"SELECT {COLUMNS} FROM nft_mint_queue AS m"
            " WHERE m.nft_id = %s::uuid AND (m.state NOT IN ('FAILED', 'CANCELLED')"
            " OR m.state = 'CANCELLED' AND m.mint_id = %s::uuid)"
            " ORDER BY m.create_time, m.mint_id",
            [nft_id, called_off],
        )
        return [mint_from(row) for row in await cursor.fetchall()]


async def outdate(connection: Connection, mint_id: str) -> None:
    """Notes that another change follows a mint, which `lock` locked, when it ends."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(
            "UPDATE nft_mint_queue SET outdated = true WHERE mint_id = %s::uuid", [mint_id]
        )


async def lock(
    connection: Connection, mint_ids: Collection[str]
) -> tuple[datetime | None, dict[str, Mint]]:
    """Locks mints, in one order, and returns those that exist with the time; None if none does."""
    async with driver(connection).cursor(binary=True, row_factory=dict_row) as cursor:
        await cursor.execute(_LOCK, [list(mint_ids)])
        rows = await cursor.fetchall()
    mints = [mint_from(row) for row in rows]
    return (rows[0]["now"] if rows else None), {mint.mint_id: mint for mint in mints}


async def count(connection: Connection, states: Collection[MintState]) -> dict[MintState, int]:
    """How many mints are in each of `states`; those without any are left out."""
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(
            "SELECT state, count(*) FROM nft_mint_queue WHERE state = ANY (%b::text[])"
            " GROUP BY state",
            [[state.value for state in states]],
        )
        return {MintState(state): number for state, number in await cursor.fetchall()}


async def insert(connection: Connection, mints: Sequence[Mint]) -> None:
    """Adds new mints."""
    columns = [
        [mint.mint_id for mint in mints],
        [mint.nft_id for mint in mints],
        [mint.user_id for mint in mints],
        [mint.nft_type for mint in mints],
        [mint.state.value for mint in mints],
        [mint.version for mint in mints],
        [Jsonb(asdict(mint.content)) for mint in mints],
        [mint.retry_of for mint in mints],
        [mint.create_time for mint in mints],
        [mint.update_time for mint in mints],
        [mint.kind.value for mint in mints],
        [mint.item_mint_id for mint in mints],
        [mint.token_standard.value for mint in mints],
        [mint.level for mint in mints],
    ]
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_INSERT, columns)


async def update(connection: Connection, mints: Sequence[Mint]) -> None:
    """Writes the present state of mints that `lock` locked."""
    places = [mint.location for mint in mints]
    columns = [
        [mint.mint_id for mint in mints],
        [mint.state.value for mint in mints],
        [mint.version for mint in mints],
        [mint.operation_id for mint in mints],
        [mint.operation_version for mint in mints],
        [place and place.collection_address for place in places],
        [place and place.item_index for place in places],
        [place and place.item_address for place in places],
        [place and place.owner_address for place in places],
        [mint.present_owner_address for mint in mints],
        [mint.failure_reason for mint in mints],
        [mint.retryable for mint in mints],
        [mint.update_time for mint in mints],
    ]
    async with driver(connection).cursor(binary=True) as cursor:
        await cursor.execute(_UPDATE, columns)


def mint_from(row: Mapping[Any, Any]) -> Mint:
    """A mint out of a row with `COLUMNS`."""
    location = None
    if row["item_address"] is not None:
        location = Location(
            row["collection_address"],
            int(row["item_index"]),
            row["item_address"],
            row["owner_address"],
        )
    return Mint(
        mint_id=row["mint_id"],
        nft_id=row["nft_id"],
        user_id=row["user_id"],
        nft_type=row["nft_type"],
        content=content_from(row["content"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        state=MintState(row["state"]),
        version=row["version"],
        operation_id=row["operation_id"],
        operation_version=row["operation_version"],
        location=location,
        failure_reason=row["failure_reason"],
        retryable=row["retryable"],
        retry_of=row["retry_of"],
        present_owner_address=row["present_owner_address"],
        kind=MintKind(row["kind"]),
        item_mint_id=row["item_mint_id"],
        token_standard=TokenStandard(row["token_standard"]),
        level=row["level"],
        outdated=row["outdated"],
    )


def content_from(document: Mapping[str, Any]) -> ItemContent:
    """Item content as it is stored."""
    return ItemContent(
        document["name"],
        document["description"],
        document["image"],
        tuple((trait, value) for trait, value in document["attributes"]),
        document.get("uri", ""),
    )
