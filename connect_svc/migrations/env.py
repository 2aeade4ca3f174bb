"""Alembic's entry: brings Connect's schema to the newest version."""

from connect_svc.tables import metadata
from mesh.migrate import run_migrations

run_migrations(metadata)
