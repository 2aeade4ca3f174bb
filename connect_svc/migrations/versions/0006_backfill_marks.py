"""How far a preview goes is settled when it begins, and not when it is asked for."""

from alembic import op

revision = "0006_backfill_marks"
down_revision = "0005_backfills"


def upgrade() -> None:
    op.execute("GRANT UPDATE (last_event_id) ON backfills TO connect_app")
