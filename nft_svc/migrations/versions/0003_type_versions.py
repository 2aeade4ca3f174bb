"""The versions of a type, found in the audit log."""

from alembic import op

revision = "0003_type_versions"
down_revision = "0002"


def upgrade() -> None:
    op.execute(
        "CREATE INDEX nft_audit_log_of_type ON nft_audit_log (subject, entry_id)"
        " WHERE user_id IS NULL"
    )
