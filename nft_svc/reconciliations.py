"""What operators ask of reconciliation: to start a run, and to see what it found."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from go2asia.nft.v1 import reconciliation_pb2

from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.idempotency import Key, remember
from mesh.outbox import Queue
from nft_svc.audit import AuditEntry, Origin
from nft_svc.convert_reconciliation import reconciliation
from nft_svc.errors import ReconciliationNotFound, ReconciliationRunning
from nft_svc.reconcile import DiscrepancyKind, RepairState
from nft_svc.reconciler import as_work
from nft_svc.steps import Step
from nft_svc.store import audit
from nft_svc.store import reconciliations as store
from nft_svc.store.requests import recall_one
from nft_svc.tables import idempotency_keys

Message = reconciliation_pb2.Reconciliation


class Reconciliations:
    """Starts and shows runs; `wake` is called after each start."""

    def __init__(self, database: Database, steps: Queue, wake: Callable[[], None]) -> None:
        self._database = database
        self._steps = steps
        self._wake = wake

    async def start(self, key: Key, report_only: bool, origin: Origin) -> Message:
        """Starts a run, or returns the one that the same request started.

        Raises `ReconciliationRunning` or `RequestIdReused`.
        """

        async def work(connection: Connection) -> Message:
            known = await recall_one(connection, key)
            if known is not None:
                return Message.FromString(known)
            step = Step(new_id(), report_only)
            running = await store.start(connection, step.reconciliation_id, report_only)
            if running is not None:
                raise ReconciliationRunning(reconciliation_id=running)
            await self._steps.enqueue(connection, [as_work(step)])
            await audit.write(connection, [_started(step, origin)])
            message = await _read(connection, step.reconciliation_id)
            await remember(connection, idempotency_keys, [(key, message.SerializeToString())])
            return message

        started = await self._database.run(work)
        self._wake()
        return started

    async def get(self, reconciliation_id: str) -> Message:
        """A run, the latest if no id is given; raises `ReconciliationNotFound`."""
        async with self._database.transaction(
            read_only=True, isolation="REPEATABLE READ"
        ) as connection:
            return await _read(connection, reconciliation_id)

    async def discrepancies(
        self,
        reconciliation_id: str,
        kind: DiscrepancyKind | None,
        repair: RepairState | None,
        after: int,
        limit: int,
    ) -> Sequence[Mapping[Any, Any]]:
        """What a run found behind the number `after`; raises `ReconciliationNotFound`."""
        async with self._database.transaction(read_only=True) as connection:
            await _read(connection, reconciliation_id)
            return await store.page(
                connection, reconciliation_id, after, limit, kind=kind, repair=repair
            )


async def _read(connection: Connection, reconciliation_id: str) -> Message:
    row = await store.run(connection, reconciliation_id)
    if row is None:
        raise ReconciliationNotFound(field="reconciliation_id", reconciliation_id=reconciliation_id)
    return reconciliation(row, await store.counts(connection, row["reconciliation_id"]))


def _started(step: Step, origin: Origin) -> AuditEntry:
    return AuditEntry(
        origin=origin,
        action="reconciliation.start",
        subject=f"reconciliation/{step.reconciliation_id}",
        user_id=None,
        before=None,
        after={"report_only": step.report_only},
    )
