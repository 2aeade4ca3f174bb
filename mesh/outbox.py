"""A durable queue in the service's own database: work commits with the data that asks for it.

Items are claimed in batches by any number of workers, without a leader. A claim carries a token
and a lease in database time. Whoever outlives its lease loses the item to the next claim, and its
late verdict then changes nothing, because the token is no longer the item's.

Attempts count at the claim, so that an item that kills its worker runs out of them too. Settled
items leave the table; items given up stay in it as dead, with the reason, until revived.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from psycopg import sql
from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)

from mesh.clock import new_id
from mesh.db import Connection, driver
from mesh.telemetry import traceparent

_MAX_ERROR_CHARACTERS = 2_000
_FREE = "UPDATE {queue} AS q SET token = NULL, lease_expire_time = NULL"

# In the order of their hashes, so that two transactions do not wait for each other. A sequence
# number is taken before the commit that shows it: without this, a later one may be seen first.
_LINE_UP = """
SELECT pg_advisory_xact_lock(hashtext(%s), hash) FROM (
    SELECT DISTINCT hashtext(ordering_key) AS hash FROM unnest(%b::text[]) AS k (ordering_key)
    ORDER BY hash
) AS hashes
"""


@dataclass(frozen=True)
class Work:
    """An item to enqueue.

    `item_id` is unique in its queue; a `lane` is worked by its own workers, in order of enqueueing
    but with several items at once. Items of one lane with the same `ordering_key` are worked
    strictly one after the other. `traceparent` is the trace that asked for it, where a group commit
    carries many; the present one if not given.
    """

    item_id: str
    lane: str
    payload: bytes
    ordering_key: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True)
class Claim:
    """An item in a worker's hands; `attempts` counts this one."""

    item_id: str
    lane: str
    payload: bytes
    attempts: int
    token: str
    traceparent: str | None
    enqueued_time: datetime


@dataclass(frozen=True)
class Done:
    """The work is done; `result` is for whoever settles."""

    result: object = None


@dataclass(frozen=True)
class Retry:
    """The work failed for a reason that may pass."""

    error: str


@dataclass(frozen=True)
class Dead:
    """The work will never succeed as it is."""

    reason: str


Outcome: TypeAlias = Done | Retry | Dead
Settlement: TypeAlias = tuple[Claim, Outcome]


@dataclass(frozen=True)
class Backoff:
    """Exponential backoff with full jitter, so that failed items do not come back as a herd."""

    first: timedelta = timedelta(seconds=1)
    cap: timedelta = timedelta(minutes=5)

    def delay(self, attempts: int, draw: float) -> timedelta:
        """The pause after `attempts` attempts; `draw` is uniform in [0, 1)."""
        doublings = min(attempts - 1, 32)  # beyond any cap, and below timedelta's largest value
        longest: timedelta = min(self.first * 2**doublings, self.cap)
        return longest * draw


@dataclass(frozen=True)
class Depth:
    """Items of one lane: `ready` to be claimed, `leased`, `delayed` by backoff, and `dead`.

    Of the first three, `waiting` are behind another of their ordering key. `oldest_seconds` is the
    age of the oldest that is not dead.
    """

    ready: int
    leased: int
    delayed: int
    dead: int
    oldest_seconds: float
    waiting: int = 0


def queue_table(metadata: MetaData, name: str) -> Table:
    """The table of one queue; the application's role needs SELECT, INSERT, UPDATE and DELETE.

    No index holds what a claim changes, and pages have room for a second version of each row, so
    that claims are heap-only updates. Rows live briefly: vacuum comes early and runs unthrottled.
    """
    live = text("dead_reason IS NULL")
    clock = func.clock_timestamp()  # unlike now() it moves on from row to row: first in, first out
    return Table(
        name,
        metadata,
        Column("item_id", Text, primary_key=True),
        Column("sequence", BigInteger, Identity(always=True), nullable=False),
        Column("enqueued_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
        Column("due_time", DateTime(timezone=True), nullable=False, server_default=clock),
        Column("lease_expire_time", DateTime(timezone=True)),
        Column("token", Uuid),
        Column("attempts", Integer, nullable=False, server_default=text("0")),
        Column("lane", Text, nullable=False),
        Column("ordering_key", Text),
        Column("traceparent", Text),
        Column("payload", LargeBinary, nullable=False),
        Column("last_error", Text),
        Column("dead_reason", Text),
        Index(f"{name}_due", "lane", "due_time", postgresql_where=live),
        Index(
            f"{name}_ordering",
            *("lane", "ordering_key", "sequence"),
            postgresql_where=text("ordering_key IS NOT NULL AND dead_reason IS NULL"),
        ),
        postgresql_with={
            "fillfactor": 50,
            "autovacuum_vacuum_threshold": 1_000,
            "autovacuum_vacuum_scale_factor": 0.05,
            "autovacuum_vacuum_cost_delay": 0,
        },
    )


@dataclass(frozen=True)
class Queue:
    """What can be done with a queue table; every method works in the caller's transaction.

    `lease` is how long a claim holds an item; `max_attempts` None means to retry for ever.
    """

    table: Table
    lease: timedelta
    max_attempts: int | None
    backoff: Backoff = field(default_factory=Backoff)

    async def enqueue(self, connection: Connection, works: Sequence[Work]) -> None:
        """Adds items, in order; an item whose id is in the queue already, even dead, stays as is.

        Transactions that add items with the same ordering key wait for each other from here on, so
        that nobody finds an item in line before one that is to go ahead of it.
        """
        current = traceparent()
        await self._line_up(connection, [work.ordering_key for work in works])
        await self._execute(
            connection,
            "INSERT INTO {queue} (item_id, lane, ordering_key, payload, traceparent)"
            " SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::bytea[], %b::text[])"
            " ON CONFLICT (item_id) DO NOTHING",
            [work.item_id for work in works],
            [work.lane for work in works],
            [work.ordering_key for work in works],
            [work.payload for work in works],
            [work.traceparent or current for work in works],
        )

    async def claim(self, connection: Connection, lane: str, limit: int) -> list[Claim]:
        """Takes up to `limit` due items that nobody holds, the longest due first.

        An item waits while an earlier one with its ordering key is in the queue and not dead. A
        claim looks past all that wait, so keep the line of a key in the hundreds.

        Commit soon: the lease counts from the beginning of the transaction.
        """
        token = new_id()
        # Nothing is before the head of its line; `<=` rather than `=` lets the planner expect
        # many rows and walk the index of due times instead of sorting the whole queue.
        rows = await self._execute(
            connection,
            "WITH due AS MATERIALIZED ("
            " SELECT q.item_id FROM {queue} AS q"
            " WHERE q.lane = %s AND q.dead_reason IS NULL AND q.due_time <= now()"
            " AND (q.lease_expire_time IS NULL OR q.lease_expire_time <= now())"
            " AND (q.ordering_key IS NULL OR q.sequence <= ("
            "  SELECT h.sequence FROM {queue} AS h"
            "  WHERE h.lane = q.lane AND h.ordering_key = q.ordering_key AND h.dead_reason IS NULL"
            "  ORDER BY h.lane, h.ordering_key, h.sequence LIMIT 1))"
            " ORDER BY q.due_time LIMIT %s FOR UPDATE OF q SKIP LOCKED"
            "), claimed AS ("
            " UPDATE {queue} AS q"
            " SET token = %s::uuid, attempts = attempts + 1, lease_expire_time = now() + %s"
            " WHERE item_id = ANY (ARRAY (SELECT item_id FROM due))"
            " RETURNING item_id, payload, attempts, traceparent, enqueued_time, due_time"
            ") SELECT item_id, payload, attempts, traceparent, enqueued_time"
            " FROM claimed ORDER BY due_time",
            lane,
            limit,
            token,
            self.lease,
        )
        return [
            Claim(item_id, lane, payload, attempts, token, trace, enqueued_time)
            for item_id, payload, attempts, trace, enqueued_time in rows
        ]

    def abandoned(self, claim: Claim) -> bool:
        """Whether the last attempt the item had was claimed before, and ended without a verdict."""
        return self.max_attempts is not None and claim.attempts > self.max_attempts

    async def settle(
        self, connection: Connection, settlements: Sequence[Settlement]
    ) -> list[Settlement]:
        """Ends claims: what is done leaves the queue, the rest is postponed or declared dead.

        Returns the settlements that took effect, in order: stale claims are left out, and a retry
        of an item that has no attempts left comes back as dead.
        """
        final = [(claim, self._final(claim, outcome)) for claim, outcome in settlements]
        fresh = await self._remove(connection, [c for c, o in final if isinstance(o, Done)])
        fresh |= await self._postpone(
            connection, [(c, o.error) for c, o in final if isinstance(o, Retry)]
        )
        fresh |= await self._bury(
            connection, [(c, o.reason) for c, o in final if isinstance(o, Dead)]
        )
        return [(claim, outcome) for claim, outcome in final if claim.item_id in fresh]

    async def release(self, connection: Connection, claims: Sequence[Claim]) -> None:
        """Gives claims back unworked: due at once, the attempt not counted."""
        await self._end(connection, claims, f"{_FREE}, attempts = attempts - 1 FROM")

    async def withdraw(self, connection: Connection, item_ids: Sequence[str]) -> set[str]:
        """Takes back items that no worker has ever held, and returns their ids.

        What was claimed once stays: its handler may have done the work and not lived to say so.
        """
        rows = await self._execute(
            connection,
            "DELETE FROM {queue} WHERE item_id = ANY (%s::text[])"
            " AND attempts = 0 AND token IS NULL AND dead_reason IS NULL RETURNING item_id",
            list(item_ids),
        )
        return {item_id for (item_id,) in rows}

    async def revive(self, connection: Connection, item_ids: Sequence[str]) -> set[str]:
        """Gives dead items all their attempts back, behind others of their ordering key.

        Returns the ids that were dead.
        """
        ids = list(item_ids)
        keys = "SELECT ordering_key FROM {queue} WHERE item_id = ANY (%s::text[])"
        await self._line_up(
            connection, [key for (key,) in await self._execute(connection, keys, ids)]
        )
        rows = await self._execute(
            connection,
            "UPDATE {queue} SET dead_reason = NULL, attempts = 0, due_time = clock_timestamp(),"
            " sequence = DEFAULT"
            " WHERE item_id = ANY (%s::text[]) AND dead_reason IS NOT NULL RETURNING item_id",
            ids,
        )
        return {item_id for (item_id,) in rows}

    async def depth(self, connection: Connection) -> dict[str, Depth]:
        """How many items each lane holds; reads the whole table."""
        rows = await self._execute(
            connection,
            "SELECT lane,"
            " count(*) FILTER (WHERE live AND NOT leased AND due_time <= now()),"
            " count(*) FILTER (WHERE live AND leased),"
            " count(*) FILTER (WHERE live AND NOT leased AND due_time > now()),"
            " count(*) FILTER (WHERE NOT live),"
            " coalesce(extract(epoch FROM now() - min(enqueued_time) FILTER (WHERE live)), 0),"
            " count(ordering_key) FILTER (WHERE live)"
            "  - count(DISTINCT ordering_key) FILTER (WHERE live)"
            " FROM (SELECT *, dead_reason IS NULL AS live,"
            "  coalesce(lease_expire_time > now(), false) AS leased FROM {queue}) AS q"
            " GROUP BY lane",
        )
        return {
            lane: Depth(ready, leased, delayed, dead, float(oldest), waiting)
            for lane, ready, leased, delayed, dead, oldest, waiting in rows
        }

    async def _line_up(self, connection: Connection, keys: Sequence[str | None]) -> None:
        if known := [key for key in keys if key is not None]:
            await self._execute(connection, _LINE_UP, self.table.name, known)

    def _final(self, claim: Claim, outcome: Outcome) -> Outcome:
        if not isinstance(outcome, Retry) or self.max_attempts is None:
            return outcome
        if claim.attempts < self.max_attempts:
            return outcome
        return Dead(f"gave up after {claim.attempts} attempts; the last error: {outcome.error}")

    async def _remove(self, connection: Connection, claims: Sequence[Claim]) -> set[str]:
        return await self._end(connection, claims, "DELETE FROM {queue} AS q USING")

    async def _postpone(
        self, connection: Connection, failed: Sequence[tuple[Claim, str]]
    ) -> set[str]:
        claims = [claim for claim, _ in failed]
        delays = [self.backoff.delay(claim.attempts, random.random()) for claim in claims]
        return await self._end(
            connection,
            claims,
            f"{_FREE}, due_time = now() + c.delay, last_error = c.error FROM",
            delay=("interval", delays),
            error=("text", [_storable(error) for _, error in failed]),
        )

    async def _bury(self, connection: Connection, dead: Sequence[tuple[Claim, str]]) -> set[str]:
        return await self._end(
            connection,
            [claim for claim, _ in dead],
            f"{_FREE}, dead_reason = c.reason FROM",
            reason=("text", [_storable(reason) for _, reason in dead]),
        )

    async def _end(
        self,
        connection: Connection,
        claims: Sequence[Claim],
        change: str,
        **columns: tuple[str, list[Any]],
    ) -> set[str]:
        """Applies `change` to the items that `claims` still hold, and returns their ids.

        `columns` are further values per claim, each with its SQL type, that `change` knows as `c`.
        """
        if not claims:
            return set()
        names = "".join(f", {name}" for name in columns)
        arrays = "".join(f", %b::{kind}[]" for kind, _ in columns.values())
        rows = await self._execute(
            connection,
            f"{change} unnest(%b::text[], %b::text[]{arrays}) AS c (item_id, token{names})"
            " WHERE q.item_id = c.item_id AND q.token = c.token::uuid RETURNING q.item_id",
            [claim.item_id for claim in claims],
            [claim.token for claim in claims],
            *(values for _, values in columns.values()),
        )
        return {item_id for (item_id,) in rows}

    async def _execute(
        self, connection: Connection, statement: Any, *parameters: Any
    ) -> list[tuple[Any, ...]]:
        query = sql.SQL(statement).format(queue=sql.Identifier(self.table.name))
        async with driver(connection).cursor(binary=True) as cursor:
            # Never prepared: the table swings between empty and full, and a plan made for the one
            # is ruinous for the other.
            await cursor.execute(query, parameters, prepare=False)
            return await cursor.fetchall() if cursor.description else []


def _storable(error: str) -> str:
    # Postgres text holds no NUL.
    return error.replace("\0", "")[:_MAX_ERROR_CHARACTERS]
