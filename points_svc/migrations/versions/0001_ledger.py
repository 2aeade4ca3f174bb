"""The ledger: units, accounts, transactions, entries, lots, holds, seals, remembered request ids.

Forward only: a ledger is never migrated back.
"""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE units (
    code text PRIMARY KEY,
    name text NOT NULL
);
INSERT INTO units (code, name) VALUES ('G2A', 'Go2Asia points'), ('XP', 'Experience points');

CREATE TABLE accounts (
    account_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner text NOT NULL,
    unit text NOT NULL REFERENCES units (code),
    posted bigint NOT NULL,
    held bigint NOT NULL,
    version bigint NOT NULL,
    floor bigint,
    UNIQUE (owner, unit),
    CONSTRAINT accounts_floor_check CHECK (posted - held >= floor OR owner LIKE 'debt:%'),
    CONSTRAINT accounts_debt_check CHECK (posted <= 0 OR owner NOT LIKE 'debt:%'),
    CONSTRAINT accounts_held_check CHECK (held >= 0),
    CONSTRAINT accounts_has_floor_check CHECK (floor IS NOT NULL OR owner LIKE 'system:%')
) WITH (fillfactor = 70);

CREATE TABLE transactions (
    transaction_id uuid PRIMARY KEY,
    request_id text NOT NULL,
    kind text NOT NULL,
    user_id text NOT NULL,
    recipient text NOT NULL,
    unit text NOT NULL,
    amount bigint NOT NULL,
    reason text NOT NULL,
    reference text NOT NULL,
    metadata jsonb NOT NULL,
    effective_time timestamptz NOT NULL,
    booked_time timestamptz NOT NULL,
    reverses uuid,
    hold_id uuid,
    batch bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
    CONSTRAINT transactions_amount_check CHECK (amount > 0),
    CONSTRAINT transactions_recipient_check CHECK (recipient <> user_id),
    CONSTRAINT transactions_effective_time_check CHECK (effective_time <= booked_time)
);
CREATE INDEX transactions_user_id_transaction_id_idx ON transactions (user_id, transaction_id);
CREATE INDEX transactions_recipient_transaction_id_idx ON transactions (recipient, transaction_id)
    WHERE recipient <> '';
CREATE INDEX transactions_reference_transaction_id_idx ON transactions (reference, transaction_id)
    WHERE reference <> '';
CREATE INDEX transactions_reason_transaction_id_idx ON transactions (reason, transaction_id);
CREATE INDEX transactions_reverses_idx ON transactions (reverses) WHERE reverses IS NOT NULL;
CREATE INDEX transactions_batch_idx ON transactions (batch);

CREATE TABLE entries (
    transaction_id uuid NOT NULL,
    ordinal smallint NOT NULL,
    account_id bigint NOT NULL,
    amount bigint NOT NULL,
    balance_after bigint NOT NULL,
    account_version bigint NOT NULL,
    PRIMARY KEY (transaction_id, ordinal),
    UNIQUE (account_id, account_version),
    CONSTRAINT entries_amount_check CHECK (amount <> 0)
);

CREATE TABLE lots (
    transaction_id uuid NOT NULL,
    ordinal smallint NOT NULL,
    account_id bigint NOT NULL,
    amount bigint NOT NULL,
    remaining bigint NOT NULL,
    held bigint NOT NULL,
    expire_time timestamptz,
    open boolean GENERATED ALWAYS AS (remaining > 0) STORED,
    PRIMARY KEY (transaction_id, ordinal),
    CONSTRAINT lots_remaining_check CHECK (remaining >= 0 AND remaining <= amount),
    CONSTRAINT lots_held_check CHECK (held >= 0 AND held <= remaining)
) WITH (fillfactor = 70);
CREATE INDEX lots_next_idx ON lots (account_id, expire_time, transaction_id, ordinal) WHERE open;
CREATE INDEX lots_due_idx ON lots (expire_time) WHERE open AND expire_time IS NOT NULL;
CREATE INDEX lots_account_id_transaction_id_ordinal_idx
    ON lots (account_id, transaction_id, ordinal);

CREATE TABLE lot_changes (
    transaction_id uuid NOT NULL,
    lot_transaction_id uuid NOT NULL,
    lot_ordinal smallint NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (transaction_id, lot_transaction_id, lot_ordinal),
    CONSTRAINT lot_changes_amount_check CHECK (amount <> 0)
);

CREATE TABLE holds (
    hold_id uuid PRIMARY KEY,
    request_id text NOT NULL,
    account_id bigint NOT NULL REFERENCES accounts (account_id),
    user_id text NOT NULL,
    unit text NOT NULL,
    amount bigint NOT NULL,
    captured bigint NOT NULL,
    state text NOT NULL,
    reason text NOT NULL,
    reference text NOT NULL,
    placed_time timestamptz NOT NULL,
    expire_time timestamptz NOT NULL,
    closed_time timestamptz,
    CONSTRAINT holds_amount_check CHECK (amount > 0),
    CONSTRAINT holds_captured_check CHECK (captured >= 0 AND captured <= amount),
    CONSTRAINT holds_state_check CHECK (state IN ('active', 'captured', 'released', 'expired')),
    CONSTRAINT holds_closed_check CHECK ((state = 'active') = (closed_time IS NULL)),
    CONSTRAINT holds_captured_state_check CHECK ((state = 'captured') = (captured > 0))
);
CREATE INDEX holds_account_id_idx ON holds (account_id);
CREATE INDEX holds_due_idx ON holds (expire_time) WHERE state = 'active';

CREATE TABLE hold_lots (
    hold_id uuid NOT NULL REFERENCES holds (hold_id),
    lot_transaction_id uuid NOT NULL,
    lot_ordinal smallint NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (hold_id, lot_transaction_id, lot_ordinal),
    CONSTRAINT hold_lots_amount_check CHECK (amount > 0)
);

CREATE TABLE reversals (
    transaction_id uuid PRIMARY KEY REFERENCES transactions (transaction_id),
    amount bigint NOT NULL,
    reversed bigint NOT NULL,
    CONSTRAINT reversals_reversed_check CHECK (reversed > 0 AND reversed <= amount)
);

CREATE TABLE seals (
    number bigint PRIMARY KEY,
    first_batch bigint NOT NULL,
    end_batch bigint NOT NULL,
    transactions bigint NOT NULL,
    hash bytea NOT NULL,
    sealed_time timestamptz NOT NULL,
    CONSTRAINT seals_range_check CHECK (first_batch < end_batch)
);

CREATE TABLE idempotency_keys (
    scope text NOT NULL,
    request_id text NOT NULL,
    fingerprint bytea NOT NULL,
    response bytea NOT NULL,
    PRIMARY KEY (scope, request_id)
);
"""

# Once a statement, not once a row: one aggregate over all entries of a batch, so a transaction's
# entries go in with one statement. It stands in for foreign keys too, whose checks row by row took
# a quarter of the database's time for a booking; nothing that entries refer to can be deleted.
# The settings hold the plan to index look-ups, which a session that began with empty tables would
# otherwise not choose.
ENTRIES_BALANCE = """
CREATE FUNCTION refuse_unsound_entries() RETURNS trigger LANGUAGE plpgsql
SET enable_hashjoin = off SET enable_mergejoin = off SET enable_seqscan = off AS $$
DECLARE
    unsound uuid;
BEGIN
    SELECT transaction_id INTO unsound
    FROM added
        LEFT JOIN accounts USING (account_id)
        LEFT JOIN transactions USING (transaction_id)
    GROUP BY transaction_id, accounts.unit
    HAVING sum(added.amount) <> 0
        OR bool_or(accounts.account_id IS NULL OR transactions.unit IS DISTINCT FROM accounts.unit)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the entries of transaction % do not sum to zero, or its account is missing'
            ' or of another unit', unsound
            USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER entries_sound AFTER INSERT ON entries
    REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_unsound_entries();
"""

# Grants keep the service from changing history; these keep its owner from doing so by mistake.
HISTORY_IS_IMMUTABLE = """
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% of % is refused: history is append-only; book a correcting transaction',
        TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;
"""
IMMUTABLE = ("transactions", "entries", "lot_changes", "hold_lots", "seals", "idempotency_keys")
UNDELETABLE = ("accounts", "lots", "holds", "reversals")

# Captured, released or expired once: nothing about a hold changes after that.
HOLDS_CLOSE_ONCE = """
CREATE TRIGGER holds_close_once BEFORE UPDATE ON holds FOR EACH ROW
    WHEN (OLD.state <> 'active') EXECUTE FUNCTION refuse_change();
"""

GRANTS = """
GRANT SELECT ON units TO points_app;
GRANT SELECT, INSERT, UPDATE (posted, held, version, floor) ON accounts TO points_app;
GRANT SELECT, INSERT, UPDATE (remaining, held) ON lots TO points_app;
GRANT SELECT, INSERT, UPDATE (state, captured, closed_time) ON holds TO points_app;
GRANT SELECT, INSERT, UPDATE (reversed) ON reversals TO points_app;
GRANT SELECT, INSERT ON transactions, entries, lot_changes, hold_lots, seals, idempotency_keys
    TO points_app;
"""


def upgrade() -> None:
    op.execute(TABLES)
    op.execute(ENTRIES_BALANCE)
    op.execute(HISTORY_IS_IMMUTABLE)
    for table in IMMUTABLE:
        op.execute(
            f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    for table in UNDELETABLE:
        op.execute(
            f"CREATE TRIGGER {table}_undeletable BEFORE DELETE OR TRUNCATE ON {table}"
            " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
        )
    op.execute(HOLDS_CLOSE_ONCE)
    op.execute(GRANTS)
