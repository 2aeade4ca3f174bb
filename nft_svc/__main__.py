"""Starts the NFT service: `python -m nft_svc`."""

from mesh import telemetry
from mesh.migrate import migrate
from mesh.server import run, serve
from nft_svc.composition import composed
from nft_svc.config import NftSettings


async def main() -> None:
    """Migrates if asked to, then serves until asked to stop."""
    settings = NftSettings.model_validate({})  # from the environment
    telemetry.start("nft", settings)
    if settings.migration_url is not None:
        await migrate("nft_svc", settings.migration_url.get_secret_value())
    async with composed(settings) as service:
        await serve(
            settings,
            service.registrations,
            probes={"database": service.database.ping},
            before_streams_end=service.feed.drain,
        )


if __name__ == "__main__":
    run(main())
