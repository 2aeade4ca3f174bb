"""What messages and operations cost, and which wallet carries an operation."""

from alembic import op

revision = "0003_money"
down_revision = "0002_kinds"

COLUMNS = """
ALTER TABLE messages ADD COLUMN cost bigint;
GRANT UPDATE (cost) ON messages TO gateway_app;
CREATE INDEX messages_to_account ON messages (message_id) WHERE phase = 3 AND cost IS NULL;
ALTER TABLE operations
    ADD COLUMN wallet_address text REFERENCES wallets (address),
    ADD COLUMN cost bigint NOT NULL DEFAULT 0;
UPDATE operations AS o SET wallet_address = m.wallet_address
FROM messages AS m WHERE m.message_id = o.message_id;
"""


def upgrade() -> None:
    op.execute(COLUMNS)
