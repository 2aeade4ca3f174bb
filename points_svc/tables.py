"""The ledger's tables; `migrations/` creates them and grants the service's user what it needs."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
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

# The one mutable table. Free space on each page lets updates stay there (HOT): no column that
# changes is indexed.
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
    CheckConstraint("posted - held >= floor", name="floor"),
    CheckConstraint("held >= 0", name="held"),
    CheckConstraint("owner NOT LIKE 'user:%' OR floor IS NOT NULL", name="user_has_floor"),
    postgresql_with={"fillfactor": "70"},
)

# No foreign key to units: its check would have every booking lock the same row. The accounts that
# the entries refer to carry one.
transactions = Table(
    "transactions",
    metadata,
    Column("transaction_id", Uuid(as_uuid=False), primary_key=True),
    Column("request_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("user_id", Text, nullable=False),
    Column("unit", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("effective_time", DateTime(timezone=True), nullable=False),
    Column("booked_time", DateTime(timezone=True), nullable=False),
    CheckConstraint("amount > 0", name="amount"),
    CheckConstraint("effective_time <= booked_time", name="effective_time"),
    Index(None, "user_id", "transaction_id"),
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

# The response remembered for a request id is the id of the transaction it booked.
idempotency_keys = idempotency_table(metadata)
