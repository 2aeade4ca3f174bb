"""Kinds of operations: transfers, changes of content and revocations go the way of mints.

Items say themselves by which mint they came (`mint_id` in their data), so the hash of the content
is no longer what a mint is recognised by.
"""

from alembic import op

revision = "0002_kinds"
down_revision = "0001"

COLUMNS = """
ALTER TABLE operations
    ADD COLUMN kind smallint NOT NULL DEFAULT 1,
    ALTER COLUMN mint_id DROP NOT NULL,
    ALTER COLUMN content DROP NOT NULL,
    ADD COLUMN standard smallint,
    ADD COLUMN item_mint_id uuid REFERENCES operations (mint_id),
    ADD COLUMN item_version bigint,
    ADD COLUMN amount bigint,
    ADD COLUMN comment text,
    ADD COLUMN refusals smallint NOT NULL DEFAULT 0,
    DROP COLUMN content_hash,
    DROP CONSTRAINT operations_item_address_key,
    DROP CONSTRAINT operations_collection_address_item_index_key,
    DROP CONSTRAINT operations_placed_check;
UPDATE operations SET standard = 1;
ALTER TABLE operations
    ALTER COLUMN kind DROP DEFAULT,
    ADD CONSTRAINT operations_task_check CHECK (
        CASE kind WHEN 1 THEN num_nulls(mint_id, content, standard) = 0
        WHEN 2 THEN num_nulls(amount, comment) = 0
        WHEN 3 THEN num_nulls(mint_id, content, item_mint_id, item_version) = 0
        WHEN 4 THEN num_nulls(mint_id, item_mint_id) = 0 ELSE false END
    ),
    ADD CONSTRAINT operations_placed_check CHECK (
        state NOT IN (3, 4, 5, 6)
        OR owner_address IS NOT NULL AND (kind = 2 OR item_address IS NOT NULL)
    );
"""

INDEXES = """
DROP INDEX operations_to_send;
CREATE UNIQUE INDEX operations_places ON operations (collection_address, item_index)
    WHERE kind = 1;
CREATE INDEX operations_items ON operations (item_address);
CREATE INDEX operations_to_send ON operations (operation_id)
    WHERE message_id IS NULL AND state IN (1, 3) AND (kind < 3 OR item_address IS NOT NULL);
CREATE INDEX operations_changes ON operations (item_mint_id) WHERE kind >= 3;
CREATE INDEX operations_transfers ON operations (user_id, create_time) WHERE kind = 2;
"""


def upgrade() -> None:
    op.execute(COLUMNS)
    op.execute(INDEXES)
