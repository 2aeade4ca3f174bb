"""The steps of a reconciliation that repair what is safe to repair.

Each repair looks again before it changes anything, and commits with its mark on the discrepancy, so
a step that is worked twice, after a crash, repairs once.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mesh.clock import monotonic, new_id
from mesh.db import Connection, Database
from mesh.errors import MeshError
from mesh.outbox import Queue
from nft_svc.audit import AuditEntry, Origin
from nft_svc.catalog import Catalog
from nft_svc.comparing import Gateway
from nft_svc.convert_orders import operation_report
from nft_svc.definitions import NftType, UpgradePolicy
from nft_svc.feed import entry
from nft_svc.handover import Handover
from nft_svc.mints import Change, Mint, change_owner
from nft_svc.reconcile import DiscrepancyKind, RepairState, behind
from nft_svc.steps import Repaired, Step, StepOutcome
from nft_svc.store import audit, feed, mints, reads, rewards
from nft_svc.store import reconciliations as store
from nft_svc.submissions import queue_mints
from nft_svc.upgrades import Item, items, repeated

PAGE = 100


class Repairs:
    """Repairs page by page; `announce` is called after each commit that changed a mint."""

    def __init__(
        self,
        database: Database,
        gateway: Gateway,
        handover: Handover,
        catalog: Catalog,
        submissions: Queue,
        announce: Callable[[], None],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._submissions = submissions
        self._gateway = gateway
        self._handover = handover
        self._announce = announce

    async def page(self, step: Step, origin: Origin, until: float) -> StepOutcome:
        """Repairs the next of what the run found; what stays as it is says why.

        Goes on until `until` on the monotonic clock, and repairs at least one.
        """
        async with self._database.transaction(read_only=True) as connection:
            found = await store.page(
                connection,
                step.reconciliation_id,
                int(step.after or 0),
                PAGE,
                repair=RepairState.PENDING,
            )
        for row in found:
            await self._repair(row, origin)
            if monotonic() >= until:
                return StepOutcome(step.onward(str(row["discrepancy_id"])))
        more = len(found) == PAGE
        return StepOutcome(
            step.onward(str(found[-1]["discrepancy_id"])) if more else step.next_phase()
        )

    async def _repair(self, row: Mapping[Any, Any], origin: Origin) -> None:
        number, mint_id = row["discrepancy_id"], row["mint_id"]
        match DiscrepancyKind(row["kind"]):
            case DiscrepancyKind.WRONG_OWNER:
                await self._record_owner(number, mint_id, row["found"]["owner_address"], origin)
            case DiscrepancyKind.STATE_BEHIND:
                detail = await self._catch_up(mint_id, origin)
                state = RepairState.FAILED if detail else RepairState.DONE
                caught_up = Repaired(number, state, detail)
                await self._database.run(lambda connection: store.mark(connection, caught_up))
            case DiscrepancyKind.WRONG_CONTENT:
                await self._rewrite(number, mint_id, origin)
            case kind:
                raise AssertionError(f"{kind} has no repair, so it cannot be pending")

    async def _record_owner(
        self, number: int, mint_id: str, owner_address: str, origin: Origin
    ) -> None:
        async def work(connection: Connection) -> None:
            now, locked = await mints.lock(connection, [mint_id])
            mint = locked[mint_id]
            await store.mark(connection, Repaired(number, RepairState.DONE))
            if now is None or mint.present_owner_address == owner_address:
                return
            change = change_owner(mint, owner_address, now)
            await mints.update(connection, [change.mint])
            await audit.write(connection, [_new_owner(mint, owner_address, origin)])
            # Last, because the feed's head stays locked from here to the commit.
            await feed.append(connection, [entry(change)])

        await self._database.run(work)
        self._announce()

    async def _rewrite(self, number: int, mint_id: str, origin: Origin) -> None:
        """Has written on an item again what it should say."""
        mint = await self._read(mint_id)

        async def work(connection: Connection) -> None:
            now, _ = await rewards.lock_progress(connection, [(mint.user_id, mint.nft_type)])
            if not await store.is_pending(connection, number):
                return  # whoever had the step before has ordered it
            nft_type = (await self._catalog.current(connection))[mint.nft_type]
            history = await mints.history(connection, mint.nft_id)
            repair = _rewriting(number, mint, nft_type, history)
            if isinstance(repair, Repaired):
                await store.mark(connection, repair)
                return
            update = repeated(repair, now, new_id)
            await store.mark(
                connection, Repaired(number, RepairState.ORDERED, mint_id=update.mint_id)
            )
            await queue_mints(connection, self._submissions, [(update, origin)])
            # Last, because the feed's head stays locked from here to the commit.
            await feed.append(connection, [entry(Change(update))])

        await self._database.run(work)
        self._announce()

    async def _catch_up(self, mint_id: str, origin: Origin) -> str:
        """Brings a mint to where the Gateway has it; returns why that was not possible."""
        mint = await self._read(mint_id)
        if mint.operation_id is None:
            try:
                await self._handover.submit(mint, origin)
            except MeshError as error:
                if error.transient:
                    raise
                return f"the Gateway refused it: {error.reason}: {error.message}"
            return ""
        operation = await self._gateway.operation(mint.operation_id)
        if operation is None:
            return "the Gateway has no such operation any more"
        await self._handover.take(operation, origin)
        after = await self._read(mint_id)
        if behind(after, operation_report(operation)) is None:
            return ""
        return f"a mint that is {after.state} cannot take the Gateway's state"

    async def _read(self, mint_id: str) -> Mint:
        async with self._database.transaction(read_only=True) as connection:
            found = await reads.mint(connection, mint_id)
        assert found is not None, "mints are never deleted"
        return found


def _rewriting(
    number: int, mint: Mint, nft_type: NftType, history: Sequence[Mint]
) -> Item | Repaired:
    """The item of a mint, to be written again; or why that is not due, or must not be."""
    if nft_type.upgrade_policy is not UpgradePolicy.UPDATE_CONTENT:
        policy = f"items of {nft_type.code} are not changed ({nft_type.upgrade_policy})"
        return Repaired(number, RepairState.NONE, policy)
    if under_way := next((each for each in history if each.under_way), None):
        # A change of this item writes what it should say.
        if under_way.item_mint_id == mint.mint_id:
            return Repaired(number, RepairState.ORDERED, mint_id=under_way.mint_id)
        return Repaired(number, RepairState.FAILED, "a mint of the badge is under way")
    item = next(each for each in items(history) if each.origin.mint_id == mint.mint_id)
    if item.revoked:
        return Repaired(number, RepairState.NONE, "the item was revoked meanwhile")
    return item


def _new_owner(mint: Mint, owner_address: str, origin: Origin) -> AuditEntry:
    minted_to = mint.location.owner_address if mint.location else ""
    return AuditEntry(
        origin=origin,
        action="mint.owner",
        subject=f"mint/{mint.mint_id}",
        user_id=mint.user_id,
        before={"owner_address": mint.present_owner_address or minted_to},
        after={"owner_address": owner_address},
        nft_id=mint.nft_id,
    )
