"""Steps of a reconciliation on a real Postgres: each may be worked twice, and none takes long."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from go2asia.gateway.v1 import chain_pb2, minting_pb2
from go2asia.nft.v1 import reconciliation_pb2

from devstack.postgres import Cluster
from mesh.clock import monotonic, new_id
from mesh.errors import Unavailable
from nft_svc import comparing
from nft_svc.audit import Origin
from nft_svc.comparing import Comparing
from nft_svc.convert_reconciliation import chain_item, discrepancy
from nft_svc.definitions import TokenStandard
from nft_svc.handover import Handover
from nft_svc.mints import Location, Mint, MintKind, MintState, Report
from nft_svc.reconcile import (
    DiscrepancyKind,
    Finding,
    Record,
    RepairState,
    differences,
    entries,
)
from nft_svc.repairs import Repairs
from nft_svc.reports import News
from nft_svc.steps import Phase, Step
from nft_svc.store import mints
from nft_svc.store import reconciliations as store
from nft_svc.submissions import submission_queue
from tests.integration.nft_service import (
    GATEWAY,
    NftDatabase,
    Replica,
    ShelfGateway,
    a_user,
    migrated,
    replica,
    report,
    reward,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
COLLECTION, ADA = "0:" + "c0" * 32, "0:" + "ad" * 32
OPERATOR = Origin("operator/ops")
NO_TIME = 0.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(postgres: Cluster, make_database: Callable[[], str]) -> NftDatabase:
    return await migrated(postgres, make_database)


@pytest_asyncio.fixture(loop_scope="module")
async def service(nft: NftDatabase) -> AsyncIterator[Replica]:
    async with replica(nft) as running:
        nft.execute("DELETE FROM nft_discrepancies")
        nft.execute("DELETE FROM nft_reconciliations")
        yield running


class Chain(ShelfGateway):
    """A Gateway that lists one page of items and knows nothing else.

    It is out of reach while `down`, and tells of operations only while `answers` is set.
    """

    def __init__(self, *items: chain_pb2.NftItem) -> None:
        super().__init__()
        self.page = items
        self.down = False
        self.asked, self.answers = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def items(
        self, standard: TokenStandard, page_token: str, page_size: int
    ) -> chain_pb2.ListCollectionItemsResponse:
        return chain_pb2.ListCollectionItemsResponse(items=self.page)

    async def item(self, item_address: str) -> chain_pb2.NftItem | None:
        return None

    async def operation(self, operation_id: str) -> minting_pb2.Operation | None:
        self.asked.set()
        await self.answers.wait()
        if self.down:
            raise Unavailable
        return None


def repairs(service: Replica, gateway: Chain) -> Repairs:
    handover = Handover(gateway, service.reports)
    queue = submission_queue()
    return Repairs(
        service.database, gateway, handover, service.catalog, queue, service.feed.announce
    )


async def finalised(service: Replica, index: int) -> Mint:
    """A mint whose item should be at this index."""
    mint_id = (await service.rewards.apply(reward(a_user(), 3))).mint_id
    place = Location(COLLECTION, index, f"0:{index:064x}", ADA)
    final = Report(mint_id, mint_id, 2, MintState.FINALIZED, place)
    await service.reports.apply([News(final, GATEWAY)])
    async with service.database.transaction(read_only=True) as connection:
        (record,) = await store.records(connection, [mint_id], "", 0, None, timedelta(0))
    return record.mint


def wrong(kind: DiscrepancyKind, mint: Mint, **found: str) -> Finding:
    return Finding(kind, "", mint, mint.mint_id, {}, found, RepairState.PENDING)


async def planted(service: Replica, *findings: Finding) -> Step:
    """The step that repairs what a run found."""
    step = Step(new_id(), report_only=False, phase=Phase.REPAIR)
    async with service.database.transaction() as connection:
        assert await store.start(connection, step.reconciliation_id, False) is None
        await store.add(connection, step, findings)
    return step


async def listed(service: Replica, step: Step) -> Sequence[Any]:
    async with service.database.transaction(read_only=True) as connection:
        rows = await store.page(connection, step.reconciliation_id, 0, 100)
    return [discrepancy(row) for row in rows]


async def states(service: Replica, step: Step) -> list[str]:
    names = [reconciliation_pb2.RepairState.Name(one.repair) for one in await listed(service, step)]
    return [name.removeprefix("REPAIR_STATE_") for name in names]


async def changes(service: Replica, mint: Mint) -> list[Mint]:
    async with service.database.transaction(read_only=True) as connection:
        return (await mints.history(connection, mint.nft_id))[1:]


async def test_a_repair_step_that_breaks_off_orders_no_change_twice(service: Replica) -> None:
    rewritten, behind = await finalised(service, 1), await finalised(service, 2)
    step = await planted(
        service,
        wrong(DiscrepancyKind.WRONG_CONTENT, rewritten),
        wrong(DiscrepancyKind.STATE_BEHIND, behind),
    )
    gateway = Chain()
    gateway.down = True
    working = repairs(service, gateway)
    with pytest.raises(Unavailable):
        await working.page(step, OPERATOR, monotonic() + 60)
    (ordered,) = await changes(service, rewritten)
    assert await states(service, step) == ["ORDERED", "PENDING"]
    # By the time that the step is worked again, nothing is under way any more.
    await service.reports.apply([report(ordered.mint_id, MintState.FINALIZED, 2)])
    gateway.down = False
    outcome = await working.page(step, OPERATOR, monotonic() + 60)
    assert outcome.following is None
    assert [one.mint_id for one in await changes(service, rewritten)] == [ordered.mint_id]
    assert await states(service, step) == ["ORDERED", "FAILED"]


async def test_a_replica_that_lost_its_step_orders_nothing_more(service: Replica) -> None:
    """It has read what is to be repaired, and freezes until another replica has repaired it."""
    behind, rewritten = await finalised(service, 1), await finalised(service, 2)
    step = await planted(
        service,
        wrong(DiscrepancyKind.STATE_BEHIND, behind),
        wrong(DiscrepancyKind.WRONG_CONTENT, rewritten),
    )
    frozen = Chain()
    frozen.answers.clear()
    late = asyncio.create_task(repairs(service, frozen).page(step, OPERATOR, monotonic() + 60))
    async with asyncio.timeout(10):
        await frozen.asked.wait()
    await repairs(service, Chain()).page(step, OPERATOR, monotonic() + 60)
    (ordered,) = await changes(service, rewritten)
    await service.reports.apply([report(ordered.mint_id, MintState.FINALIZED, 2)])
    frozen.answers.set()
    await late
    assert len(await changes(service, rewritten)) == 1


async def test_nothing_is_written_on_an_item_revoked_meanwhile(service: Replica) -> None:
    mint = await finalised(service, 1)
    step = await planted(service, wrong(DiscrepancyKind.WRONG_CONTENT, mint))
    revocation = replace(
        mint, mint_id=new_id(), kind=MintKind.REVOKE, item_mint_id=mint.mint_id, level=0
    )
    async with service.database.transaction() as connection:
        await mints.insert(connection, [revocation])
    await repairs(service, Chain()).page(step, OPERATOR, monotonic() + 60)
    assert [one.kind for one in await changes(service, mint)] == [MintKind.REVOKE]
    (told,) = await listed(service, step)
    assert told.repair_detail == "the item was revoked meanwhile"


async def test_repairs_go_on_in_another_step_when_time_is_up(service: Replica) -> None:
    owned = [await finalised(service, index) for index in range(3)]
    bob = "0:" + "b0" * 32
    first = await planted(
        service, *(wrong(DiscrepancyKind.WRONG_OWNER, mint, owner_address=bob) for mint in owned)
    )
    step: Step | None = first
    numbers = []
    while step:
        numbers.append(step.number)
        step = (await repairs(service, Chain()).page(step, OPERATOR, NO_TIME)).following
    assert await states(service, first) == ["DONE"] * 3
    assert numbers == [1, 2, 3, 4]


async def test_what_a_page_lacks_is_looked_for_in_as_many_steps_as_it_takes(
    service: Replica, nft: NftDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "CONCURRENT_READS", 1)
    nft.execute("DELETE FROM nft_mint_queue")
    there, *gone = [await finalised(service, index) for index in range(4)]
    item = chain_pb2.NftItem(
        item_address=f"0:{0:064x}", initialised=True, collection_address=COLLECTION,
        owner_address=ADA, content=entries(there.content, there.mint_id),
    )  # fmt: skip
    working = Comparing(service.database, Chain(item), timedelta(0))
    outcome = await working.collection(Step(new_id(), report_only=True))
    assert (outcome.items, outcome.findings) == (1, [])
    found: list[Finding] = []
    for left in (3, 2, 1):
        step = outcome.following
        assert step is not None
        assert len(step.missing) == left
        assert Step.decode(step.encode()) == step
        outcome = await working.missing(step, NO_TIME)
        found += outcome.findings
    assert {(one.kind, one.mint_id) for one in found} == {
        (DiscrepancyKind.MISSING_ON_CHAIN, mint.mint_id) for mint in gone
    }
    assert outcome.following
    assert (outcome.following.standard, outcome.following.missing) == (TokenStandard.SBT, ())


async def test_the_record_is_compared_in_as_many_steps_as_it_takes(
    service: Replica, nft: NftDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "CONCURRENT_READS", 2)
    nft.execute("DELETE FROM nft_mint_queue")
    wanted = {(await finalised(service, index)).mint_id for index in range(5)}
    working = Comparing(service.database, Chain(), timedelta(0))
    step: Step | None = Step(new_id(), report_only=True, phase=Phase.RECORD)
    found, examined = [], []
    while step:
        outcome = await working.record(step, NO_TIME)
        found += [one.mint_id for one in outcome.findings]
        examined.append(outcome.mints)
        step = outcome.following
    assert examined == [2, 2, 1]
    assert (len(found), set(found)) == (5, wanted)


@pytest.mark.parametrize(
    "attributes",
    [
        '["\\u0000"]',
        '["\\ud800"]',
        "[NaN, 1e999]",
        "1" + "0" * 400,
        "[" * 2_000,
        "[" * 500 + "]" * 500,
    ],
    ids=["nul", "surrogate", "no number", "beyond a double", "endless", "deep"],
)
async def test_whatever_an_item_says_can_be_told(service: Replica, attributes: str) -> None:
    mint = await finalised(service, 1)
    says = {**entries(mint.content, mint.mint_id), "attributes": attributes}
    item = chain_item(chain_pb2.NftItem(initialised=True, owner_address=ADA, content=says))
    assert item
    step = await planted(service, *differences(Record(mint, mint.content, moving=False), item))
    (told,) = await listed(service, step)
    read = type(told).FromString(told.SerializeToString())
    assert dict(read.found) == {"attributes": attributes}
