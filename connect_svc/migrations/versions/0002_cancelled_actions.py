"""Actions that an operator took back before they were sent."""

from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.execute("ALTER TABLE reward_actions DROP CONSTRAINT reward_actions_state_check")
    op.execute(
        "ALTER TABLE reward_actions ADD CONSTRAINT reward_actions_state_check"
        " CHECK (state IN ('PENDING', 'COMPLETED', 'FAILED', 'CANCELLED'))"
    )
