"""The ledger: units, accounts, transactions, entries, remembered request ids.

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
    CONSTRAINT accounts_floor_check CHECK (posted - held >= floor),
    CONSTRAINT accounts_held_check CHECK (held >= 0),
    CONSTRAINT accounts_user_has_floor_check
        CHECK (owner NOT LIKE 'user:%' OR floor IS NOT NULL)
) WITH (fillfactor = 70);

CREATE TABLE transactions (
    transaction_id uuid PRIMARY KEY,
    request_id text NOT NULL,
    kind text NOT NULL,
    user_id text NOT NULL,
    unit text NOT NULL,
    amount bigint NOT NULL,
    reason text NOT NULL,
    reference text NOT NULL,
    metadata jsonb NOT NULL,
    effective_time timestamptz NOT NULL,
    booked_time timestamptz NOT NULL,
    CONSTRAINT transactions_amount_check CHECK (amount > 0),
    CONSTRAINT transactions_effective_time_check CHECK (effective_time <= booked_time)
);
CREATE INDEX transactions_user_id_transaction_id_idx ON transactions (user_id, transaction_id);

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
IMMUTABLE = ("transactions", "entries", "idempotency_keys")

GRANTS = """
GRANT SELECT ON units TO points_app;
GRANT SELECT, INSERT, UPDATE (posted, held, version) ON accounts TO points_app;
GRANT SELECT, INSERT ON transactions, entries, idempotency_keys TO points_app;
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
    op.execute(
        "CREATE TRIGGER accounts_undeletable BEFORE DELETE OR TRUNCATE ON accounts"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()"
    )
    op.execute(GRANTS)
