"""Runs of reconciliation, what they found, and what they compare."""

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Any, LiteralString

from psycopg.rows import dict_row
from sqlalchemy import ColumnElement, RowMapping, func, insert, select, update
from sqlalchemy.dialects import postgresql

from mesh.db import Connection, RetryTransaction, driver
from nft_svc.mints import STEPS, MintState
from nft_svc.reconcile import DiscrepancyKind, Finding, Record, RepairState
from nft_svc.steps import Phase, Repaired, Step
from nft_svc.store.mints import COLUMNS, content_from, mint_from
from nft_svc.tables import discrepancies, reconciliation_steps, reconciliations

_UNDER_WAY = [state.value for state in MintState if STEPS[state]]
# What an item should say is what its mint or the last change that ended well wrote on it.
_RECORD: LiteralString = f"""
{COLUMNS}, coalesce(said.content, m.content) AS said,
m.update_time > now() - %(grace)s OR coalesce(changes.moving, false) AS moving,
coalesce(changes.revoked, false) AS revoked
"""
_CHANGES: LiteralString = """
LEFT JOIN LATERAL (
    SELECT u.content FROM nft_mint_queue AS u
    WHERE u.nft_id = m.nft_id AND u.item_mint_id = m.mint_id
        AND u.kind = 'UPDATE' AND u.state = 'FINALIZED'
    ORDER BY u.create_time DESC, u.mint_id DESC LIMIT 1
) AS said ON true
LEFT JOIN LATERAL (
    SELECT bool_or(c.state = ANY (%(under_way)b::text[]) OR c.update_time > now() - %(grace)s)
            AS moving,
        bool_or(c.kind = 'REVOKE' AND c.state = 'FINALIZED') AS revoked
    FROM nft_mint_queue AS c WHERE c.nft_id = m.nft_id AND c.item_mint_id = m.mint_id
) AS changes ON true
"""
_RECORDS: LiteralString = f"""
SELECT {_RECORD} FROM nft_mint_queue AS m {_CHANGES}
WHERE m.kind = 'MINT' AND (m.mint_id = ANY (%(named)b::uuid[])
    OR m.collection_address = %(collection)s AND m.item_index >= %(first)s::numeric
        AND (%(last)s::numeric IS NULL OR m.item_index <= %(last)s))
"""
_UNCOMPARED: LiteralString = f"""
SELECT {_RECORD}, EXISTS (
        SELECT FROM nft_submissions AS s
        WHERE s.item_id = m.mint_id::text AND s.dead_reason IS NULL
    ) AS queued
FROM nft_mint_queue AS m {_CHANGES}
WHERE (%(after)s = '' OR m.mint_id > %(after)s::uuid) AND (m.state = ANY (%(under_way)b::text[])
    OR m.kind = 'MINT' AND m.state = 'FINALIZED'
        AND (m.collection_address = ANY (%(compared)b::text[])) IS NOT TRUE)
ORDER BY m.mint_id LIMIT %(limit)s
"""


async def start(connection: Connection, reconciliation_id: str, report_only: bool) -> str | None:
    """Adds a run; returns the id of the one at work instead, and adds none, if there is one.

    Raises `RetryTransaction` if that one has just ended.
    """
    added = (
        postgresql.insert(reconciliations)
        .values(reconciliation_id=reconciliation_id, report_only=report_only)
        .on_conflict_do_nothing()
        .returning(reconciliations.c.reconciliation_id)
    )
    if (await connection.execute(added)).scalar():
        return None
    running = select(reconciliations.c.reconciliation_id).where(
        reconciliations.c.state == "RUNNING"
    )
    found: str | None = (await connection.execute(running)).scalar()
    if found is None:
        raise RetryTransaction
    return found


async def run(connection: Connection, reconciliation_id: str) -> RowMapping | None:
    """A run, the latest if no id is given, with the last error of its present step."""
    failed = (
        select(reconciliation_steps.c.last_error)
        .where(
            reconciliation_steps.c.item_id.startswith(
                reconciliations.c.reconciliation_id.cast(postgresql.TEXT) + "/"
            )
        )
        .limit(1)
        .scalar_subquery()
    )
    query = select(reconciliations, failed.label("last_error"))
    if reconciliation_id:
        query = query.where(reconciliations.c.reconciliation_id == reconciliation_id)
    else:
        query = query.order_by(reconciliations.c.reconciliation_id.desc()).limit(1)
    found: RowMapping | None = (await connection.execute(query)).mappings().first()
    return found


async def counts(
    connection: Connection, reconciliation_id: str
) -> list[tuple[DiscrepancyKind, RepairState, int]]:
    """How many discrepancies of a run are of each kind and state of repair."""
    kind, repair = discrepancies.c.kind, discrepancies.c.repair
    query = (
        select(kind, repair, func.count())
        .where(discrepancies.c.reconciliation_id == reconciliation_id)
        .group_by(kind, repair)
        .order_by(kind, repair)
    )
    return [
        (DiscrepancyKind(kind), RepairState(repair), number)
        for kind, repair, number in await connection.execute(query)
    ]


async def page(
    connection: Connection,
    reconciliation_id: str,
    after: int,
    limit: int,
    *,
    kind: DiscrepancyKind | None = None,
    repair: RepairState | None = None,
) -> Sequence[RowMapping]:
    """Discrepancies of a run behind the number `after`; a filter of None lets all pass."""
    columns = discrepancies.c
    wanted: list[ColumnElement[bool]] = [
        columns.reconciliation_id == reconciliation_id,
        columns.discrepancy_id > after,
    ]
    if kind:
        wanted.append(columns.kind == kind.value)
    if repair:
        wanted.append(columns.repair == repair.value)
    query = select(discrepancies).where(*wanted).order_by(columns.discrepancy_id).limit(limit)
    found: Sequence[RowMapping] = (await connection.execute(query)).mappings().all()
    return found


async def records(
    connection: Connection,
    named: Collection[str],
    collection: str,
    first: int,
    last: int | None,
    grace: timedelta,
) -> list[Record]:
    """Mints by id, and those of a collection from index `first` to `last`, which may be open."""
    values = {
        "named": list(named), "collection": collection, "first": first, "last": last,
        "grace": grace, "under_way": _UNDER_WAY,
    }  # fmt: skip
    return [_record(row) for row in await _rows(connection, _RECORDS, values)]


async def uncompared(
    connection: Connection, compared: Collection[str], after: str, limit: int, grace: timedelta
) -> list[tuple[Record, bool]]:
    """Mints behind the id `after` that a comparison of the collections does not settle.

    These are the ones under way, and the finalised ones of other collections than those `compared`;
    each with whether it waits in our queue.
    """
    values = {
        "compared": list(compared), "after": after, "limit": limit, "grace": grace,
        "under_way": _UNDER_WAY,
    }  # fmt: skip
    rows = await _rows(connection, _UNCOMPARED, values)
    return [(_record(row), row["queued"]) for row in rows]


async def add(connection: Connection, step: Step, findings: Sequence[Finding]) -> None:
    """Records what a step found; nothing is to be repaired in a run that only reports."""
    rows = [
        {
            "reconciliation_id": step.reconciliation_id,
            "kind": finding.kind.value,
            "item_address": finding.item_address,
            "mint_id": finding.mint_id,
            "nft_id": finding.mint and finding.mint.nft_id,
            "user_id": finding.mint and finding.mint.user_id,
            "expected": finding.expected,
            "found": finding.found,
            "repair": (RepairState.NONE if step.report_only else finding.repair).value,
        }
        for finding in findings
    ]
    if rows:
        await connection.execute(insert(discrepancies), rows)


async def is_pending(connection: Connection, discrepancy_id: int) -> bool:
    """Whether a discrepancy is still to be repaired."""
    query = select(discrepancies.c.repair).where(discrepancies.c.discrepancy_id == discrepancy_id)
    return bool((await connection.execute(query)).scalar() == RepairState.PENDING)


async def mark(connection: Connection, repaired: Repaired) -> None:
    """Records what became of a repair; commit it with the repair."""
    chosen = update(discrepancies).where(discrepancies.c.discrepancy_id == repaired.discrepancy_id)
    await connection.execute(
        chosen.values(
            repair=repaired.state.value,
            repair_detail=repaired.detail,
            repair_mint_id=repaired.mint_id,
        )
    )


async def advance(
    connection: Connection, reconciliation_id: str, phase: Phase, items: int, mints: int
) -> None:
    """Counts what a step looked at, and says what the next one is about."""
    columns = reconciliations.c
    await _update_run(
        connection,
        reconciliation_id,
        phase=phase.value,
        items_examined=columns.items_examined + items,
        mints_examined=columns.mints_examined + mints,
    )


async def end(connection: Connection, reconciliation_id: str, failure_reason: str) -> None:
    """Ends a run: well, unless a reason says otherwise."""
    await _update_run(
        connection,
        reconciliation_id,
        state="FAILED" if failure_reason else "COMPLETED",
        failure_reason=failure_reason,
        end_time=func.now(),
    )


async def _update_run(connection: Connection, reconciliation_id: str, **values: Any) -> None:
    chosen = update(reconciliations).where(reconciliations.c.reconciliation_id == reconciliation_id)
    await connection.execute(chosen.values(update_time=func.now(), **values))


async def _rows(
    connection: Connection, query: LiteralString, values: dict[str, Any]
) -> list[dict[str, Any]]:
    async with driver(connection).cursor(binary=True, row_factory=dict_row) as cursor:
        await cursor.execute(query, values)
        return await cursor.fetchall()


def _record(row: dict[str, Any]) -> Record:
    return Record(mint_from(row), content_from(row["said"]), row["moving"], row["revoked"])
