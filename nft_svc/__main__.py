"""Starts the NFT service: `python -m nft_svc`."""

from contextlib import AsyncExitStack

from go2asia.nft.v1 import (
    callbacks_pb2,
    callbacks_pb2_grpc,
    catalog_pb2,
    catalog_pb2_grpc,
    nft_pb2,
    nft_pb2_grpc,
    rewards_pb2,
    rewards_pb2_grpc,
)

from mesh import telemetry
from mesh.client import open_channel
from mesh.db import Database
from mesh.migrate import migrate
from mesh.server import Registration, run, serve
from nft_svc.catalog import Catalog
from nft_svc.census import Census
from nft_svc.clients import GatewayClient
from nft_svc.config import NftSettings
from nft_svc.feed import Feed
from nft_svc.mint_requests import MintRequests
from nft_svc.orchestrator import Orchestrator
from nft_svc.reports import Reports
from nft_svc.reverts import Reverts
from nft_svc.rewards import Rewards
from nft_svc.servicer import CallbackServicer, CatalogServicer, NftServicer, RewardServicer
from nft_svc.submissions import submission_queue


async def main() -> None:
    """Wires the parts together and serves until asked to stop."""
    settings = NftSettings.model_validate({})  # from the environment
    telemetry.start("nft", settings)
    if settings.migration_url is not None:
        await migrate("nft_svc", settings.migration_url.get_secret_value())
    url = settings.database_url.get_secret_value()
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        database = await enter(Database(url, application_name="nft"))
        channel = await enter(open_channel(settings.gateway_address, settings.tls))
        feed = await enter(Feed(database, url, settings.feed_limits))
        reports = await enter(Reports(database, feed.announce))
        queue = submission_queue()
        worker = await enter(Orchestrator(GatewayClient(channel), reports).worker(database, queue))

        def mints_queued() -> None:
            worker.wake()
            feed.announce()

        await enter(Census(database, queue, settings.census_interval))
        catalog = Catalog(database)
        reverts = Reverts(database, catalog, queue, mints_queued)
        requests = MintRequests(database, catalog, queue, mints_queued)
        rewards = await enter(Rewards(database, catalog, queue, mints_queued))
        await serve(
            settings,
            [
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
            ],
            probes={"database": database.ping},
            before_streams_end=feed.drain,
        )


if __name__ == "__main__":
    run(main())
