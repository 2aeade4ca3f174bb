"""Badge types, progress, instances, mints, their outbox and their feed."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE nft_catalog (
    single BOOLEAN DEFAULT true NOT NULL,
    version BIGINT DEFAULT 0 NOT NULL,
    CONSTRAINT nft_catalog_pkey PRIMARY KEY (single),
    CONSTRAINT nft_catalog_one_row CHECK (single)
);

CREATE TABLE nft_types (
    code TEXT NOT NULL,
    version INTEGER NOT NULL,
    state TEXT NOT NULL,
    display_name TEXT NOT NULL,
    description TEXT NOT NULL,
    counters TEXT[] NOT NULL,
    metadata_schema JSONB,
    image TEXT NOT NULL,
    onchain_policy TEXT NOT NULL,
    token_standard TEXT NOT NULL,
    CONSTRAINT nft_types_pkey PRIMARY KEY (code)
);

CREATE TABLE nft_level_rules (
    nft_type TEXT NOT NULL,
    level INTEGER NOT NULL,
    thresholds JSONB NOT NULL,
    metadata JSONB NOT NULL,
    auto_mint_onchain BOOLEAN NOT NULL,
    CONSTRAINT nft_level_rules_pkey PRIMARY KEY (nft_type, level),
    CONSTRAINT nft_level_rules_nft_type_fkey FOREIGN KEY(nft_type) REFERENCES nft_types (code)
);

CREATE TABLE nft_progress (
    user_id TEXT NOT NULL,
    nft_type TEXT NOT NULL,
    counters JSONB DEFAULT '{}'::jsonb NOT NULL,
    level INTEGER DEFAULT 0 NOT NULL,
    nft_id UUID,
    CONSTRAINT nft_progress_pkey PRIMARY KEY (user_id, nft_type),
    CONSTRAINT nft_progress_nft_type_fkey FOREIGN KEY(nft_type) REFERENCES nft_types (code)
) WITH (fillfactor = 70);

CREATE TABLE nft_instances (
    nft_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    nft_type TEXT NOT NULL,
    level INTEGER NOT NULL,
    metadata JSONB NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    update_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT nft_instances_pkey PRIMARY KEY (nft_id),
    CONSTRAINT nft_instances_level CHECK (level >= 1),
    CONSTRAINT nft_instances_user_id_nft_type_key UNIQUE (user_id, nft_type),
    CONSTRAINT nft_instances_nft_type_fkey FOREIGN KEY(nft_type) REFERENCES nft_types (code)
);

CREATE TABLE nft_mint_queue (
    mint_id UUID NOT NULL,
    nft_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    nft_type TEXT NOT NULL,
    state TEXT NOT NULL,
    version BIGINT NOT NULL,
    content JSONB NOT NULL,
    operation_id UUID,
    operation_version BIGINT DEFAULT 0 NOT NULL,
    collection_address TEXT,
    item_index NUMERIC(20, 0),
    item_address TEXT,
    owner_address TEXT,
    failure_reason TEXT DEFAULT '' NOT NULL,
    retryable BOOLEAN DEFAULT false NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE NOT NULL,
    update_time TIMESTAMP WITH TIME ZONE NOT NULL,
    CONSTRAINT nft_mint_queue_pkey PRIMARY KEY (mint_id),
    CONSTRAINT nft_mint_queue_nft_id_fkey FOREIGN KEY(nft_id) REFERENCES nft_instances (nft_id)
);
CREATE INDEX nft_mint_queue_by_state ON nft_mint_queue (state, mint_id);
CREATE INDEX nft_mint_queue_of_instance ON nft_mint_queue (nft_id, mint_id);
CREATE INDEX nft_mint_queue_of_user ON nft_mint_queue (user_id, mint_id);
CREATE UNIQUE INDEX nft_mint_queue_one_per_instance ON nft_mint_queue (nft_id)
    WHERE state NOT IN ('FAILED', 'CANCELLED');

CREATE TABLE nft_audit_log (
    entry_id BIGINT GENERATED ALWAYS AS IDENTITY,
    time TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    user_id TEXT,
    before JSONB,
    after JSONB,
    reference TEXT NOT NULL,
    request_id TEXT,
    trace_id TEXT,
    CONSTRAINT nft_audit_log_pkey PRIMARY KEY (entry_id)
);
CREATE INDEX nft_audit_log_of_subject ON nft_audit_log (subject, entry_id);

CREATE TABLE nft_feed_head (
    single BOOLEAN DEFAULT true NOT NULL,
    position BIGINT DEFAULT 0 NOT NULL,
    epoch UUID DEFAULT gen_random_uuid() NOT NULL,
    CONSTRAINT nft_feed_head_pkey PRIMARY KEY (single),
    CONSTRAINT nft_feed_head_one_row CHECK (single)
) WITH (fillfactor = 10);

CREATE TABLE nft_feed (
    position BIGINT NOT NULL,
    mint_id UUID NOT NULL,
    nft_id UUID NOT NULL,
    user_id TEXT NOT NULL,
    change BYTEA NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT nft_feed_pkey PRIMARY KEY (position)
);
CREATE INDEX nft_feed_of_mint ON nft_feed (mint_id, position);

CREATE TABLE nft_submissions (
    item_id TEXT NOT NULL,
    sequence BIGINT GENERATED ALWAYS AS IDENTITY,
    enqueued_time TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    due_time TIMESTAMP WITH TIME ZONE DEFAULT clock_timestamp() NOT NULL,
    lease_expire_time TIMESTAMP WITH TIME ZONE,
    token UUID,
    attempts INTEGER DEFAULT 0 NOT NULL,
    lane TEXT NOT NULL,
    ordering_key TEXT,
    traceparent TEXT,
    payload BYTEA NOT NULL,
    last_error TEXT,
    dead_reason TEXT,
    CONSTRAINT nft_submissions_pkey PRIMARY KEY (item_id)
) WITH (fillfactor = 50,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0);
CREATE INDEX nft_submissions_due ON nft_submissions (lane, due_time)
    WHERE dead_reason IS NULL;
CREATE INDEX nft_submissions_ordering ON nft_submissions (lane, ordering_key, sequence)
    WHERE ordering_key IS NOT NULL AND dead_reason IS NULL;

CREATE TABLE idempotency_keys (
    scope TEXT NOT NULL,
    request_id TEXT NOT NULL,
    fingerprint BYTEA NOT NULL,
    response BYTEA NOT NULL,
    CONSTRAINT idempotency_keys_pkey PRIMARY KEY (scope, request_id)
);
"""

ROWS = """
INSERT INTO nft_catalog DEFAULT VALUES;
INSERT INTO nft_feed_head DEFAULT VALUES;
"""

# The audit log and the remembered requests only grow; the feed is trimmed, never changed.
GRANTS = """
GRANT SELECT, UPDATE (version) ON nft_catalog TO nft_app;
GRANT SELECT, INSERT, UPDATE ON nft_types TO nft_app;
GRANT SELECT, INSERT, DELETE ON nft_level_rules TO nft_app;
GRANT SELECT, INSERT, UPDATE ON nft_progress, nft_instances, nft_mint_queue TO nft_app;
GRANT SELECT, INSERT ON nft_audit_log, idempotency_keys TO nft_app;
GRANT SELECT, UPDATE (position) ON nft_feed_head TO nft_app;
GRANT SELECT, INSERT, DELETE ON nft_feed TO nft_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON nft_submissions TO nft_app;
"""


def upgrade() -> None:
    for statement in (TABLES + ROWS + GRANTS).split(";\n"):
        if statement.strip():
            op.execute(statement)
