"""Counters of caps and budgets, what was charged to them, and assigned variants."""

from alembic import op

revision = "0003_limits"
down_revision = "0002"

TABLES = """
CREATE TABLE limit_counters (
    rule_id text NOT NULL,
    user_id text NOT NULL,
    window_name text NOT NULL,
    unit text NOT NULL,
    used bigint NOT NULL DEFAULT 0,
    CONSTRAINT limit_counters_used_check CHECK (used >= 0),
    PRIMARY KEY (rule_id, user_id, window_name, unit)
) WITH (fillfactor = 50);

CREATE TABLE limit_charges (
    event_id uuid NOT NULL,
    action_id uuid NOT NULL,
    rule_id text NOT NULL,
    user_id text NOT NULL,
    window_name text NOT NULL,
    unit text NOT NULL,
    amount bigint NOT NULL,
    refund_time timestamptz,
    PRIMARY KEY (event_id, action_id, user_id, window_name, unit)
);

CREATE TABLE variant_assignments (
    rule_id text NOT NULL,
    user_id text NOT NULL,
    variant text NOT NULL,
    assign_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (rule_id, user_id)
);

ALTER TABLE reward_actions ADD COLUMN variant text NOT NULL DEFAULT '';
"""

GRANTS = """
GRANT SELECT, INSERT, UPDATE (used) ON limit_counters TO connect_app;
GRANT SELECT, INSERT, UPDATE (refund_time) ON limit_charges TO connect_app;
GRANT SELECT, INSERT, UPDATE (variant, assign_time) ON variant_assignments TO connect_app;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(GRANTS)
