"""Badge types and their level rules."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import aggregate_order_by

from mesh.db import Connection
from nft_svc.definitions import (
    LevelRule,
    NftType,
    OnchainPolicy,
    TokenStandard,
    TypeState,
    UpgradePolicy,
)
from nft_svc.progress import Progress
from nft_svc.tables import audit_log, catalog, level_rules, types
from nft_svc.tables import progress as progress_rows

_rule = level_rules.c
_fields = func.jsonb_build_array(
    _rule.level, _rule.thresholds, _rule.metadata, _rule.auto_mint_onchain
)
_levels = (
    select(func.jsonb_agg(aggregate_order_by(_fields, _rule.level)))
    .where(_rule.nft_type == types.c.code)
    .scalar_subquery()
    .label("levels")
)


async def version(connection: Connection) -> int:
    """The catalogue's version, which rises with every change of any type."""
    return int((await connection.execute(select(catalog.c.version))).scalar_one())


async def load(connection: Connection, codes: Sequence[str] | None = None) -> dict[str, NftType]:
    """Types by code, in that order: those of `codes`, or all."""
    # One statement, so that a type comes with the levels of the same version.
    chosen = select(types, _levels).order_by(types.c.code)
    if codes is not None:
        chosen = chosen.where(types.c.code.in_(codes))
    found = (await connection.execute(chosen)).mappings()
    return {row["code"]: _type(row) for row in found}


async def list_codes(connection: Connection, after: str | None, limit: int) -> list[str]:
    """Codes behind `after`, in order."""
    query = select(types.c.code).order_by(types.c.code).limit(limit)
    if after is not None:
        query = query.where(types.c.code > after)
    return list((await connection.execute(query)).scalars())


async def versions(
    connection: Connection, code: str, before: int | None, limit: int
) -> Sequence[RowMapping]:
    """What the audit log holds of a type's versions before that line, the newest first.

    The log is where they stay: it only grows, and has every version since the first.
    """
    wanted = [audit_log.c.user_id.is_(None), audit_log.c.subject == f"nft_type/{code}"]
    if before is not None:
        wanted.append(audit_log.c.entry_id < before)
    query = (
        select(audit_log.c.entry_id, audit_log.c.after, audit_log.c.actor, audit_log.c.time)
        .where(*wanted)
        .order_by(audit_log.c.entry_id.desc())
        .limit(limit)
    )
    return (await connection.execute(query)).mappings().all()


async def progress(
    connection: Connection, code: str, after: str, limit: int
) -> list[tuple[str, str | None, Progress]]:
    """Progress towards a type behind the user `after`, by user, with the instance's id."""
    columns = progress_rows.c
    query = (
        select(columns.user_id, columns.nft_id, columns.counters, columns.level, columns.grants)
        .where(columns.nft_type == code, columns.user_id > after)
        .order_by(columns.user_id)
        .limit(limit)
    )
    return [
        (user_id, nft_id, Progress(counters, level, grants))
        for user_id, nft_id, counters, level, grants in await connection.execute(query)
    ]


async def lock(connection: Connection) -> None:
    """Lets one change of the catalogue happen at a time, and gives it a new version."""
    await connection.execute(update(catalog).values(version=catalog.c.version + 1))


async def create(connection: Connection, nft_type: NftType) -> None:
    """Adds a type whose code is free."""
    await connection.execute(insert(types).values(code=nft_type.code, **_columns(nft_type)))
    await connection.execute(insert(level_rules), _rules(nft_type))


async def replace(connection: Connection, nft_type: NftType) -> None:
    """Puts a version of a type in the place of the one before."""
    chosen = update(types).where(types.c.code == nft_type.code)
    await connection.execute(chosen.values(**_columns(nft_type)))
    await connection.execute(delete(level_rules).where(level_rules.c.nft_type == nft_type.code))
    await connection.execute(insert(level_rules), _rules(nft_type))


def _columns(nft_type: NftType) -> dict[str, Any]:
    return {
        "version": nft_type.version,
        "state": nft_type.state.value,
        "display_name": nft_type.display_name,
        "description": nft_type.description,
        "counters": list(nft_type.counters),
        "metadata_schema": nft_type.metadata_schema,
        "image": nft_type.image,
        "onchain_policy": nft_type.onchain_policy.value,
        "token_standard": nft_type.token_standard.value,
        "item_uri": nft_type.item_uri,
        "attributes": nft_type.attributes,
        "upgrade_policy": nft_type.upgrade_policy.value,
    }


def _rules(nft_type: NftType) -> list[dict[str, Any]]:
    return [
        {
            "nft_type": nft_type.code,
            "level": rule.level,
            "thresholds": rule.thresholds,
            "metadata": rule.metadata,
            "auto_mint_onchain": rule.auto_mint_onchain,
        }
        for rule in nft_type.levels
    ]


def _type(row: RowMapping) -> NftType:
    return NftType(
        code=row["code"],
        display_name=row["display_name"],
        description=row["description"],
        counters=tuple(row["counters"]),
        metadata_schema=row["metadata_schema"],
        image=row["image"],
        onchain_policy=OnchainPolicy(row["onchain_policy"]),
        token_standard=TokenStandard(row["token_standard"]),
        levels=tuple(LevelRule(*rule) for rule in row["levels"]),
        version=row["version"],
        state=TypeState(row["state"]),
        item_uri=row["item_uri"],
        attributes=tuple((trait, value) for trait, value in row["attributes"]),
        upgrade_policy=UpgradePolicy(row["upgrade_policy"]),
    )
