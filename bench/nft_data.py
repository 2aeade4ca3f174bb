"""Badges to measure with: a type with many levels, and mints under way by the thousand."""

from typing import LiteralString

import psycopg
from go2asia.nft.v1 import catalog_pb2
from google.protobuf.struct_pb2 import Struct

EVERY = 10  # quests from one level to the next: one reward in ten raises a level
LEVELS = 100

# Mint n is that of user n; their ids are the number n. Each is on its way already, so that nobody
# has to hand it over.
_MINTS: tuple[LiteralString, ...] = (
    """
    INSERT INTO nft_types (code, version, state, display_name, description, counters, image,
        onchain_policy, token_standard)
    VALUES ('traveller', 1, 'ACTIVE', 'Traveller', '', '{trips}', '', 'ON_REQUEST', 'NFT')
    """,
    """
    INSERT INTO nft_instances (nft_id, user_id, nft_type, level, metadata, create_time, update_time)
    SELECT lpad(to_hex(n), 32, '0')::uuid, 'user-' || n, 'traveller', 1, '{}', now(), now()
    FROM generate_series(1, %(mints)s) AS n
    """,
    """
    INSERT INTO nft_mint_queue (mint_id, nft_id, user_id, nft_type, state, version, content,
        operation_id, create_time, update_time)
    SELECT nft_id, nft_id, user_id, nft_type, 'SUBMITTED', 1,
        '{"name": "Traveller", "description": "Has come far.", "image": "ipfs://bafy/traveller.png",
          "attributes": [["level", "1"]]}',
        nft_id, now(), now()
    FROM nft_instances
    """,
    "ANALYZE nft_instances, nft_mint_queue",
)


def explorer() -> catalog_pb2.NftType:
    """A level every `EVERY` quests; nothing is minted unasked."""
    metadata = Struct()
    metadata.update({"name": "Explorer"})
    return catalog_pb2.NftType(
        code="explorer",
        display_name="Explorer",
        counters=["quests"],
        onchain_policy=catalog_pb2.ONCHAIN_POLICY_ON_REQUEST,
        levels=[
            catalog_pb2.LevelRule(
                level=level, thresholds={"quests": level * EVERY}, metadata=metadata
            )
            for level in range(1, LEVELS + 1)
        ],
    )


def user(number: int) -> str:
    """The id of user number n."""
    return f"user-{number}"


def user_number(user_id: str) -> int:
    """The number of the user of that id."""
    return int(user_id.removeprefix("user-"))


def mint(number: int) -> str:
    """The id of mint number n, of its instance and of the Gateway's operation."""
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def seed_mints(connection: psycopg.Connection, mints: int) -> None:
    """Adds that many mints in state SUBMITTED, each of a user of its own."""
    for statement in _MINTS:
        connection.execute(statement, {"mints": mints})
