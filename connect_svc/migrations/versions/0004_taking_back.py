"""Events taken back, also before they arrive, and what becomes of their actions."""

from alembic import op

revision = "0004_taking_back"
down_revision = "0003_limits"

UPGRADE = """
ALTER TABLE reward_actions ADD COLUMN reversal_error text NOT NULL DEFAULT '';
ALTER TABLE reward_actions ADD COLUMN reversal_result text NOT NULL DEFAULT '';
ALTER TABLE reward_actions DROP CONSTRAINT reward_actions_state_check;
ALTER TABLE reward_actions ADD CONSTRAINT reward_actions_state_check CHECK (
    state IN ('PENDING', 'COMPLETED', 'FAILED', 'CANCELLED', 'REVERSING', 'REVERSED',
        'REVERSAL_FAILED')
);
GRANT UPDATE (reversal_error, reversal_result) ON reward_actions TO connect_app;

CREATE TABLE event_reversals (
    event_id uuid PRIMARY KEY,
    reason text NOT NULL,
    author text NOT NULL,
    before_arrival boolean NOT NULL,
    reverse_time timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE reversed_arrivals (
    event_id uuid PRIMARY KEY,
    fingerprint bytea NOT NULL
);
GRANT SELECT, INSERT ON event_reversals, reversed_arrivals TO connect_app;
"""


def upgrade() -> None:
    op.execute(UPGRADE)
    for table in ("event_reversals", "reversed_arrivals"):
        op.execute(
            f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
