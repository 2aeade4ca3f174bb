"""Starts the Points service: `python -m points_svc`, configured by POINTS_* variables."""

from go2asia.points.v1 import points_pb2, points_pb2_grpc

from mesh import telemetry
from mesh.db import Database
from mesh.migrate import migrate
from mesh.server import Registration, run, serve
from points_svc.config import PointsSettings
from points_svc.posting import Desk
from points_svc.servicer import PointsServicer
from points_svc.upkeep import Upkeep


async def main() -> None:
    """Migrates if asked to, then serves until told to stop."""
    settings = PointsSettings()
    telemetry.start("points", settings)
    if settings.migration_url is not None:
        await migrate("points_svc", settings.migration_url.get_secret_value())
    url = settings.database_url.get_secret_value()
    async with (
        Database(url, application_name="points") as database,
        Upkeep(database),
        Desk(database) as desk,
    ):
        service = Registration(
            points_pb2.DESCRIPTOR.services_by_name["PointsService"].full_name,
            points_pb2_grpc.add_PointsServiceServicer_to_server,
            PointsServicer(desk, database),
        )
        await serve(settings, [service], probes={"postgres": database.ping})


if __name__ == "__main__":
    run(main())
