"""The tables; the names of six of them are the product owner's.

`nft_mint_queue` holds the mints themselves for ever; `nft_submissions` is the outbox to the Gateway
and empties as mints are taken. `nft_reconciliation_steps` holds what the run at work does next.
"""

from sqlalchemy import (
    ARRAY,
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
    Numeric,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from mesh.idempotency import idempotency_table
from mesh.outbox import queue_table

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
    }
)
Moment = DateTime(timezone=True)
UNDER_WAY = text("state NOT IN ('FAILED', 'CANCELLED', 'FINALIZED')")

# One row; its version changes with every type, so one read tells whether cached types are current.
catalog = Table(
    "nft_catalog",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("version", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("single", name="one_row"),
)

types = Table(
    "nft_types",
    metadata,
    Column("code", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("state", Text, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("description", Text, nullable=False),
    Column("counters", ARRAY(Text), nullable=False),
    Column("metadata_schema", JSONB(none_as_null=True)),
    Column("image", Text, nullable=False),
    Column("onchain_policy", Text, nullable=False),
    Column("token_standard", Text, nullable=False),
    Column("item_uri", Text, nullable=False, server_default=text("''")),
    Column("attributes", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("upgrade_policy", Text, nullable=False, server_default=text("'UPDATE_CONTENT'")),
)

level_rules = Table(
    "nft_level_rules",
    metadata,
    Column("nft_type", Text, ForeignKey(types.c.code), primary_key=True),
    Column("level", Integer, primary_key=True),
    Column("thresholds", JSONB, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("auto_mint_onchain", Boolean, nullable=False),
)

# Locked before anything else that a reward touches; `nft_id` repeats the instance's id, so that a
# reward that raises no level reads nothing further.
progress = Table(
    "nft_progress",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("nft_type", Text, ForeignKey(types.c.code), primary_key=True),
    Column("counters", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("level", Integer, nullable=False, server_default=text("0")),
    Column("nft_id", Uuid(as_uuid=False)),
    Column("grants", Integer, nullable=False, server_default=text("0")),
    Index("nft_progress_of_type", "nft_type", "user_id"),
    postgresql_with={"fillfactor": 70},
)

instances = Table(
    "nft_instances",
    metadata,
    Column("nft_id", Uuid(as_uuid=False), primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("nft_type", Text, ForeignKey(types.c.code), nullable=False),
    Column("level", Integer, nullable=False),
    Column("metadata", JSONB, nullable=False),
    Column("create_time", Moment, nullable=False),
    Column("update_time", Moment, nullable=False),
    CheckConstraint("level >= 0", name="level"),
    UniqueConstraint("user_id", "nft_type"),
)

mint_queue = Table(
    "nft_mint_queue",
    metadata,
    Column("mint_id", Uuid(as_uuid=False), primary_key=True),
    Column("nft_id", Uuid(as_uuid=False), ForeignKey(instances.c.nft_id), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("nft_type", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("content", JSONB, nullable=False),
    Column("operation_id", Uuid(as_uuid=False)),
    Column("operation_version", BigInteger, nullable=False, server_default=text("0")),
    Column("collection_address", Text),
    Column("item_index", Numeric(20, 0)),  # uint64 in the contract
    Column("item_address", Text),
    Column("owner_address", Text),
    Column("present_owner_address", Text),
    Column("failure_reason", Text, nullable=False, server_default=text("''")),
    Column("retryable", Boolean, nullable=False, server_default=text("false")),
    Column("retry_of", Uuid(as_uuid=False)),
    Column("create_time", Moment, nullable=False),
    Column("update_time", Moment, nullable=False),
    Column("kind", Text, nullable=False, server_default=text("'MINT'")),
    Column("item_mint_id", Uuid(as_uuid=False)),
    Column("token_standard", Text, nullable=False, server_default=text("'NFT'")),
    Column("level", Integer, nullable=False, server_default=text("1")),
    Column("outdated", Boolean, nullable=False, server_default=text("false")),
    CheckConstraint("(kind = 'MINT') = (item_mint_id IS NULL)", name="kind"),
    Index("nft_mint_queue_one_under_way", "nft_id", unique=True, postgresql_where=UNDER_WAY),
    Index("nft_mint_queue_of_instance", "nft_id", "mint_id"),
    Index("nft_mint_queue_of_user", "user_id", "mint_id"),
    Index("nft_mint_queue_by_state", "state", "mint_id"),
    Index("nft_mint_queue_of_collection", "collection_address", "item_index"),
)

audit_log = Table(
    "nft_audit_log",
    metadata,
    Column("entry_id", BigInteger, Identity(always=True), primary_key=True),
    Column("time", Moment, nullable=False, server_default=text("now()")),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("user_id", Text),
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB(none_as_null=True)),
    Column("reference", Text, nullable=False),
    Column("request_id", Text),
    Column("trace_id", Text),
    Column("nft_id", Uuid(as_uuid=False)),
    Index("nft_audit_log_of_user", "user_id", "entry_id"),
    Index(
        "nft_audit_log_of_nft",
        *("nft_id", "entry_id"),
        postgresql_where=text("nft_id IS NOT NULL"),
    ),
    Index("nft_audit_log_of_action", "action", "entry_id"),
    # The versions of a type; tombstones aside, what belongs to nobody is about types.
    Index(
        "nft_audit_log_of_type",
        *("subject", "entry_id"),
        postgresql_where=text("user_id IS NULL"),
    ),
)

# One row; locked last in every transaction that writes to the feed, so that positions are dense and
# in commit order. `epoch` is the key of resume tokens: change it when history is rewritten, as by
# restoring a backup.
feed_head = Table(
    "nft_feed_head",
    metadata,
    Column("single", Boolean, primary_key=True, server_default=text("true")),
    Column("position", BigInteger, nullable=False, server_default=text("0")),
    Column("epoch", Uuid, nullable=False, server_default=text("gen_random_uuid()")),
    CheckConstraint("single", name="one_row"),
    postgresql_with={"fillfactor": 10},
)

feed = Table(
    "nft_feed",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("mint_id", Uuid(as_uuid=False), nullable=False),
    Column("nft_id", Uuid(as_uuid=False), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("change", LargeBinary, nullable=False),  # a serialised nft.v1.MintChange
    Column("create_time", Moment, nullable=False, server_default=text("now()")),
    Index("nft_feed_of_mint", "mint_id", "position"),
)

# At most one is RUNNING; what it has yet to do is a step in its queue.
reconciliations = Table(
    "nft_reconciliations",
    metadata,
    Column("reconciliation_id", Uuid(as_uuid=False), primary_key=True),
    Column("state", Text, nullable=False, server_default=text("'RUNNING'")),
    Column("phase", Text, nullable=False, server_default=text("'CHAIN'")),
    Column("report_only", Boolean, nullable=False),
    Column("items_examined", BigInteger, nullable=False, server_default=text("0")),
    Column("mints_examined", BigInteger, nullable=False, server_default=text("0")),
    Column("failure_reason", Text, nullable=False, server_default=text("''")),
    Column("create_time", Moment, nullable=False, server_default=text("now()")),
    Column("update_time", Moment, nullable=False, server_default=text("now()")),
    Column("end_time", Moment),
    Index(
        "nft_reconciliations_one_at_a_time",
        "state",
        unique=True,
        postgresql_where=text("state = 'RUNNING'"),
    ),
)

discrepancies = Table(
    "nft_discrepancies",
    metadata,
    Column("discrepancy_id", BigInteger, Identity(always=True), primary_key=True),
    Column(
        "reconciliation_id",
        Uuid(as_uuid=False),
        ForeignKey(reconciliations.c.reconciliation_id),
        nullable=False,
    ),
    Column("kind", Text, nullable=False),
    Column("item_address", Text, nullable=False),
    Column("mint_id", Text, nullable=False),  # as the item spells it, which may be no id at all
    Column("nft_id", Uuid(as_uuid=False)),
    Column("user_id", Text),
    Column("expected", JSONB(none_as_null=True)),
    Column("found", JSONB(none_as_null=True)),
    Column("repair", Text, nullable=False),
    Column("repair_detail", Text, nullable=False, server_default=text("''")),
    Column("repair_mint_id", Uuid(as_uuid=False)),
    Column("create_time", Moment, nullable=False, server_default=text("now()")),
    Index("nft_discrepancies_of_run", "reconciliation_id", "discrepancy_id"),
)

submissions = queue_table(metadata, "nft_submissions")
reconciliation_steps = queue_table(metadata, "nft_reconciliation_steps")
idempotency_keys = idempotency_table(metadata)
