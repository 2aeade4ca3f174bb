"""Connect's tables; `migrations/` creates them and grants the service's user what it needs."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from mesh.idempotency import idempotency_table
from mesh.outbox import queue_table

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
        "ck": "%(table_name)s_%(constraint_name)s_check",
    }
)

# Narrow and unpartitioned, because the key must be unique for ever; `events` may grow wide and be
# partitioned by time.
event_keys = Table(
    "event_keys",
    metadata,
    Column("source", Text, primary_key=True),
    Column("external_id", Text, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("event_id", Uuid(as_uuid=False), nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("event_id", Uuid(as_uuid=False), primary_key=True),
    Column("source", Text, nullable=False),
    Column("external_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("actor_user_id", Text, nullable=False),
    Column("primary_subject_user_id", Text, nullable=False),
    Column("context", JSONB, nullable=False),
    Column("occurred_time", DateTime(timezone=True), nullable=False),
    Column("received_time", DateTime(timezone=True), nullable=False),
    Index(None, "actor_user_id", "event_id"),
    Index(None, "event_type", "event_id"),
)

# What was decided about each event, one row an event; `outcomes` is a list of `rules.Outcome`.
evaluations = Table(
    "evaluations",
    metadata,
    Column("event_id", Uuid(as_uuid=False), primary_key=True),
    Column("catalog_version", BigInteger, nullable=False),
    Column("outcomes", JSONB, nullable=False),
)

# How events were taken back. An event that had yet to arrive is taken back by its key: `event_keys`
# then has it with an id of its own and an empty fingerprint.
event_reversals = Table(
    "event_reversals",
    metadata,
    Column("event_id", Uuid(as_uuid=False), primary_key=True),
    Column("reason", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("before_arrival", Boolean, nullable=False),
    Column("reverse_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# The fingerprints of events that arrived after they were taken back.
reversed_arrivals = Table(
    "reversed_arrivals",
    metadata,
    Column("event_id", Uuid(as_uuid=False), primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
)

# One row. Whoever writes a rule counts it up first, so rule writes happen one after the other.
rule_catalog = Table(
    "rule_catalog",
    metadata,
    Column("singleton", Boolean, primary_key=True, server_default=text("true")),
    Column("version", BigInteger, nullable=False),
    CheckConstraint("singleton", name="singleton"),
)

# The catalogue of version v is, for each rule, its last version with `catalog_version` <= v.
rule_versions = Table(
    "rule_versions",
    metadata,
    Column("rule_id", Text, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("catalog_version", BigInteger, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("definition", LargeBinary, nullable=False),
    Column("author", Text, nullable=False),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Index(None, "catalog_version"),
)

# What was decided, and the verdict of the target. Between the two the action is in the queue: it is
# DISPATCHED while a worker holds its claim there, so that claiming writes no second row. An action
# that is REVERSING is in the queue on its way back, in the place of its way out.
reward_actions = Table(
    "reward_actions",
    metadata,
    Column("action_id", Uuid(as_uuid=False), primary_key=True),
    Column("sequence", BigInteger, Identity(always=True), nullable=False),
    Column("event_id", Uuid(as_uuid=False), nullable=False),
    Column("rule_id", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("action_key", Text, nullable=False),
    Column("recipient_user_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("command", JSONB, nullable=False),
    Column("state", Text, nullable=False, server_default="PENDING"),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("last_error", Text, nullable=False, server_default=""),
    Column("result", Text, nullable=False, server_default=""),
    Column("reversal_error", Text, nullable=False, server_default=""),
    Column("reversal_result", Text, nullable=False, server_default=""),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("update_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("variant", Text, nullable=False, server_default=""),
    Column("backfill_id", Text, nullable=False, server_default=""),
    CheckConstraint(
        "state IN ('PENDING', 'COMPLETED', 'FAILED', 'CANCELLED', 'REVERSING', 'REVERSED',"
        " 'REVERSAL_FAILED')",
        name="state",
    ),
    Index(None, "sequence", unique=True),
    Index(None, "state", "sequence"),
    Index(None, "event_id"),
    Index(None, "recipient_user_id", "sequence"),
    Index(None, "rule_id", "sequence"),
)

# What was given so far under the limits of a rule: for one user or, with an empty user id, for all;
# points if there is a unit, else matches.
limit_counters = Table(
    "limit_counters",
    metadata,
    Column("rule_id", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("window_name", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("used", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("used >= 0", name="used"),
    # Room for the next version of a row on its own page: counting up then touches no index.
    postgresql_with={"fillfactor": 50},
)

# What each action counts for in which counter, and when it was counted out again.
limit_charges = Table(
    "limit_charges",
    metadata,
    Column("event_id", Uuid(as_uuid=False), primary_key=True),
    Column("action_id", Uuid(as_uuid=False), primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("user_id", Text, primary_key=True),
    Column("window_name", Text, primary_key=True),
    Column("unit", Text, primary_key=True),
    Column("amount", BigInteger, nullable=False),
    Column("refund_time", DateTime(timezone=True)),
)

variant_assignments = Table(
    "variant_assignments",
    metadata,
    Column("rule_id", Text, primary_key=True),
    Column("user_id", Text, primary_key=True),
    Column("variant", Text, nullable=False),
    Column("assign_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# Rules tried on stored events, once no transaction is under way that is older than `snapshot`, up
# to `last_event_id`, the newest there is then. `seen_event_id` is how far the state has come.
backfills = Table(
    "backfills",
    metadata,
    Column("backfill_id", Uuid(as_uuid=False), primary_key=True),
    Column("rule_id", Text, nullable=False),
    Column("rule_version", Integer, nullable=False),
    Column("catalog_version", BigInteger, nullable=False),
    Column("state", Text, nullable=False, server_default="PREVIEWING"),
    Column("author", Text, nullable=False),
    Column("last_event_id", Uuid(as_uuid=False), nullable=False),
    Column(
        "snapshot",
        BigInteger,
        nullable=False,
        server_default=text("pg_current_xact_id()::text::bigint"),
    ),
    Column("seen_event_id", Uuid(as_uuid=False)),
    Column("events_seen", BigInteger, nullable=False, server_default=text("0")),
    Column("preview", JSONB, nullable=False, server_default="{}"),
    Column("result", JSONB, nullable=False, server_default="{}"),
    Column("create_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("update_time", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint("state IN ('PREVIEWING', 'PREVIEWED', 'APPLYING', 'APPLIED')", name="state"),
)

# The events that a preview found.
backfill_events = Table(
    "backfill_events",
    metadata,
    Column("backfill_id", Uuid(as_uuid=False), primary_key=True),
    Column("event_id", Uuid(as_uuid=False), primary_key=True),
)

reward_queue = queue_table(metadata, "reward_queue")

# The response remembered for a request id is the rule version that it wrote.
idempotency_keys = idempotency_table(metadata)
