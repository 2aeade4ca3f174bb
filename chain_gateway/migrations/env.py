"""Alembic's entry: brings the Gateway's schema to the newest version."""

from chain_gateway.tables import metadata
from mesh.migrate import run_migrations

run_migrations(metadata)
