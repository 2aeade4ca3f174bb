"""Rules tried on stored events, and the actions that came of it."""

from alembic import op

revision = "0005_backfills"
down_revision = "0004_taking_back"

UPGRADE = """
CREATE TABLE backfills (
    backfill_id uuid PRIMARY KEY,
    rule_id text NOT NULL,
    rule_version integer NOT NULL,
    catalog_version bigint NOT NULL,
    state text NOT NULL DEFAULT 'PREVIEWING',
    author text NOT NULL,
    last_event_id uuid NOT NULL,
    snapshot bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    seen_event_id uuid,
    events_seen bigint NOT NULL DEFAULT 0,
    preview jsonb NOT NULL DEFAULT '{}',
    result jsonb NOT NULL DEFAULT '{}',
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT backfills_state_check CHECK (
        state IN ('PREVIEWING', 'PREVIEWED', 'APPLYING', 'APPLIED')
    )
);
CREATE TABLE backfill_events (
    backfill_id uuid NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (backfill_id, event_id)
);
ALTER TABLE reward_actions ADD COLUMN backfill_id text NOT NULL DEFAULT '';

GRANT SELECT, INSERT,
    UPDATE (state, seen_event_id, events_seen, preview, result, update_time)
    ON backfills TO connect_app;
GRANT SELECT, INSERT ON backfill_events TO connect_app;
"""


def upgrade() -> None:
    op.execute(UPGRADE)
