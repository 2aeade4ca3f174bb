"""Alembic's entry: brings the ledger's schema to the newest version."""

from mesh.migrate import run_migrations
from points_svc.tables import metadata

run_migrations(metadata)
