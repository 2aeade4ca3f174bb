"""The ledger's tables; `migrations/` creates them and grants the service's user what it needs."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from mesh.idempotency import idempotency_table

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

units = Table(
    "units",
    metadata,
    Column("code", Text, primary_key=True),
    Column("name", Text, nullable=False),
)

# Free space on each page lets updates stay there (HOT): no column that changes is indexed. The
# floor of a user's account is zero; that of a debt account is minus the overdraft limit, which
# bounds spending but not what reversals take back.
accounts = Table(
    "accounts",
    metadata,
    Column("account_id", BigInteger, Identity(always=True), primary_key=True),
    Column("owner", Text, nullable=False),
    Column("unit", Text, ForeignKey(units.c.code), nullable=False),
    Column("posted", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("floor", BigInteger),
    UniqueConstraint("owner", "unit"),
    CheckConstraint("posted - held >= floor OR owner LIKE 'debt:%'", name="floor"),
    CheckConstraint("posted <= 0 OR owner NOT LIKE 'debt:%'", name="debt"),
    CheckConstraint("held >= 0", name="held"),
    CheckConstraint("floor IS NOT NULL OR owner LIKE 'system:%'", name="has_floor"),
    postgresql_with={"fillfactor": "70"},
)

# `batch` is the database transaction that booked it: what seals cover ranges of. No foreign key to
# units: its check would have every booking lock the same row. The accounts that
# the entries refer to carry one.
transactions = Table(
    "transactions",
    metadata,
    Column("transaction_id", Uuid(as_uuid=False), primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("recipient", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("effective_time", DateTime(timezone=True), nullable=False),
    Column("booked_time", DateTime(timezone=True), nullable=False),
    Column("reverses", Uuid(as_uuid=False)),
    Column("hold_id", Uuid(as_uuid=False)),
    Column(
        "batch",
        BigInteger,
        nullable=False,
        server_default=text("((pg_current_xact_id())::text)::bigint"),
    ),
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("recipient <> user_id", name="recipient"),
    CheckConstraint("effective_time <= booked_time", name="effective_time"),
    Index(None, "user_id", "transaction_id"),
    Index(None, "recipient", "transaction_id", postgresql_where=text("recipient <> ''")),
    Index(None, "reference", "transaction_id", postgresql_where=text("reference <> ''")),
    Index(None, "reason", "transaction_id"),
    Index(None, "reverses", postgresql_where=text("reverses IS NOT NULL")),
    Index(None, "batch"),
)

# What foreign keys would check row by row, a trigger checks once a statement.
entries = Table(
    "entries",
    metadata,
    Column("transaction_id", Uuid(as_uuid=False), primary_key=True),
    Column("ordinal", SmallInteger, primary_key=True, autoincrement=False),
    Column("account_id", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("balance_after", BigInteger, nullable=False),
    Column("account_version", BigInteger, nullable=False),
    UniqueConstraint("account_id", "account_version"),
    CheckConstraint("amount <> 0", name="amount"),
)

# A lot is named by the transaction that made it and a number. `open` spares updates the indexes
# until nothing remains: only then does an indexed column change.
lots = Table(
    "lots",
    metadata,
    Column("transaction_id", Uuid(as_uuid=False), primary_key=True),
    Column("ordinal", SmallInteger, primary_key=True, autoincrement=False),
    Column("account_id", BigInteger, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("remaining", BigInteger, nullable=False),
    Column("held", BigInteger, nullable=False),
    Column("expire_time", DateTime(timezone=True)),
    Column("open", Boolean, Computed("remaining > 0", persisted=True)),
    CheckConstraint("remaining >= 0 AND remaining <= amount", name="remaining"),
    CheckConstraint("held >= 0 AND held <= remaining", name="held"),
    Index(
        "lots_next_idx",
        "account_id",
        "expire_time",
        "transaction_id",
        "ordinal",
        postgresql_where=text("open"),
    ),
    Index(
        "lots_due_idx",
        "expire_time",
        postgresql_where=text("open AND expire_time IS NOT NULL"),
    ),
    Index(None, "account_id", "transaction_id", "ordinal"),
    postgresql_with={"fillfactor": "70"},
)

# What later transactions took out of lots or put back; what made a lot is its own amount.
lot_changes = Table(
    "lot_changes",
    metadata,
    Column("transaction_id", Uuid(as_uuid=False), primary_key=True),
    Column("lot_transaction_id", Uuid(as_uuid=False), primary_key=True),
    Column("lot_ordinal", SmallInteger, primary_key=True, autoincrement=False),
    Column("amount", BigInteger, nullable=False),
    CheckConstraint("amount <> 0", name="amount"),
)

# A trigger keeps a hold that is no longer active from changing again.
holds = Table(
    "holds",
    metadata,
    Column("hold_id", Uuid(as_uuid=False), primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("account_id", BigInteger, ForeignKey(accounts.c.account_id), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("captured", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("placed_time", DateTime(timezone=True), nullable=False),
    Column("expire_time", DateTime(timezone=True), nullable=False),
    Column("closed_time", DateTime(timezone=True)),
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("captured >= 0 AND captured <= amount", name="captured"),
    CheckConstraint("state IN ('active', 'captured', 'released', 'expired')", name="state"),
    CheckConstraint("(state = 'active') = (closed_time IS NULL)", name="closed"),
    CheckConstraint("(state = 'captured') = (captured > 0)", name="captured_state"),
    Index(None, "account_id"),
    Index("holds_due_idx", "expire_time", postgresql_where=text("state = 'active'")),
)

hold_lots = Table(
    "hold_lots",
    metadata,
    Column("hold_id", Uuid(as_uuid=False), ForeignKey(holds.c.hold_id), primary_key=True),
    Column("lot_transaction_id", Uuid(as_uuid=False), primary_key=True),
    Column("lot_ordinal", SmallInteger, primary_key=True, autoincrement=False),
    Column("amount", BigInteger, nullable=False),
    CheckConstraint("amount > 0", name="amount"),
)

# How much of a transaction was taken back; its check is what races between reversals run into.
reversals = Table(
    "reversals",
    metadata,
    Column(
        "transaction_id",
        Uuid(as_uuid=False),
        ForeignKey(transactions.c.transaction_id),
        primary_key=True,
    ),
    Column("amount", BigInteger, nullable=False),
    Column("reversed", BigInteger, nullable=False),
    CheckConstraint("reversed > 0 AND reversed <= amount", name="reversed"),
)

# Each covers the transactions whose batch is in [first_batch, end_batch).
seals = Table(
    "seals",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("first_batch", BigInteger, nullable=False),
    Column("end_batch", BigInteger, nullable=False),
    Column("transactions", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("sealed_time", DateTime(timezone=True), nullable=False),
    CheckConstraint("first_batch < end_batch", name="range"),
)

# The response remembered for a request id is the id of the transaction it booked, or of the hold it
# placed; an empty one is a tombstone: what it names books nothing, ever.
idempotency_keys = idempotency_table(metadata)
