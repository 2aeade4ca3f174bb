"""The Gateway's tables; `migrations/` creates them and grants the service's user what it needs."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from mesh.idempotency import idempotency_table
from mesh.outbox import queue_table

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

Moment = DateTime(timezone=True)

# A row for every user ever seen: orders share its lock, LinkWallet takes it alone, so that no order
# is parked while the wallet that would release it is being linked.
users = Table(
    "users",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("wallet_address", Text),
    Column("link_time", Moment),
    CheckConstraint("(wallet_address IS NULL) = (link_time IS NULL)", name="link"),
)

challenges = Table(
    "challenges",
    metadata,
    Column("payload", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("expire_time", Moment, nullable=False),
    Column("used_time", Moment),
)

# The counter of item indices; locked by whoever assigns them, so that they are dense.
collections = Table(
    "collections",
    metadata,
    Column("address", Text, primary_key=True),
    Column("next_index", BigInteger, nullable=False),
)

# One sender per wallet: the holder of the lease. `next_sequence` numbers its messages for ever and
# gives each its query id. The rest is what the holder last saw.
wallets = Table(
    "wallets",
    metadata,
    Column("address", Text, primary_key=True),
    Column("next_sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("lease_holder", Text),
    Column("lease_expire_time", Moment),
    Column("balance", BigInteger, nullable=False, server_default=text("0")),
    Column("masterchain_seqno", BigInteger, nullable=False, server_default=text("0")),
    Column("masterchain_time", Moment),
    Column("paused_reason", Text, nullable=False, server_default=text("''")),
    postgresql_with={"fillfactor": 10},
)

messages = Table(
    "messages",
    metadata,
    Column("message_id", BigInteger, Identity(always=True), primary_key=True),
    Column("wallet_address", Text, ForeignKey(wallets.c.address), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("query_id", Integer, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("value", BigInteger, nullable=False),
    Column("boc", LargeBinary, nullable=False),
    Column("operation_ids", ARRAY(Uuid(as_uuid=False)), nullable=False),
    Column("phase", SmallInteger, nullable=False),
    Column("processed_at", BigInteger),
    Column("create_time", Moment, nullable=False, server_default=text("now()")),
    UniqueConstraint("wallet_address", "sequence"),
    Index("messages_open", "message_id", postgresql_where=text("phase < 3")),
)

operations = Table(
    "operations",
    metadata,
    Column("operation_id", Uuid(as_uuid=False), primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("kind", SmallInteger, nullable=False),
    Column("mint_id", Uuid(as_uuid=False)),
    Column("user_id", Text, ForeignKey(users.c.user_id), nullable=False),
    Column("content", JSONB),
    Column("standard", SmallInteger),
    Column("item_mint_id", Uuid(as_uuid=False), ForeignKey("operations.mint_id")),
    # Orders the changes of an item, on the chain too: an older one never replaces a newer one.
    Column("item_version", BigInteger),
    Column("amount", BigInteger),
    Column("comment", Text),
    Column("state", SmallInteger, nullable=False),
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    Column("collection_address", Text),
    Column("item_index", BigInteger),
    Column("item_address", Text),
    Column("owner_address", Text),
    Column("message_id", BigInteger, ForeignKey(messages.c.message_id)),
    Column("query_id", Integer),
    Column("seen_seqno", BigInteger),
    Column("seen_root_hash", LargeBinary),
    Column("failure_reason", Text, nullable=False, server_default=text("''")),
    Column("retryable", Boolean, nullable=False, server_default=text("false")),
    # How often a contract turned it down; it is tried again later and with more gas each time.
    Column("refusals", SmallInteger, nullable=False, server_default=text("0")),
    Column("create_time", Moment, nullable=False, server_default=text("now()")),
    Column("update_time", Moment, nullable=False, server_default=text("now()")),
    UniqueConstraint("mint_id"),
    CheckConstraint("state BETWEEN 1 AND 8", name="state"),
    CheckConstraint(
        "CASE kind WHEN 1 THEN num_nulls(mint_id, content, standard) = 0"
        " WHEN 2 THEN num_nulls(amount, comment) = 0"
        " WHEN 3 THEN num_nulls(mint_id, content, item_mint_id, item_version) = 0"
        " WHEN 4 THEN num_nulls(mint_id, item_mint_id) = 0 ELSE false END",
        name="task",
    ),
    CheckConstraint(
        "state NOT IN (3, 4, 5, 6)"
        " OR owner_address IS NOT NULL AND (kind = 2 OR item_address IS NOT NULL)",
        name="placed",
    ),
    CheckConstraint("state <> 5 OR seen_root_hash IS NOT NULL", name="seen"),
    Index(
        "operations_places",
        "collection_address",
        "item_index",
        unique=True,
        postgresql_where=text("kind = 1"),
    ),
    Index("operations_items", "item_address"),
    # A change is placed, and by that ready to send, once its item was seen on the chain.
    Index(
        "operations_to_send",
        "operation_id",
        postgresql_where=text(
            "message_id IS NULL AND state IN (1, 3) AND (kind < 3 OR item_address IS NOT NULL)"
        ),
    ),
    Index("operations_changes", "item_mint_id", postgresql_where=text("kind >= 3")),
    Index("operations_transfers", "user_id", "create_time", postgresql_where=text("kind = 2")),
    Index("operations_parked", "user_id", postgresql_where=text("state = 2")),
    Index("operations_in_flight", "message_id", postgresql_where=text("state IN (3, 4)")),
    Index("operations_not_final", "seen_seqno", postgresql_where=text("state = 5")),
    Index("operations_by_state", "state", "operation_id"),
    postgresql_with={"fillfactor": 60},
)

callbacks = queue_table(metadata, "callbacks")
# Remembered is, for a mint its operation's id, for a challenge its payload, for a link its outcome.
idempotency_keys = idempotency_table(metadata)
