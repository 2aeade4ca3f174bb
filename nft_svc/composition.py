"""What the running NFT service consists of, wired together."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from go2asia.nft.v1 import (
    callbacks_pb2,
    callbacks_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    nft_pb2,
    nft_pb2_grpc,
    reconciliation_pb2,
    reconciliation_pb2_grpc,
    rewards_pb2,
    rewards_pb2_grpc,
)

from mesh.client import open_channel
from mesh.db import Database
from mesh.server import Registration
from mesh.worker import Worker
from nft_svc.cancelling import Cancelling
from nft_svc.catalog import Catalog
from nft_svc.census import Census
from nft_svc.clients import GatewayClient
from nft_svc.comparing import Comparing
from nft_svc.config import NftSettings
from nft_svc.feed import Feed
from nft_svc.handover import Handover
from nft_svc.mint_requests import MintRequests
from nft_svc.mints import MintKind
from nft_svc.orchestrator import Orchestrator
from nft_svc.reconciler import Reconciler, step_queue
from nft_svc.reconciliation_servicer import ReconciliationServicer
from nft_svc.reconciliations import Reconciliations
from nft_svc.repairs import Repairs
from nft_svc.reports import Reports
from nft_svc.reverts import Reverts
from nft_svc.rewards import Rewards
from nft_svc.servicer import CallbackServicer, CatalogServicer, NftServicer, RewardServicer
from nft_svc.submissions import submission_queue
from nft_svc.upgrading import Upgrading


@dataclass(frozen=True)
class Service:
    """The service at work, without its RPC server."""

    database: Database
    feed: Feed
    registrations: Sequence[Registration]


@asynccontextmanager
async def composed(settings: NftSettings) -> AsyncIterator[Service]:
    """Starts the workers, and stops them in the end."""
    url = settings.database_url.get_secret_value()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        database = await enter(Database(url, application_name="nft"))
        gateway = GatewayClient(await enter(open_channel(settings.gateway_address, settings.tls)))
        feed = await enter(Feed(database, url, settings.feed_limits))
        queue = submission_queue()
        workers: list[Worker] = []

        def mints_queued() -> None:
            for worker in workers:
                worker.wake()
            feed.announce()

        # Of its many commits few queue anything, and that can wait until the workers' next poll.
        reports = await enter(Reports(database, queue, feed.announce))
        await enter(Census(database, queue, settings.census_interval))
        steps = step_queue(settings.reconciliation_lease)
        comparing = Comparing(database, gateway, settings.reconciliation_grace)
        handover = Handover(gateway, reports)
        catalog = Catalog(database)
        repairs = Repairs(database, gateway, handover, catalog, queue, mints_queued)
        reconciler = await enter(Reconciler(steps, comparing, repairs).worker(database))
        cancelling = Cancelling(database, gateway, handover)
        upgrading = Upgrading(database, catalog, queue, cancelling, mints_queued)
        orchestrator = Orchestrator(gateway, reports)
        workers += [orchestrator.worker(database, queue, kind) for kind in MintKind]
        workers.append(upgrading.worker())
        for worker in workers:
            await enter(worker)
        reverts = Reverts(database, catalog, queue, mints_queued)
        requests = MintRequests(database, catalog, queue, cancelling, mints_queued)
        rewards = await enter(Rewards(database, catalog, queue, mints_queued))
        registrations = [
            Registration(
                rewards_pb2.DESCRIPTOR.services_by_name["RewardService"].full_name,
                rewards_pb2_grpc.add_RewardServiceServicer_to_server,
                RewardServicer(rewards, reverts),
            ),
            Registration(
                nft_pb2.DESCRIPTOR.services_by_name["NftService"].full_name,
                nft_pb2_grpc.add_NftServiceServicer_to_server,
                NftServicer(database, feed, requests),
            ),
            Registration(
                catalog_pb2.DESCRIPTOR.services_by_name["NftCatalogService"].full_name,
                catalog_pb2_grpc.add_NftCatalogServiceServicer_to_server,
                CatalogServicer(catalog),
            ),
            Registration(
                callbacks_pb2.DESCRIPTOR.services_by_name["MintCallbackService"].full_name,
                callbacks_pb2_grpc.add_MintCallbackServiceServicer_to_server,
                CallbackServicer(reports),
            ),
            Registration(
                reconciliation_pb2.DESCRIPTOR.services_by_name["ReconciliationService"].full_name,
                reconciliation_pb2_grpc.add_ReconciliationServiceServicer_to_server,
                ReconciliationServicer(Reconciliations(database, steps, reconciler.wake)),
            ),
        ]
        yield Service(database, feed, registrations)
