"""What the read RPCs show."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, select, true, tuple_

from mesh.db import Connection
from nft_svc.mints import Mint, MintState
from nft_svc.progress import Progress
from nft_svc.store.mints import mint_from
from nft_svc.tables import audit_log as audit_rows
from nft_svc.tables import instances, mint_queue
from nft_svc.tables import progress as progress_rows

# Mint ids grow with time, so the greatest is the latest.
_latest = (
    select(mint_queue.c.mint_id, mint_queue.c.state.label("mint_state"))
    .where(mint_queue.c.nft_id == instances.c.nft_id, mint_queue.c.kind == "MINT")
    .order_by(mint_queue.c.mint_id.desc())
    .limit(1)
    .lateral("latest")
)
_nfts = select(instances, _latest.c.mint_id, _latest.c.mint_state).select_from(
    instances.outerjoin(_latest, true())
)


async def nft(connection: Connection, nft_id: str) -> RowMapping | None:
    """One instance with its latest mint."""
    found = await _rows(connection, _nfts.where(instances.c.nft_id == nft_id))
    return found[0] if found else None


async def nfts(
    connection: Connection, user_id: str, nft_type: str, after: str | None, limit: int
) -> Sequence[RowMapping]:
    """Instances behind the id `after`, by id; an empty filter lets all pass."""
    wanted: list[ColumnElement[bool]] = []
    if user_id:
        wanted.append(instances.c.user_id == user_id)
    if nft_type:
        wanted.append(instances.c.nft_type == nft_type)
    if after:
        wanted.append(instances.c.nft_id > after)
    query = _nfts.where(*wanted).order_by(instances.c.nft_id).limit(limit)
    return await _rows(connection, query)


async def progress(connection: Connection, user_id: str, nft_type: str) -> Progress:
    """A user's progress; all zero if there is none."""
    query = select(progress_rows).where(
        progress_rows.c.user_id == user_id, progress_rows.c.nft_type == nft_type
    )
    found = await _rows(connection, query)
    return progress_from(found[0]) if found else Progress()


def progress_from(row: RowMapping) -> Progress:
    """Progress out of a row."""
    return Progress(row["counters"], row["level"], row["grants"])


async def progress_page(
    connection: Connection, user_id: str, nft_type: str, after: tuple[str, str] | None, limit: int
) -> Sequence[RowMapping]:
    """Progress behind a user and type, by both; an empty filter lets all pass."""
    columns = progress_rows.c
    wanted: list[ColumnElement[bool]] = []
    if user_id:
        wanted.append(columns.user_id == user_id)
    if nft_type:
        wanted.append(columns.nft_type == nft_type)
    if after:
        wanted.append(tuple_(columns.user_id, columns.nft_type) > tuple_(*after))
    query = select(progress_rows).where(*wanted).order_by(columns.user_id, columns.nft_type)
    return await _rows(connection, query.limit(limit))


async def mint(connection: Connection, mint_id: str) -> Mint | None:
    """One mint."""
    found = await _rows(connection, select(mint_queue).where(mint_queue.c.mint_id == mint_id))
    return mint_from(found[0]) if found else None


async def mints(
    connection: Connection, user_id: str, state: MintState | None, after: str | None, limit: int
) -> list[Mint]:
    """Mints behind the id `after`, by id; an empty filter lets all pass."""
    wanted: list[ColumnElement[bool]] = []
    if user_id:
        wanted.append(mint_queue.c.user_id == user_id)
    if state:
        wanted.append(mint_queue.c.state == state.value)
    if after:
        wanted.append(mint_queue.c.mint_id > after)
    query = select(mint_queue).where(*wanted).order_by(mint_queue.c.mint_id).limit(limit)
    return [mint_from(row) for row in await _rows(connection, query)]


async def audit_log(
    connection: Connection,
    user_id: str,
    nft_id: str,
    action: str,
    before: int | None,
    limit: int,
) -> Sequence[RowMapping]:
    """Lines of the audit log before number `before`, the newest first; an empty filter lets all
    pass."""
    columns = audit_rows.c
    wanted: list[ColumnElement[bool]] = []
    if user_id:
        wanted.append(columns.user_id == user_id)
    if nft_id:
        wanted.append(columns.nft_id == nft_id)
    if action:
        wanted.append(columns.action == action)
    if before is not None:
        wanted.append(columns.entry_id < before)
    query = select(audit_rows).where(*wanted).order_by(columns.entry_id.desc())
    return await _rows(connection, query.limit(limit))


async def _rows(connection: Connection, query: Select[Any]) -> Sequence[RowMapping]:
    rows: Sequence[RowMapping] = (await connection.execute(query)).mappings().all()
    return rows
