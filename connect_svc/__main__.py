"""Starts the Connect service: `python -m connect_svc`, configured by CONNECT_* variables."""

from collections.abc import Callable

from go2asia.connect.v1 import (
    events_pb2,
    events_pb2_grpc,
    reward_actions_pb2,
    reward_actions_pb2_grpc,
    rules_pb2,
    rules_pb2_grpc,
)

from connect_svc.bus import EventBus
from connect_svc.catalog import CatalogCache, CatalogFollower
from connect_svc.clients import Clients
from connect_svc.config import ConnectSettings
from connect_svc.dispatcher import Dispatcher
from connect_svc.intake import Intake
from connect_svc.reversal_targets import BACK
from connect_svc.servicer import EventServicer, RewardActionServicer, RuleServicer
from connect_svc.targets import OUT
from mesh import telemetry
from mesh.db import Database
from mesh.migrate import migrate
from mesh.server import Registration, run, serve


async def main() -> None:
    """Migrates if asked to, then serves until told to stop."""
    settings = ConnectSettings()
    telemetry.start("connect", settings)
    if settings.migration_url is not None:
        await migrate("connect_svc", settings.migration_url.get_secret_value())
    url = settings.database_url.get_secret_value()
    catalog = CatalogCache()
    async with (
        Database(url, application_name="connect") as database,
        CatalogFollower(database, url, catalog),
        Clients(settings) as clients,
        Dispatcher(database, [target(clients) for target in (*OUT, *BACK)]) as dispatcher,
        Intake(database, catalog, wake=dispatcher.wake) as intake,
        EventBus(settings, intake),
    ):
        services = registrations(intake, database, catalog, dispatcher.wake)
        await serve(settings, services, probes={"postgres": database.ping})


def registrations(
    intake: Intake, database: Database, catalog: CatalogCache, wake: Callable[[], None]
) -> list[Registration]:
    """The services that Connect offers."""
    return [
        Registration(
            events_pb2.DESCRIPTOR.services_by_name["EventService"].full_name,
            events_pb2_grpc.add_EventServiceServicer_to_server,
            EventServicer(intake, database, wake=wake),
        ),
        Registration(
            rules_pb2.DESCRIPTOR.services_by_name["RuleService"].full_name,
            rules_pb2_grpc.add_RuleServiceServicer_to_server,
            RuleServicer(database, catalog),
        ),
        Registration(
            reward_actions_pb2.DESCRIPTOR.services_by_name["RewardActionService"].full_name,
            reward_actions_pb2_grpc.add_RewardActionServiceServicer_to_server,
            RewardActionServicer(database, wake=wake),
        ),
    ]


if __name__ == "__main__":
    run(main())
