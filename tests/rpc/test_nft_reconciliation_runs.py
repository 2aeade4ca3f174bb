"""Runs of reconciliation over RPC: what they find, repair, and survive."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from go2asia.gateway.v1 import minting_pb2
from go2asia.nft.v1 import (
    catalog_pb2,
    catalog_pb2_grpc,
    nft_pb2,
    nft_pb2_grpc,
    reconciliation_pb2,
    reconciliation_pb2_grpc,
    rewards_pb2_grpc,
)

from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.clock import new_id
from mesh.errors import InvalidArgument, PageTokenInvalid, PermissionDenied, RequestIdReused
from nft_svc.errors import ReconciliationNotFound, ReconciliationRunning
from tests.rpc.memory_chain import MemoryChain, place
from tests.rpc.mesh_probe import serving
from tests.rpc.nft_process import (
    MemoryGateway,
    NftProcess,
    a_user,
    explorer,
    nft_process,
    reward,
    settled,
)

Run = reconciliation_pb2.Reconciliation
SETTINGS = {"NFT_RECONCILIATION_GRACE_SECONDS": "0", "NFT_RECONCILIATION_LEASE_SECONDS": "2"}
KIND = reconciliation_pb2.DiscrepancyKind
REPAIR = reconciliation_pb2.RepairState


@dataclass
class World:
    """A chain and a Gateway in memory, and the service's database."""

    cluster: Cluster
    database: str
    authority: Authority
    address: str
    chain: MemoryChain
    gateway: MemoryGateway
    mints: list[nft_pb2.Mint] = field(default_factory=list)

    @asynccontextmanager
    async def process(self) -> AsyncIterator[NftProcess]:
        urls = self.cluster.url(self.database), self.cluster.url(self.database, "nft_app")
        async with nft_process(self.authority, *urls, self.address, **SETTINGS) as running:
            yield running

    def execute(self, statement: str, *values: Any) -> None:
        with self.cluster.connect(self.database) as connection:
            connection.execute(statement.encode(), values)

    async def mint(self, nft: NftProcess, count: int) -> None:
        """So many finalised mints, with their items on the chain."""
        async with nft.channel("connect/connect") as one, nft.channel("bff/web") as other:
            rewards: Any = rewards_pb2_grpc.RewardServiceStub(one)
            people: Any = nft_pb2_grpc.NftServiceStub(other)
            for index in range(count):
                outcome = (await rewards.ApplyReward(reward(a_user()))).outcome
                mint = await settled(people, outcome.mint_id, lambda mint: bool(mint.operation_id))
                operation = self.gateway.operations[mint.mint_id]
                operation.state = minting_pb2.OPERATION_STATE_FINALIZED
                operation.version = 5
                operation.collection_address = place(index).collection_address
                operation.item_index = index
                operation.item_address = place(index).item_address
                operation.owner_address = place(index).owner_address
                await nft.report(mint.mint_id, mint.operation_id, 5, 6, location=place(index))
                self.mints.append(mint)
                self.chain.plant(index, mint)


@pytest.fixture
async def world(
    postgres: Cluster, make_database: Callable[[], str], authority: Authority
) -> AsyncIterator[World]:
    chain, gateway = MemoryChain(), MemoryGateway()
    async with serving(authority, gateway.registration(), chain.registration()) as address:
        yield World(postgres, make_database(), authority, address, chain, gateway)
        chain.go_on.set()


@asynccontextmanager
async def operating(nft: NftProcess) -> AsyncIterator[Any]:
    async with nft.channel("operator/ops") as channel:
        yield reconciliation_pb2_grpc.ReconciliationServiceStub(channel)


async def a_type(nft: NftProcess) -> None:
    async with nft.channel("economy-manager/ann") as channel:
        request = catalog_pb2.CreateNftTypeRequest(request_id="t", nft_type=explorer())
        await catalog_pb2_grpc.NftCatalogServiceStub(channel).CreateNftType(request)


def start(report_only: bool = False) -> reconciliation_pb2.StartReconciliationRequest:
    return reconciliation_pb2.StartReconciliationRequest(
        request_id=new_id(), report_only=report_only
    )


async def ended(operators: Any, run: Run, seconds: float = 20) -> Run:
    request = reconciliation_pb2.GetReconciliationRequest(reconciliation_id=run.reconciliation_id)
    async with asyncio.timeout(seconds):
        while True:
            seen: Run = (await operators.GetReconciliation(request)).reconciliation
            if seen.state != Run.STATE_RUNNING:
                return seen
            await asyncio.sleep(0.05)


async def found(operators: Any, run: Run, **filters: Any) -> list[Any]:
    request = reconciliation_pb2.ListDiscrepanciesRequest(
        reconciliation_id=run.reconciliation_id, page_size=2, **filters
    )
    listed: list[Any] = []
    while True:
        page = await operators.ListDiscrepancies(request)
        listed += page.discrepancies
        if not page.next_page_token:
            return listed
        request.page_token = page.next_page_token


async def test_each_kind_is_found_and_what_is_safe_is_repaired(world: World) -> None:
    async with world.process() as nft, operating(nft) as operators:
        await a_type(nft)
        await world.mint(nft, 6)
        fine, gone, given, rewritten, behind, lost = world.mints
        bob = "0:" + "b0" * 32
        del world.chain.items[1]
        world.chain.plant(2, given, owner_address=bob)
        world.chain.plant(3, rewritten, content={"name": "Emperor", "mint_id": rewritten.mint_id})
        world.chain.plant(8, nft_pb2.Mint(mint_id=new_id()))
        world.execute(
            "UPDATE nft_mint_queue SET state = 'SUBMITTED', operation_version = 2"
            " WHERE mint_id = %s", behind.mint_id,
        )  # fmt: skip
        world.execute(
            "UPDATE nft_mint_queue SET state = 'QUEUED', operation_id = NULL, item_address = NULL,"
            " operation_version = 0 WHERE mint_id = %s", lost.mint_id,
        )  # fmt: skip
        wanted = {
            ("MISSING_ON_CHAIN", gone.mint_id): "NONE",
            ("WRONG_OWNER", given.mint_id): "DONE",
            ("WRONG_CONTENT", rewritten.mint_id): "ORDERED",
            ("UNKNOWN_ON_CHAIN", world.chain.items[8].content["mint_id"]): "NONE",
            ("STATE_BEHIND", behind.mint_id): "DONE",
            ("STATE_BEHIND", lost.mint_id): "DONE",
        }
        report = await ended(
            operators, (await operators.StartReconciliation(start(True))).reconciliation
        )
        assert (report.state, report.items_examined) == (Run.STATE_COMPLETED, 6)
        seen = {told(one)[:2]: told(one)[2] for one in await found(operators, report)}
        assert seen == dict.fromkeys(wanted, "NONE"), "a report repairs nothing"

        run = await ended(operators, (await operators.StartReconciliation(start())).reconciliation)
        listed = await found(operators, run)
        assert {told(one)[:2]: told(one)[2] for one in listed} == wanted
        assert len(listed) == len(wanted)
        assert [one.discrepancy_id for one in listed] == sorted(o.discrepancy_id for o in listed)
        (owner,) = await found(operators, run, kind=KIND.DISCREPANCY_KIND_WRONG_OWNER)
        assert owner.found["owner_address"] == bob
        assert owner.user_id == given.user_id
        repaired = await found(operators, run, repair=REPAIR.REPAIR_STATE_DONE)
        assert len(repaired) == 3
        assert sum(one.count for one in run.discrepancies) == len(wanted)

        async with nft.channel("bff/web") as channel:
            people: Any = nft_pb2_grpc.NftServiceStub(channel)
            (ordered,) = [one.repair_mint_id for one in listed if one.repair_mint_id]
            change = await settled(people, ordered, lambda mint: bool(mint.operation_id))
            written = world.gateway.operations[ordered]
            assert (change.item_mint_id, written.item_mint_id) == (rewritten.mint_id,) * 2
            assert written.content.name == "Explorer I", "the record is the truth"
            for mint in (behind, lost):
                await settled(people, mint.mint_id, lambda mint: mint.state == 6)
            now = (await people.GetMint(nft_pb2.GetMintRequest(mint_id=given.mint_id))).mint
            assert now.present_owner_address == bob
            assert now.location.owner_address != bob, "where it was minted to stays on record"
        again = await ended(
            operators, (await operators.StartReconciliation(start())).reconciliation
        )
        assert {told(one)[0] for one in await found(operators, again)} == {
            "MISSING_ON_CHAIN", "UNKNOWN_ON_CHAIN",
        }, "the content is being changed"  # fmt: skip
        assert fine.mint_id not in {one.mint_id for one in listed}


def told(one: Any) -> tuple[str, str, str]:
    kind = KIND.Name(one.kind).removeprefix("DISCREPANCY_KIND_")
    return kind, one.mint_id, REPAIR.Name(one.repair).removeprefix("REPAIR_STATE_")


async def test_a_run_goes_on_after_its_replica_was_killed(world: World) -> None:
    async with world.process() as first, world.process() as second:
        await a_type(first)
        await world.mint(first, 7)
        world.chain.plant(1, world.mints[1], owner_address="0:" + "b0" * 32)
        world.chain.hold_from = 4
        async with operating(first) as operators, operating(second) as others:
            run = (await operators.StartReconciliation(start())).reconciliation
            async with asyncio.timeout(10):
                await world.chain.holding.wait()
            with pytest.raises(ReconciliationRunning) as refused:
                await others.StartReconciliation(start())
            assert refused.value.metadata == {"reconciliation_id": run.reconciliation_id}
            seen = await others.GetReconciliation(reconciliation_pb2.GetReconciliationRequest())
            assert (seen.reconciliation.state, seen.reconciliation.items_examined) == (1, 4)
            # Whichever of the two holds the step dies with it.
            first.kill()
            await first.exit_code()
            second.kill()
            await second.exit_code()
    world.chain.hold_from = None
    world.chain.go_on.set()
    async with world.process() as third, operating(third) as operators:
        done = await ended(operators, run)
        assert (done.state, done.items_examined) == (Run.STATE_COMPLETED, 7)
        (finding,) = await found(operators, run)
        assert told(finding) == ("WRONG_OWNER", world.mints[1].mint_id, "DONE")
    assert [page for page in world.chain.fetched if page < 4] == [0, 2], "no page is read again"


async def test_a_step_that_takes_too_long_says_so(world: World) -> None:
    world.chain.hold_from = 0
    async with world.process() as nft, operating(nft) as operators, asyncio.timeout(15):
        run = (await operators.StartReconciliation(start())).reconciliation
        request = reconciliation_pb2.GetReconciliationRequest()
        while not run.last_error:
            await asyncio.sleep(0.1)
            run = (await operators.GetReconciliation(request)).reconciliation
        assert (run.state, run.last_error.split(":")[0]) == (1, "DEADLINE_EXCEEDED")


async def test_bad_requests_are_told_what_is_wrong(world: World) -> None:
    async with world.process() as nft, operating(nft) as operators:
        get = reconciliation_pb2.GetReconciliationRequest
        with pytest.raises(ReconciliationNotFound):
            await operators.GetReconciliation(get())
        with pytest.raises(ReconciliationNotFound) as unknown:
            await operators.GetReconciliation(get(reconciliation_id=new_id()))
        assert unknown.value.field == "reconciliation_id"
        with pytest.raises(InvalidArgument, match="reconciliation_id"):
            await operators.GetReconciliation(get(reconciliation_id="7"))
        request = start()
        begun = (await operators.StartReconciliation(request)).reconciliation
        assert (await operators.StartReconciliation(request)).reconciliation == begun
        other = start(report_only=True)
        other.request_id = request.request_id
        with pytest.raises(RequestIdReused):
            await operators.StartReconciliation(other)
        done = await ended(operators, begun)
        assert (done.items_examined, done.mints_examined, len(done.discrepancies)) == (0, 0, 0)
        listing = reconciliation_pb2.ListDiscrepanciesRequest(
            reconciliation_id=begun.reconciliation_id, page_token="Zm9yZWlnbg"
        )
        with pytest.raises(PageTokenInvalid):
            await operators.ListDiscrepancies(listing)
        async with nft.channel("bff/web") as channel:
            stub: Any = reconciliation_pb2_grpc.ReconciliationServiceStub(channel)
            with pytest.raises(PermissionDenied):
                await stub.StartReconciliation(start())
