"""Minting: users and wallet links, operations, wallet messages, counters, reports to NFT.

Forward only: what was sent to the chain is never migrated back.
"""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE users (
    user_id text PRIMARY KEY,
    wallet_address text,
    link_time timestamptz,
    CONSTRAINT users_link_check CHECK ((wallet_address IS NULL) = (link_time IS NULL))
);

CREATE TABLE challenges (
    payload text PRIMARY KEY,
    user_id text NOT NULL,
    expire_time timestamptz NOT NULL,
    used_time timestamptz
);

CREATE TABLE collections (
    address text PRIMARY KEY,
    next_index bigint NOT NULL
);

CREATE TABLE wallets (
    address text PRIMARY KEY,
    next_sequence bigint NOT NULL DEFAULT 0,
    lease_holder text,
    lease_expire_time timestamptz,
    balance bigint NOT NULL DEFAULT 0,
    masterchain_seqno bigint NOT NULL DEFAULT 0,
    masterchain_time timestamptz,
    paused_reason text NOT NULL DEFAULT ''
) WITH (fillfactor = 10);

CREATE TABLE messages (
    message_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    wallet_address text NOT NULL REFERENCES wallets (address),
    sequence bigint NOT NULL,
    query_id integer NOT NULL,
    created_at bigint NOT NULL,
    value bigint NOT NULL,
    boc bytea NOT NULL,
    operation_ids uuid[] NOT NULL,
    phase smallint NOT NULL,
    processed_at bigint,
    create_time timestamptz NOT NULL DEFAULT now(),
    UNIQUE (wallet_address, sequence)
);
CREATE INDEX messages_open ON messages (message_id) WHERE phase < 3;

CREATE TABLE operations (
    operation_id uuid PRIMARY KEY,
    request_id text NOT NULL,
    mint_id uuid NOT NULL UNIQUE,
    user_id text NOT NULL REFERENCES users (user_id),
    content jsonb NOT NULL,
    state smallint NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    collection_address text,
    item_index bigint,
    item_address text UNIQUE,
    owner_address text,
    content_hash bytea,
    message_id bigint REFERENCES messages (message_id),
    query_id integer,
    seen_seqno bigint,
    seen_root_hash bytea,
    failure_reason text NOT NULL DEFAULT '',
    retryable boolean NOT NULL DEFAULT false,
    create_time timestamptz NOT NULL DEFAULT now(),
    update_time timestamptz NOT NULL DEFAULT now(),
    UNIQUE (collection_address, item_index),
    CONSTRAINT operations_state_check CHECK (state BETWEEN 1 AND 8),
    CONSTRAINT operations_placed_check
        CHECK (state NOT IN (3, 4, 5, 6) OR item_address IS NOT NULL),
    CONSTRAINT operations_seen_check CHECK (state <> 5 OR seen_root_hash IS NOT NULL)
) WITH (fillfactor = 60);
CREATE INDEX operations_to_send ON operations (operation_id)
    WHERE message_id IS NULL AND state IN (1, 3);
CREATE INDEX operations_parked ON operations (user_id) WHERE state = 2;
CREATE INDEX operations_in_flight ON operations (message_id) WHERE state IN (3, 4);
CREATE INDEX operations_not_final ON operations (seen_seqno) WHERE state = 5;
CREATE INDEX operations_by_state ON operations (state, operation_id);

CREATE TABLE callbacks (
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
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX callbacks_due ON callbacks (lane, due_time) WHERE dead_reason IS NULL;
CREATE INDEX callbacks_ordering ON callbacks (lane, ordering_key, sequence)
    WHERE ordering_key IS NOT NULL AND dead_reason IS NULL;

CREATE TABLE idempotency_keys (
    scope text NOT NULL,
    request_id text NOT NULL,
    fingerprint bytea NOT NULL,
    response bytea NOT NULL,
    PRIMARY KEY (scope, request_id)
);
"""

# Nothing that was ordered, sent or answered is deleted.
GRANTS = """
GRANT SELECT, INSERT, UPDATE ON users, collections, wallets, operations TO gateway_app;
GRANT SELECT, INSERT, UPDATE (used_time) ON challenges TO gateway_app;
GRANT SELECT, INSERT, UPDATE (phase, processed_at) ON messages TO gateway_app;
GRANT SELECT, INSERT ON idempotency_keys TO gateway_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON callbacks TO gateway_app;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(GRANTS)
