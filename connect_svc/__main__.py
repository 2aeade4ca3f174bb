"""Starts the Connect service: `python -m connect_svc`, configured by CONNECT_* variables."""

from connect_svc.backfilling import Backfiller
from connect_svc.bus import EventBus
from connect_svc.catalog import CatalogCache, CatalogFollower
from connect_svc.clients import Clients
from connect_svc.composition import registrations
from connect_svc.config import ConnectSettings
from connect_svc.dispatcher import Dispatcher
from connect_svc.intake import Intake
from connect_svc.reversal_targets import BACK
from connect_svc.targets import OUT
from mesh import telemetry
from mesh.db import Database
from mesh.migrate import migrate
from mesh.server import run, serve


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
        Backfiller(database, dispatch=dispatcher.wake) as backfiller,
        EventBus(settings, intake),
    ):
        services = registrations(
            intake, database, catalog, dispatch=dispatcher.wake, backfill=backfiller.wake
        )
        await serve(settings, services, probes={"postgres": database.ping})


if __name__ == "__main__":
    run(main())
