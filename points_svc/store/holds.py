"""The SQL of holds and of what is due; a cold path, so plain statements."""

from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, func, not_, select, update
from sqlalchemy.dialects.postgresql import insert

from mesh.db import Connection
from points_svc.ledger import AccountKey, Hold, HoldState, Reservation
from points_svc.store import rows
from points_svc.tables import accounts, hold_lots, holds, lots


async def place_hold(connection: Connection, hold: Hold, account_id: int) -> None:
    """Writes a new hold and what it reserves."""
    columns = {
        name: value for name, value in hold._asdict().items() if name not in ("lots", "state")
    }
    await connection.execute(
        insert(holds).values(**columns, state=hold.state.value, account_id=account_id)
    )
    await connection.execute(
        insert(hold_lots),
        [
            {
                "hold_id": hold.hold_id,
                "lot_transaction_id": lot_id[0],
                "lot_ordinal": lot_id[1],
                "amount": amount,
            }
            for lot_id, amount in hold.lots
        ],
    )


async def close_hold(connection: Connection, hold: Hold) -> None:
    """Writes how a hold ended."""
    await connection.execute(
        update(holds)
        .where(holds.c.hold_id == hold.hold_id)
        .values(state=hold.state.value, captured=hold.captured, closed_time=hold.closed_time)
    )


async def hold_by_id(connection: Connection, hold_id: str) -> Hold | None:
    """A hold as it is now; what it reserves and whose it is never changes."""
    found = await _holds(connection, holds.c.hold_id == hold_id)
    return found[0] if found else None


async def due_holds(
    connection: Connection, account_ids: Sequence[int], now: datetime
) -> list[Hold]:
    """The active holds on locked accounts whose time has passed."""
    return await _holds(
        connection,
        rows.among(holds.c.account_id, account_ids)
        & (holds.c.state == HoldState.ACTIVE.value)
        & (holds.c.expire_time <= now),
    )


async def due_accounts(
    connection: Connection, limit: int, besides: Collection[int]
) -> list[tuple[int, AccountKey]]:
    """Accounts, by number, whose holds' or lots' time has passed, `besides` the numbers given.

    Examines up to `limit` such holds and lots, of which one account may have many.
    """
    now = func.statement_timestamp()  # stable, so that the indexes on the times serve
    of_holds = (
        select(holds.c.account_id)
        .where(
            holds.c.state == HoldState.ACTIVE.value,
            holds.c.expire_time <= now,
            not_(rows.among(holds.c.account_id, besides)),
        )
        .limit(limit)
    )
    of_lots = (
        select(lots.c.account_id)
        .where(
            lots.c.open,
            lots.c.expire_time <= now,
            lots.c.remaining > lots.c.held,
            not_(rows.among(lots.c.account_id, besides)),
        )
        .limit(limit)
    )
    due = of_holds.union(of_lots).subquery()
    found = await connection.execute(
        select(accounts.c.account_id, accounts.c.owner, accounts.c.unit).where(
            accounts.c.account_id.in_(select(due))
        )
    )
    return [(number, AccountKey(owner, unit)) for number, owner, unit in found]


async def set_floor(connection: Connection, account_id: int, floor: int) -> None:
    """Writes the floor of a locked account."""
    await connection.execute(
        update(accounts).where(accounts.c.account_id == account_id).values(floor=floor)
    )


async def _holds(connection: Connection, which: ColumnElement[bool]) -> list[Hold]:
    found = (await connection.execute(select(holds).where(which))).all()
    reserved = await _reservations(connection, [row.hold_id for row in found])
    return [rows.hold(row, reserved[row.hold_id]) for row in found]


async def _reservations(
    connection: Connection, hold_ids: Collection[str]
) -> dict[str, list[Reservation]]:
    found: dict[str, list[Reservation]] = {hold_id: [] for hold_id in hold_ids}
    for row in await connection.execute(
        select(hold_lots).where(rows.among(hold_lots.c.hold_id, hold_ids))
    ):
        lot_id = (row.lot_transaction_id, row.lot_ordinal)
        found[row.hold_id].append(Reservation(lot_id, row.amount))
    return found
