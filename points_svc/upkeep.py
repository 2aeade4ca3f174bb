"""What the ledger does by itself: books expiries and seals; in every replica, needing no leader."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Self

from mesh.db import Connection, Database
from mesh.errors import MeshError
from mesh.telemetry import logger
from points_svc.booking import Booking
from points_svc.ledger import MAX_BALANCE, AccountKey
from points_svc.seal import seal_next
from points_svc.store.booking import Store
from points_svc.store.holds import due_accounts

PAUSE_SECONDS = 1.0
ACCOUNTS_AT_ONCE = 100

_log = logger("points.upkeep")


class Upkeep:
    """Runs both duties while its context is open.

    Both only hasten what is decided already: points whose time has passed cannot be spent before
    their expiry is booked, and a seal covers what is committed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._closing = asyncio.Event()

    async def __aenter__(self) -> Self:
        duties = {"expiry": expire_due, "seal": seal_next}
        self._tasks = [
            asyncio.create_task(self._repeat(name, duty), name=f"points {name}")
            for name, duty in duties.items()
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        await asyncio.gather(*self._tasks)

    async def _repeat(self, name: str, duty: Callable[[Database], Awaitable[bool]]) -> None:
        while not self._closing.is_set():
            try:
                if await duty(self._database):
                    continue
            except MeshError as error:
                _log.warning("upkeep.interrupted", duty=name, error=error.message)
            except Exception:
                _log.exception("upkeep.failed", duty=name)
            await self._rest()

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(PAUSE_SECONDS):
                await self._closing.wait()
        except TimeoutError:
            return


async def expire_due(database: Database) -> bool:
    """Settles accounts on which the time of a hold or a lot has passed; True if more may wait."""
    async with database.transaction(read_only=True) as connection:
        due = await due_accounts(connection, ACCOUNTS_AT_ONCE)
    for key in due:
        await database.run(partial(_settle, key))
    return len(due) >= ACCOUNTS_AT_ONCE


async def _settle(key: AccountKey, connection: Connection) -> None:
    # Needing more than there can be brings every lot.
    booking = await Booking.begin(Store(connection), {key}, needs={key: MAX_BALANCE})
    await booking.finish()
