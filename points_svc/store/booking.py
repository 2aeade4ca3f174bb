"""The SQL of the booking path: lock, load, write.

A batch of any size is written with one statement: columns travel as arrays, in binary form.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select

from mesh.db import Connection
from mesh.errors import RequestIdReused
from mesh.idempotency import Key, recall, remember
from points_svc.book import Book
from points_svc.ledger import Account, AccountKey, Lot, LotId, Transaction, unopened
from points_svc.store import rows
from points_svc.store.history import transactions_by_id
from points_svc.store.rows import columns, execute, fetch
from points_svc.tables import idempotency_keys

# How many lots of an account to read at first, then, then: few suffice nearly always.
_DEPTHS = (4, 64, None)

# Sorted, so that batches which open accounts in common wait for each other instead of deadlocking.
# Units that do not exist open nothing.
_OPEN = """
INSERT INTO accounts (owner, unit, posted, held, version, floor)
SELECT owner, unit, 0, 0, 0, k.floor
FROM unnest(%b::text[], %b::text[], %b::bigint[]) AS k (owner, unit, floor)
    JOIN units ON units.code = k.unit
    LEFT JOIN accounts AS known USING (owner, unit)
WHERE known.account_id IS NULL
ORDER BY owner, unit
ON CONFLICT DO NOTHING
"""

# NO KEY UPDATE lets other transactions insert rows that refer to these accounts.
_LOCK = """
SELECT account_id, owner, unit, posted, held, version, floor
FROM unnest(%b::text[], %b::text[]) AS k (owner, unit) JOIN accounts USING (owner, unit)
ORDER BY account_id
FOR NO KEY UPDATE OF accounts
"""

_MOMENT = "SELECT clock_timestamp(), array_agg(code) FROM units"

_NEXT_LOTS = """
SELECT account_id, next.*
FROM unnest(%b::bigint[]) AS k (account_id), LATERAL (
    SELECT transaction_id::text, ordinal, amount, remaining, held, expire_time
    FROM lots
    WHERE lots.account_id = k.account_id AND open
    ORDER BY expire_time, lots.transaction_id, ordinal
    LIMIT %b
) AS next
"""

_LOTS = """
SELECT account_id, transaction_id::text, ordinal, amount, remaining, held, expire_time
FROM unnest(%b::uuid[], %b::smallint[]) AS k (transaction_id, ordinal)
    JOIN lots USING (transaction_id, ordinal)
"""

_WRITE = """
WITH booked AS (
    INSERT INTO transactions (transaction_id, request_id, kind, user_id, recipient, unit, amount,
        reason, reference, metadata, effective_time, booked_time, reverses, hold_id)
    SELECT * FROM unnest(%b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[], %b::text[],
        %b::bigint[], %b::text[], %b::text[], %b::jsonb[], %b::timestamptz[], %b::timestamptz[],
        %b::uuid[], %b::uuid[])
), sides AS (
    INSERT INTO entries
        (transaction_id, ordinal, account_id, amount, balance_after, account_version)
    SELECT * FROM unnest(%b::uuid[], %b::smallint[], %b::bigint[], %b::bigint[], %b::bigint[],
        %b::bigint[])
), made AS (
    INSERT INTO lots
        (transaction_id, ordinal, account_id, amount, remaining, held, expire_time)
    SELECT * FROM unnest(%b::uuid[], %b::smallint[], %b::bigint[], %b::bigint[], %b::bigint[],
        %b::bigint[], %b::timestamptz[])
), moved AS (
    INSERT INTO lot_changes (transaction_id, lot_transaction_id, lot_ordinal, amount)
    SELECT * FROM unnest(%b::uuid[], %b::uuid[], %b::smallint[], %b::bigint[])
), left_over AS (
    UPDATE lots SET remaining = k.remaining, held = k.held
    FROM unnest(%b::uuid[], %b::smallint[], %b::bigint[], %b::bigint[])
        AS k (transaction_id, ordinal, remaining, held)
    WHERE lots.transaction_id = k.transaction_id AND lots.ordinal = k.ordinal
)
UPDATE accounts SET posted = k.posted, held = k.held, version = k.version
FROM unnest(%b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[])
    AS k (account_id, posted, held, version)
WHERE accounts.account_id = k.account_id
"""


class Moment(NamedTuple):
    """The database's time, and the codes of the units there are."""

    now: datetime
    units: frozenset[str]


class Store:
    """What one transaction locks, loads and writes."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._ids: dict[AccountKey, int] = {}
        self._keys: dict[int, AccountKey] = {}

    def account_id(self, key: AccountKey) -> int:
        """The number of a locked account."""
        return self._ids[key]

    async def lock(
        self, keys: Collection[AccountKey], opening: Collection[AccountKey]
    ) -> list[Account]:
        """Locks and returns the accounts `keys`; opens those of `opening` that are missing.

        What is opened comes last, which is also where its number puts it in the order of locks.
        """
        locked = await self._lock(keys)
        missing = set(opening) - self._ids.keys()
        if missing:
            floors = [unopened(key).floor for key in missing]
            await execute(self.connection, _OPEN, *columns(missing, 2), floors)
            locked += await self._lock(missing)
        return locked

    async def _lock(self, keys: Collection[AccountKey]) -> list[Account]:
        found = await fetch(self.connection, _LOCK, *columns(keys, 2))
        locked = [Account(AccountKey(owner, unit), *state) for _, owner, unit, *state in found]
        for account, row in zip(locked, found, strict=True):
            self._ids[account.key] = row[0]
            self._keys[row[0]] = account.key
        return locked

    async def moment(self) -> Moment:
        """When to book; read with the locks held, so that each account's entries rise in time."""
        [(now, codes)] = await fetch(self.connection, _MOMENT)
        return Moment(now, frozenset(codes))

    async def next_lots(self, needs: Mapping[AccountKey, int], now: datetime) -> list[Lot]:
        """The lots of locked accounts that cover these amounts, those that expire first.

        Lots whose time has passed come too, though they cover nothing.
        """
        lots: dict[LotId, Lot] = {}
        wanted = {key: needed for key, needed in needs.items() if key in self._ids}
        for depth in _DEPTHS:
            if not wanted:
                break
            count = dict.fromkeys(wanted, 0)
            missing = dict(wanted)
            for lot in await self._next_lots([self._ids[key] for key in wanted], depth):
                lots[lot.lot_id] = lot
                count[lot.account] += 1
                if lot.expire_time is None or lot.expire_time > now:
                    missing[lot.account] -= lot.free
            wanted = {
                key: needed
                for key, needed in wanted.items()
                if missing[key] > 0 and count[key] == depth
            }
        return list(lots.values())

    async def lots(self, ids: Collection[LotId]) -> list[Lot]:
        """These lots of locked accounts."""
        if not ids:
            return []
        found = await fetch(self.connection, _LOTS, *rows.lot_ids(ids))
        return [rows.lot(row[1:], self._keys[row[0]]) for row in found]

    async def recall(self, keys: Sequence[Key]) -> dict[Key, Transaction | RequestIdReused | None]:
        """What these requests booked earlier; the error where the input was another.

        None says that a tombstone stands there: nothing was booked and nothing will be.
        """
        known = await self.recall_ids(keys)
        booked = await transactions_by_id(
            self.connection, {answer for answer in known.values() if isinstance(answer, str)}
        )
        return {
            key: booked[answer] if isinstance(answer, str) else answer
            for key, answer in known.items()
        }

    async def recall_ids(self, keys: Sequence[Key]) -> dict[Key, str | RequestIdReused | None]:
        """As `recall`, but with the ids that were answered: of a transaction or a hold."""
        known = await recall(self.connection, idempotency_keys, keys)
        return {
            key: (answer.decode() or None) if isinstance(answer, bytes) else answer
            for key, answer in known.items()
        }

    async def answered(self, scope: str, request_id: str) -> str | None:
        """The id that a request was answered with, empty for a tombstone, None if never seen."""
        stored = idempotency_keys.c
        query = select(stored.response).where(
            stored.scope == scope, stored.request_id == request_id
        )
        response = await self.connection.scalar(query)
        return None if response is None else response.decode()

    async def remember(self, entries: Sequence[tuple[Key, str]]) -> None:
        """Remembers the ids that requests are answered with; empty leaves a tombstone.

        Raises `RetryTransaction` when another replica took one of the request ids meanwhile.
        """
        encoded = [(key, answer.encode()) for key, answer in entries]
        await remember(self.connection, idempotency_keys, encoded)

    async def write(self, booked: Sequence[Transaction], book: Book) -> None:
        """Writes transactions with their entries, and accounts and lots as they are now.

        The accounts must be locked.
        """
        made, left, changed = book.made_lots(), book.changed_lots(), book.changed()
        if not (booked or left or changed):
            return
        await execute(
            self.connection,
            _WRITE,
            *columns([rows.transaction_row(one) for one in booked], 14),
            *columns(
                [
                    (one.transaction_id, n, self._ids[e.account], *e[1:])
                    for one in booked
                    for n, e in enumerate(one.entries)
                ],
                6,
            ),
            *columns([(*lot.lot_id, self._ids[lot.account], *lot[2:]) for lot in made], 7),
            *columns(
                [
                    (one.transaction_id, *change.lot_id, change.amount)
                    for one in booked
                    for change in one.lot_changes
                    if change.lot_id[0] != one.transaction_id  # what made a lot is its own row
                ],
                4,
            ),
            *columns([(*lot.lot_id, lot.remaining, lot.held) for lot in left], 4),
            *columns([(self._ids[a.key], a.posted, a.held, a.version) for a in changed], 4),
        )

    async def _next_lots(self, account_ids: list[int], limit: int | None) -> list[Lot]:
        found = await fetch(self.connection, _NEXT_LOTS, account_ids, limit)
        return [rows.lot(row[1:], self._keys[row[0]]) for row in found]
