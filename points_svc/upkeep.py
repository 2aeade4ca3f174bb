"""What the ledger does by itself: books expiries and seals; in every replica, needing no leader."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Self

from mesh.batching import bisect
from mesh.db import Connection, Database
from mesh.errors import MeshError
from mesh.telemetry import logger
from points_svc.booking import Booking
from points_svc.ledger import MAX_BALANCE, AccountKey
from points_svc.seal import seal_next
from points_svc.store.booking import Store
from points_svc.store.holds import due_accounts

PAUSE_SECONDS = 1.0
DUE_AT_ONCE = 100

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
        duties: dict[str, Callable[[], Awaitable[bool]]] = {
            "expiry": Expiry(self._database).settle_due,
            "seal": partial(seal_next, self._database),
        }
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

    async def _repeat(self, name: str, duty: Callable[[], Awaitable[bool]]) -> None:
        while not self._closing.is_set():
            try:
                if await duty():
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


class Expiry:
    """Settles accounts on which the time of a hold or a lot has passed.

    One that cannot be settled keeps none of the others waiting: it is told to the log and tried
    again when they are done.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._failed: set[int] = set()

    async def settle_due(self) -> bool:
        """Settles some accounts; True if more may wait."""
        async with self._database.transaction(read_only=True) as connection:
            due = await due_accounts(connection, DUE_AT_ONCE, besides=self._failed)
        if not due:
            self._failed.clear()
            return False
        outcomes = await bisect([key for _, key in due], self._settle)
        for (number, key), error in zip(due, outcomes, strict=True):
            if error is None:
                continue
            if isinstance(error, MeshError) and error.transient:
                raise error
            _log.error("upkeep.not_settled", owner=key.owner, unit=key.unit, exc_info=error)
            self._failed.add(number)
        return True

    async def _settle(self, keys: Sequence[AccountKey]) -> list[None]:
        await self._database.run(partial(_settle, keys))
        return [None for _ in keys]


async def _settle(keys: Sequence[AccountKey], connection: Connection) -> None:
    # Needing more than there can be brings every lot.
    needs = dict.fromkeys(keys, MAX_BALANCE)
    booking = await Booking.begin(Store(connection), keys, needs=needs)
    await booking.finish()
