"""Item content: faults are found at their path, and what passes can be minted, and marked."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.errors import InvalidArgument
from nft_svc.definitions import LevelRule, NftType, OnchainPolicy, TokenStandard
from nft_svc.errors import InvalidMetadataSchema, MetadataMismatch, UnknownPlaceholder
from nft_svc.metadata import (
    MAX_WRITTEN_BYTES,
    check_documents,
    check_written,
    item_content,
    marked,
    written_bytes,
)
from nft_svc.templates import Subject

TYPE = NftType(
    code="explorer",
    display_name="Explorer",
    description="Has seen much.",
    counters=("quests",),
    metadata_schema=None,
    image="https://img.example/explorer.png",
    onchain_policy=OnchainPolicy.AUTO,
    token_standard=TokenStandard.NFT,
    levels=(),
)
ITEM = Subject("m-1", "n-1", "explorer", 2)


def level(metadata: dict[str, Any], number: int = 2) -> LevelRule:
    return LevelRule(number, {"quests": 1}, metadata, True)


def test_a_level_speaks_before_its_type() -> None:
    metadata = {"name": "Explorer II", "image": "ipfs://bafy/2.png"}
    content = item_content(TYPE, level(metadata), ITEM)
    assert (content.name, content.description) == ("Explorer II", "Has seen much.")
    assert content.image == "ipfs://bafy/2.png"


def test_attributes_begin_with_the_level() -> None:
    listed = [{"trait_type": "rarity", "value": "epic"}, {"trait_type": "power", "value": 7}]
    content = item_content(TYPE, level({"attributes": listed}), ITEM)
    assert content.attributes == (("level", "2"), ("rarity", "epic"), ("power", "7"))


def test_templates_speak_of_the_item() -> None:
    nft_type = replace(
        TYPE,
        image="https://img.example/{nft_type}/{level}.png",
        item_uri="https://items.example/{mint_id}.json?badge={nft_id}",
        attributes=(("edition", "{nft_type} of {level}"),),
    )
    listed = [{"trait_type": "proof", "value": "{nft_id}"}]
    content = item_content(nft_type, level({"attributes": listed}), ITEM)
    assert content.image == "https://img.example/explorer/2.png"
    assert content.uri == "https://items.example/m-1.json?badge=n-1"
    assert content.attributes == (("level", "2"), ("edition", "explorer of 2"), ("proof", "n-1"))
    braces = replace(ITEM, nft_id="{level}")
    assert item_content(nft_type, level({"attributes": listed}), braces).attributes[2] == (
        "proof", "{level}",
    ), "what a value holds is not filled in again"  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "metadata", "field", "path"),
    [
        ({"image": "ipfs://x/{user_id}"}, {}, "nft_type.image", None),
        ({"item_uri": "https://x/{}"}, {}, "nft_type.item_uri", None),
        ({"attributes": (("a", "b"), ("c", "{0}"))}, {}, "nft_type.attributes[1].value", None),
        ({}, {"image": "ipfs://{cid}"}, "nft_type.levels[1].metadata", "$.image"),
        (
            {},
            {"attributes": [{"trait_type": "a", "value": "{level!r}"}]},
            "nft_type.levels[1].metadata",
            "$.attributes[0].value",
        ),
    ],
)
def test_a_word_in_braces_that_stands_for_nothing_is_refused(
    changes: dict[str, Any], metadata: dict[str, Any], field: str, path: str | None
) -> None:
    with pytest.raises(UnknownPlaceholder) as refused:
        item_content(replace(TYPE, **changes), level(metadata), ITEM)
    assert (refused.value.field, refused.value.metadata.get("path")) == (field, path)


@pytest.mark.parametrize(
    "uri", ["ftp://x/{mint_id}", "https:x", "https:///x", "https://x/a b", "https://[x"]
)
def test_a_uri_that_nobody_can_open_is_refused(uri: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        item_content(replace(TYPE, item_uri=uri), level({}), ITEM)
    assert refused.value.field == "nft_type.item_uri"


def test_a_mark_is_on_chain_and_fits() -> None:
    listed = [{"trait_type": f"t{number}", "value": number} for number in range(19)]
    full = item_content(replace(TYPE, item_uri="https://x/1"), level({"attributes": listed}), ITEM)
    assert (len(full.attributes), full.uri) == (20, "https://x/1")
    over = marked(full)
    assert (len(over.attributes), over.uri) == (20, "")
    assert over.attributes[-1] == ("status", "revoked")
    assert marked(over) == over


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"name": 5}, "$.name"),
        ({"name": ""}, "$.name"),
        ({"name": "x" * 129}, "$.name"),
        ({"description": "x" * 1025}, "$.description"),
        ({"image": "http://plain.example/x.png"}, "$.image"),
        ({"image": "https://[x"}, "$.image"),
        ({"attributes": {"rarity": "epic"}}, "$.attributes"),
        ({"attributes": [{"trait_type": "x"}]}, "$.attributes[0]"),
        ({"attributes": [{"trait_type": "level", "value": 9}]}, "$.attributes[0].trait_type"),
        ({"attributes": [{"trait_type": "x", "value": {}}]}, "$.attributes[0].value"),
        ({"attributes": [{"trait_type": "x", "value": 1}] * 20}, "$.attributes"),
    ],
)
def test_content_that_the_gateway_would_refuse_is_refused_here(
    metadata: dict[str, Any], path: str
) -> None:
    with pytest.raises(MetadataMismatch) as refused:
        item_content(TYPE, level(metadata), ITEM)
    assert refused.value.metadata == {"level": "2", "path": path}


def test_documents_have_a_size_limit() -> None:
    with pytest.raises(InvalidMetadataSchema, match="32768 bytes"):
        check_documents(replace(TYPE, metadata_schema={"description": "x" * 40_000}))
    with pytest.raises(MetadataMismatch, match="8192 bytes"):
        check_documents(replace(TYPE, levels=(level({"story": "x" * 9_000}),)))


@pytest.mark.parametrize("item_uri", ["", "https://items.example/{mint_id}.json"])
def test_what_is_written_on_chain_has_a_limit_in_bytes(item_uri: str) -> None:
    """Content that lies elsewhere counts too: a mark would bring it on chain."""
    nft_type = replace(TYPE, item_uri=item_uri)
    fits = level({"attributes": attributes(11)})
    check_written(fits, item_content(nft_type, fits, ITEM), "m" * 36)
    wide = level({"attributes": attributes(12)})
    with pytest.raises(MetadataMismatch, match="of 8192") as refused:
        check_written(wide, item_content(nft_type, wide, ITEM), "m" * 36)
    assert refused.value.metadata == {"level": "2", "path": "$"}


def test_a_mark_may_be_what_is_too_much() -> None:
    filled = level({"attributes": attributes(11)})
    content = item_content(TYPE, filled, ITEM)
    room = MAX_WRITTEN_BYTES - written_bytes(content, "m" * 36)
    content = replace(content, description=content.description + "x" * room)
    assert written_bytes(content, "m" * 36) == MAX_WRITTEN_BYTES
    with pytest.raises(MetadataMismatch):
        check_written(filled, content, "m" * 36)


def attributes(count: int) -> list[dict[str, Any]]:
    """Attributes of 160 characters outside the basic plane, which take four bytes each."""
    return [{"trait_type": f"t{number}", "value": "🜁" * 160} for number in range(count)]
