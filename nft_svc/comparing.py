"""The steps of a reconciliation that compare: they read on both sides and write nothing.

A page of a collection is held against the mints of the same range of indices, so one walk finds
both what only the chain has and what only the record has, in memory for one page.
"""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, timedelta
from typing import Protocol

from go2asia.gateway.v1 import chain_pb2, minting_pb2

from mesh.clock import monotonic, utc_now
from mesh.db import Database
from nft_svc.convert_orders import operation_report
from nft_svc.convert_reconciliation import chain_item
from nft_svc.definitions import TokenStandard
from nft_svc.mints import MintState
from nft_svc.reconcile import (
    Finding,
    Record,
    RepairState,
    astray,
    behind,
    compare,
    differences,
    is_due,
    missing,
)
from nft_svc.steps import Step, StepOutcome
from nft_svc.store import reconciliations as store

PAGE = 200
# Single reads of Gateway and chain that one step has under way at a time.
CONCURRENT_READS = 16
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Gateway(Protocol):
    """What comparing needs of the Gateway; `clients.GatewayClient` has it."""

    async def items(
        self, standard: TokenStandard, page_token: str, page_size: int
    ) -> chain_pb2.ListCollectionItemsResponse:
        """A page of a collection."""

    async def item(self, item_address: str) -> chain_pb2.NftItem | None:
        """The item at an address; None if there is none."""

    async def operation(self, operation_id: str) -> minting_pb2.Operation | None:
        """An operation; None if there is none of that id."""


class Comparing:
    """Compares page by page; what changed within `grace` is not judged."""

    def __init__(self, database: Database, gateway: Gateway, grace: timedelta) -> None:
        self._database = database
        self._gateway = gateway
        self._grace = grace

    async def collection(self, step: Step) -> StepOutcome:
        """Compares a page of a collection with the mints in its range of indices.

        Items that should have been there are left to the step that follows.
        """
        page = await self._gateway.items(step.standard, step.page_token, PAGE)
        present = [item for item in map(chain_item, page.items) if item is not None]
        addresses = [one.collection_address for one in page.items if one.initialised]
        collection = step.collection or next(iter(addresses), "")
        if not step.collection and collection in step.collections:
            # One collection serves both standards; it was compared before.
            return StepOutcome(step.next_phase())
        last = max((one.item_index for one in page.items), default=0)
        named = {item.mint_id for item in present if _UUID.fullmatch(item.mint_id)}
        upto = last if page.next_page_token else None
        async with self._database.transaction(read_only=True) as connection:
            records = await store.records(
                connection, named, collection, step.next_index, upto, self._grace
            )
        comparison = compare(present, records)
        missing = tuple(record.mint.mint_id for record in comparison.missing)
        following = _after(replace(step, missing=missing), page.next_page_token, collection, last)
        return StepOutcome(following, comparison.findings, items=len(present))

    async def missing(self, step: Step, until: float) -> StepOutcome:
        """Looks for what a page lacked at its addresses, as far as time allows."""
        page = step.missing[:PAGE]
        async with self._database.transaction(read_only=True) as connection:
            records = await store.records(connection, page, "", 0, None, self._grace)
        by_id = {record.mint.mint_id: record for record in records}
        count, findings = await self._one_by_one([(by_id[one], False) for one in page], until)
        return StepOutcome(step.looked_for(count), findings)

    async def record(self, step: Step, until: float) -> StepOutcome:
        """Compares a page of the mints that no collection settles, as far as time allows."""
        async with self._database.transaction(read_only=True) as connection:
            page = await store.uncompared(
                connection, step.collections, step.after, PAGE, self._grace
            )
        count, findings = await self._one_by_one(page, until)
        more = len(page) == PAGE or count < len(page)
        following = step.onward(page[count - 1][0].mint.mint_id) if more else step.next_phase()
        return StepOutcome(following, findings, mints=count)

    async def _one_by_one(
        self, records: Sequence[tuple[Record, bool]], until: float
    ) -> tuple[int, list[Finding]]:
        """Compares mints, the first in any case, until `until` on the monotonic clock.

        Each comes with whether it waits in our queue. Returns how many were compared, and what was
        found.
        """
        findings: list[Finding] = []
        for begin in range(0, len(records), CONCURRENT_READS):
            if begin and monotonic() >= until:
                return begin, findings
            some = records[begin : begin + CONCURRENT_READS]
            for each in await asyncio.gather(*(self._one(*one) for one in some)):
                findings += each
        return len(records), findings

    async def _one(self, record: Record, queued: bool) -> Sequence[Finding]:
        mint = record.mint
        if mint.state is MintState.FINALIZED:
            return await self._at_its_address(record) if is_due(record) else []
        if record.moving or (mint.operation_id is None and queued):
            return []
        if mint.operation_id is None:
            return [astray(mint, RepairState.PENDING)]
        operation = await self._gateway.operation(mint.operation_id)
        if operation is None:
            return [astray(mint, RepairState.NONE)]
        if utc_now() - operation.update_time.ToDatetime(UTC) < self._grace:
            return []
        finding = behind(mint, operation_report(operation))
        return [finding] if finding else []

    async def _at_its_address(self, record: Record) -> Sequence[Finding]:
        """Looks for an item where its mint says that it is, beside any list."""
        found = None
        if record.item_address:
            found = chain_item(await self._gateway.item(record.item_address))
        return differences(record, found) if found else [missing(record)]


def _after(step: Step, page_token: str, collection: str, last: int) -> Step | None:
    """The step behind a page of a collection.

    While no item has told the collection's address, no index counts as compared.
    """
    known = tuple(dict.fromkeys((*step.collections, collection))) if collection else ()
    after = replace(step, collections=known or step.collections)
    if not page_token:
        return after.next_phase()
    return replace(
        after,
        number=step.number + 1,
        page_token=page_token,
        next_index=last + 1 if collection else step.next_index,
        collection=collection,
    )
