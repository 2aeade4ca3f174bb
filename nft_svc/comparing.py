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

from mesh.clock import utc_now
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
        self._reads = asyncio.Semaphore(CONCURRENT_READS)

    async def collection(self, step: Step) -> StepOutcome:
        """Compares a page of a collection with the mints in its range of indices."""
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
        looked_up = await asyncio.gather(*map(self._at_its_address, comparison.missing))
        findings = [*comparison.findings, *(finding for each in looked_up for finding in each)]
        return StepOutcome(
            _after(step, page.next_page_token, collection, last), findings, items=len(present)
        )

    async def record(self, step: Step) -> StepOutcome:
        """Compares a page of the mints that no collection settles, one by one."""
        async with self._database.transaction(read_only=True) as connection:
            page = await store.uncompared(
                connection, step.collections, step.after, PAGE, self._grace
            )
        compared = await asyncio.gather(*(self._one(record, queued) for record, queued in page))
        findings = [finding for each in compared for finding in each]
        more = len(page) == PAGE
        following = step.onward(page[-1][0].mint.mint_id) if more else step.next_phase()
        return StepOutcome(following, findings, mints=len(page))

    async def _one(self, record: Record, queued: bool) -> Sequence[Finding]:
        mint = record.mint
        if mint.state is MintState.FINALIZED:
            return await self._at_its_address(record) if is_due(record) else []
        if record.moving or (mint.operation_id is None and queued):
            return []
        if mint.operation_id is None:
            return [astray(mint, RepairState.PENDING)]
        async with self._reads:
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
            async with self._reads:
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
