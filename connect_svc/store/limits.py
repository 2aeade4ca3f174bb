"""Counters of caps and budgets, what was charged to them, and the variants assigned to users.

Whoever changes counters locks all of them in one statement, in the order of their keys, so that two
batches that share some wait for each other instead of deadlocking. Counters are never deleted.
"""

from collections.abc import Collection, Mapping, Sequence

from connect_svc.limits import Charge, Counter, released
from connect_svc.store.statements import columns, execute, fetch
from connect_svc.variants import Assignee
from mesh.db import Connection, RetryTransaction

_INSERT_ZEROS = """
INSERT INTO limit_counters (rule_id, user_id, window_name, unit)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])
ON CONFLICT DO NOTHING
"""

_READ = """
SELECT rule_id, user_id, window_name, unit, used
FROM limit_counters AS c
    JOIN unnest(%s::text[], %s::text[], %s::text[], %s::text[])
        AS k (rule_id, user_id, window_name, unit) USING (rule_id, user_id, window_name, unit)
"""

_LOCK = _READ + "ORDER BY rule_id, user_id, window_name, unit FOR NO KEY UPDATE OF c"

_ADD = """
UPDATE limit_counters AS c SET used = c.used + v.added
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[])
    AS v (rule_id, user_id, window_name, unit, added)
WHERE (c.rule_id, c.user_id, c.window_name, c.unit)
    = (v.rule_id, v.user_id, v.window_name, v.unit)
"""

_CHARGE = """
INSERT INTO limit_charges (event_id, action_id, rule_id, user_id, window_name, unit, amount)
SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::text[], %s::text[], %s::text[],
    %s::bigint[])
"""

_CHARGED = """
SELECT action_id::text, rule_id, user_id, window_name, unit, amount FROM limit_charges
WHERE event_id = %s::uuid AND refund_time IS NULL
ORDER BY action_id, rule_id, user_id, window_name, unit FOR UPDATE
"""

_REFUND = """
UPDATE limit_charges SET refund_time = clock_timestamp()
WHERE event_id = %s::uuid AND action_id = ANY (%s::uuid[]) AND refund_time IS NULL
RETURNING action_id
"""

_ASSIGNED = """
SELECT rule_id, user_id, variant
FROM variant_assignments JOIN unnest(%s::text[], %s::text[]) AS k (rule_id, user_id)
    USING (rule_id, user_id)
"""

_ASSIGN = """
INSERT INTO variant_assignments (rule_id, user_id, variant)
SELECT * FROM unnest(%s::text[], %s::text[], %s::text[])
ON CONFLICT DO NOTHING
"""

_REASSIGN = """
UPDATE variant_assignments AS a SET variant = v.variant, assign_time = clock_timestamp()
FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[]) AS v (rule_id, user_id, variant, lost)
WHERE a.rule_id = v.rule_id AND a.user_id = v.user_id AND a.variant = v.lost
"""


class LimitStore:
    """Counters, charges and assignments as one transaction sees them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock(self, counters: Collection[Counter]) -> dict[Counter, int]:
        """Keeps others from changing these counters until the end of the transaction.

        Returns what they stand at. Asks the database nothing when there is none.
        """
        if not counters:
            return {}
        keys = sorted(set(counters))
        # Missing ones come first, so that there is something to lock.
        await execute(self._connection, _INSERT_ZEROS, keys)
        rows = await fetch(self._connection, _LOCK, *columns(keys))
        return {Counter(*key): used for *key, used in rows}

    async def read(self, counters: Collection[Counter]) -> dict[Counter, int]:
        """What counters stand at, without a lock; one that is missing stands at zero."""
        if not counters:
            return {}
        rows = await fetch(self._connection, _READ, *columns(sorted(set(counters))))
        return {Counter(*key): used for *key, used in rows}

    async def charge(
        self, added: Mapping[Counter, int], charges: Mapping[str, Sequence[Charge]]
    ) -> None:
        """Counts up locked counters, and notes for each event what its actions were charged."""
        await execute(self._connection, _ADD, [(*key, more) for key, more in added.items()])
        rows = [
            (event_id, each.action_id, *each.counter, each.amount)
            for event_id, of_event in charges.items()
            for each in of_event
        ]
        await execute(self._connection, _CHARGE, rows)

    async def refund(self, event_id: str, action_ids: Collection[str] | None = None) -> None:
        """Counts an event's actions, or some of them, out of the windows that they were charged to.

        Once: what was refunded before is left alone. A match stays counted as long as one of its
        actions stands. Call it last in a transaction: it locks counters that every event of the
        rule waits for.
        """
        rows = await fetch(self._connection, _CHARGED, event_id)
        charges = [Charge(action_id, Counter(*key), amount) for action_id, *key, amount in rows]
        charged = {each.action_id for each in charges}
        taken_back = charged if action_ids is None else charged.intersection(action_ids)
        freed = released(charges, taken_back)
        if not taken_back:
            return
        await fetch(self._connection, _REFUND, event_id, list(taken_back))
        await self.lock(freed)
        await execute(self._connection, _ADD, [(*key, -less) for key, less in freed.items()])

    async def assigned(self, assignees: Collection[Assignee]) -> dict[Assignee, str]:
        """The variants of those who were assigned one."""
        if not assignees:
            return {}
        rows = await fetch(self._connection, _ASSIGNED, *columns(list(assignees)))
        return {Assignee(rule_id, user_id): variant for rule_id, user_id, variant in rows}

    async def assign(
        self, variants: Mapping[Assignee, str], stored: Mapping[Assignee, str]
    ) -> None:
        """Stores the variants that are not `stored` yet, and those that replace a stored one.

        Raises `RetryTransaction` when another replica assigned one meanwhile.
        """
        new = sorted((*who, variant) for who, variant in variants.items() if who not in stored)
        other = sorted(
            (*who, variant, stored[who])
            for who, variant in variants.items()
            if stored.get(who, variant) != variant
        )
        if await execute(self._connection, _ASSIGN, new) != len(new):
            raise RetryTransaction
        if await execute(self._connection, _REASSIGN, other) != len(other):
            raise RetryTransaction
