"""Runs of reconciliation, what they find, and the owners that they see."""

from alembic import op

revision = "0004_reconciliation"
down_revision = "0003_type_versions"

STATEMENTS = """
ALTER TABLE nft_mint_queue ADD COLUMN present_owner_address TEXT;
CREATE INDEX nft_mint_queue_of_collection ON nft_mint_queue (collection_address, item_index);

CREATE TABLE nft_reconciliations (
    reconciliation_id UUID NOT NULL,
    state TEXT DEFAULT 'RUNNING' NOT NULL,
    phase TEXT DEFAULT 'CHAIN' NOT NULL,
    report_only BOOLEAN NOT NULL,
    items_examined BIGINT DEFAULT 0 NOT NULL,
    mints_examined BIGINT DEFAULT 0 NOT NULL,
    failure_reason TEXT DEFAULT '' NOT NULL,
    create_time TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    update_time TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    end_time TIMESTAMP WITH TIME ZONE,
    CONSTRAINT nft_reconciliations_pkey PRIMARY KEY (reconciliation_id)
);
CREATE UNIQUE INDEX nft_reconciliations_one_at_a_time ON nft_reconciliations (state)
    WHERE state = 'RUNNING';

CREATE TABLE nft_discrepancies (
    discrepancy_id BIGINT GENERATED ALWAYS AS IDENTITY,
    reconciliation_id UUID NOT NULL,
    kind TEXT NOT NULL,
    item_address TEXT NOT NULL,
    mint_id TEXT NOT NULL,
    nft_id UUID,
    user_id TEXT,
    expected JSONB,
    found JSONB,
    repair TEXT NOT NULL,
    repair_detail TEXT DEFAULT '' NOT NULL,
    repair_mint_id UUID,
    create_time TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
    CONSTRAINT nft_discrepancies_pkey PRIMARY KEY (discrepancy_id),
    CONSTRAINT nft_discrepancies_reconciliation_id_fkey FOREIGN KEY(reconciliation_id)
        REFERENCES nft_reconciliations (reconciliation_id)
);
CREATE INDEX nft_discrepancies_of_run ON nft_discrepancies (reconciliation_id, discrepancy_id);

CREATE TABLE nft_reconciliation_steps (
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
    CONSTRAINT nft_reconciliation_steps_pkey PRIMARY KEY (item_id)
) WITH (fillfactor = 50,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0);
CREATE INDEX nft_reconciliation_steps_due ON nft_reconciliation_steps (lane, due_time)
    WHERE dead_reason IS NULL;
CREATE INDEX nft_reconciliation_steps_ordering
    ON nft_reconciliation_steps (lane, ordering_key, sequence)
    WHERE ordering_key IS NOT NULL AND dead_reason IS NULL;

GRANT SELECT, INSERT, UPDATE ON nft_reconciliations, nft_discrepancies TO nft_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON nft_reconciliation_steps TO nft_app;
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
