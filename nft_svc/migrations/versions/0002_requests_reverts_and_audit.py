"""Mints that people ask for and retry, badges given away, rewards taken back, a readable audit."""

from alembic import op

revision = "0002"
down_revision = "0001"

# Nothing read the log by its subject; people ask for a user, an instance or an action.
STATEMENTS = """
ALTER TABLE nft_mint_queue ADD COLUMN retry_of UUID;

ALTER TABLE nft_progress ADD COLUMN grants INTEGER DEFAULT 0 NOT NULL;
CREATE INDEX nft_progress_of_type ON nft_progress (nft_type, user_id);

ALTER TABLE nft_instances DROP CONSTRAINT nft_instances_level;
ALTER TABLE nft_instances ADD CONSTRAINT nft_instances_level CHECK (level >= 0);

ALTER TABLE nft_audit_log ADD COLUMN nft_id UUID;
UPDATE nft_audit_log AS l SET nft_id = m.nft_id
FROM nft_mint_queue AS m WHERE l.subject = 'mint/' || m.mint_id;
UPDATE nft_audit_log AS l SET nft_id = i.nft_id
FROM nft_instances AS i
WHERE l.user_id = i.user_id AND l.subject = 'progress/' || i.nft_type
    AND (l.after ->> 'level')::int > 0;
DROP INDEX nft_audit_log_of_subject;
CREATE INDEX nft_audit_log_of_user ON nft_audit_log (user_id, entry_id);
CREATE INDEX nft_audit_log_of_nft ON nft_audit_log (nft_id, entry_id) WHERE nft_id IS NOT NULL;
CREATE INDEX nft_audit_log_of_action ON nft_audit_log (action, entry_id);
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
