"""Events, evaluations, rules, reward actions and their queue, remembered request ids.

Forward only: what was decided is never migrated back.
"""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE event_keys (
    source text NOT NULL,
    external_id text NOT NULL,
    fingerprint bytea NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (source, external_id)
);

CREATE TABLE events (
    event_id uuid PRIMARY KEY,
    source text NOT NULL,
    external_id text NOT NULL,
    event_type text NOT NULL,
    actor_user_id text NOT NULL,
    primary_subject_user_id text NOT NULL,
    context jsonb NOT NULL,
    occurred_time timestamptz NOT NULL,
    received_time timestamptz NOT NULL
);
CREATE INDEX events_actor_user_id_event_id_idx ON events (actor_user_id, event_id);
CREATE INDEX events_event_type_event_id_idx ON events (event_type, event_id);

CREATE TABLE evaluations (
    event_id uuid PRIMARY KEY,
    catalog_version bigint NOT NULL,
    outcomes jsonb NOT NULL
);

CREATE TABLE rule_catalog (
    singleton boolean DEFAULT true PRIMARY KEY,
    version bigint NOT NULL,
    CONSTRAINT rule_catalog_singleton_check CHECK (singleton)
);
INSERT INTO rule_catalog (version) VALUES (0);

CREATE TABLE rule_versions (
    rule_id text NOT NULL,
    version integer NOT NULL,
    catalog_version bigint NOT NULL,
    event_type text NOT NULL,
    state text NOT NULL,
    definition bytea NOT NULL,
    author text NOT NULL,
    create_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (rule_id, version)
);
CREATE INDEX rule_versions_catalog_version_idx ON rule_versions (catalog_version);

CREATE TABLE reward_actions (
    action_id uuid PRIMARY KEY,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    event_id uuid NOT NULL,
    rule_id text NOT NULL,
    rule_version integer NOT NULL,
    action_key text NOT NULL,
    recipient_user_id text NOT NULL,
    kind text NOT NULL,
    command jsonb NOT NULL,
    state text NOT NULL DEFAULT 'PENDING',
    attempts integer NOT NULL DEFAULT 0,
    last_error text NOT NULL DEFAULT '',
    result text NOT NULL DEFAULT '',
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reward_actions_state_check CHECK (state IN ('PENDING', 'COMPLETED', 'FAILED'))
);
CREATE UNIQUE INDEX reward_actions_sequence_idx ON reward_actions (sequence);
CREATE INDEX reward_actions_state_sequence_idx ON reward_actions (state, sequence);
CREATE INDEX reward_actions_event_id_idx ON reward_actions (event_id);
CREATE INDEX reward_actions_recipient_user_id_sequence_idx
    ON reward_actions (recipient_user_id, sequence);
CREATE INDEX reward_actions_rule_id_sequence_idx ON reward_actions (rule_id, sequence);

CREATE TABLE reward_queue (
    item_id text PRIMARY KEY,
    sequence bigint GENERATED ALWAYS AS IDENTITY,
    enqueued_time timestamptz NOT NULL DEFAULT now(),
    due_time timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease_expire_time timestamptz,
    token uuid,
    attempts integer NOT NULL DEFAULT 0,
    lane text NOT NULL,
    ordering_key text,
    traceparent text,
    payload bytea NOT NULL,
    last_error text,
    dead_reason text
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX reward_queue_due ON reward_queue (lane, due_time) WHERE dead_reason IS NULL;
CREATE INDEX reward_queue_ordering ON reward_queue (lane, ordering_key, sequence)
    WHERE ordering_key IS NOT NULL AND dead_reason IS NULL;

CREATE TABLE idempotency_keys (
    scope text NOT NULL,
    request_id text NOT NULL,
    fingerprint bytea NOT NULL,
    response bytea NOT NULL,
    PRIMARY KEY (scope, request_id)
);
"""

# Grants keep the service from changing history; these keep its owner from doing so by mistake.
HISTORY_IS_IMMUTABLE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only; write a new row that supersedes the old', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
"""
IMMUTABLE = ("event_keys", "events", "evaluations", "rule_versions", "idempotency_keys")

GRANTS = f"""
GRANT SELECT, INSERT ON {", ".join(IMMUTABLE)} TO connect_app;
GRANT SELECT, UPDATE (version) ON rule_catalog TO connect_app;
GRANT SELECT, INSERT, UPDATE (state, attempts, last_error, result, update_time)
    ON reward_actions TO connect_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON reward_queue TO connect_app;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(HISTORY_IS_IMMUTABLE)
    for table in IMMUTABLE:
        op.execute(
            f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    op.execute(GRANTS)
