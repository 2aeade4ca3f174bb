"""Soulbound badges, templates, and changes of items as mints of their own."""

from alembic import op

revision = "0005_changes_of_items"
down_revision = "0004_reconciliation"

# Until now every mint wrote the level as the first attribute.
STATEMENTS = """
ALTER TABLE nft_types ADD COLUMN item_uri TEXT DEFAULT '' NOT NULL;
ALTER TABLE nft_types ADD COLUMN attributes JSONB DEFAULT '[]'::jsonb NOT NULL;
ALTER TABLE nft_types ADD COLUMN upgrade_policy TEXT DEFAULT 'UPDATE_CONTENT' NOT NULL;

ALTER TABLE nft_mint_queue ADD COLUMN kind TEXT DEFAULT 'MINT' NOT NULL;
ALTER TABLE nft_mint_queue ADD COLUMN item_mint_id UUID;
ALTER TABLE nft_mint_queue ADD COLUMN token_standard TEXT DEFAULT 'NFT' NOT NULL;
ALTER TABLE nft_mint_queue ADD COLUMN level INTEGER DEFAULT 1 NOT NULL;
ALTER TABLE nft_mint_queue ADD COLUMN outdated BOOLEAN DEFAULT false NOT NULL;
ALTER TABLE nft_mint_queue ADD CONSTRAINT nft_mint_queue_kind
    CHECK ((kind = 'MINT') = (item_mint_id IS NULL));
UPDATE nft_mint_queue SET level = (content -> 'attributes' -> 0 ->> 1)::int
WHERE content -> 'attributes' -> 0 ->> 0 = 'level';
DROP INDEX nft_mint_queue_one_per_instance;
CREATE UNIQUE INDEX nft_mint_queue_one_under_way ON nft_mint_queue (nft_id)
    WHERE state NOT IN ('FAILED', 'CANCELLED', 'FINALIZED');
"""


def upgrade() -> None:
    for statement in STATEMENTS.split(";\n"):
        if statement.strip():
            op.execute(statement)
