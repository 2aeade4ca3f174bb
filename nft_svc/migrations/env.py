"""Alembic's entry point; run through `mesh.migrate.migrate("nft_svc", …)`."""

from mesh.migrate import run_migrations
from nft_svc.tables import metadata

run_migrations(metadata)
