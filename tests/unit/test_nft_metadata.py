"""Metadata: faults are found at their path, and what passes can be minted."""

from dataclasses import replace
from typing import Any

import pytest

from nft_svc.definitions import LevelRule, NftType, OnchainPolicy, TokenStandard
from nft_svc.errors import InvalidMetadataSchema, MetadataMismatch
from nft_svc.metadata import check_metadata, check_schema, item_content

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


def level(metadata: dict[str, Any], number: int = 2) -> LevelRule:
    return LevelRule(number, {"quests": 1}, metadata, True)


def test_a_level_speaks_before_its_type() -> None:
    metadata = {"name": "Explorer II", "image": "ipfs://bafy/2.png"}
    content = item_content(TYPE, level(metadata))
    assert (content.name, content.description) == ("Explorer II", "Has seen much.")
    assert content.image == "ipfs://bafy/2.png"


def test_attributes_begin_with_the_level() -> None:
    listed = [{"trait_type": "rarity", "value": "epic"}, {"trait_type": "power", "value": 7}]
    content = item_content(TYPE, level({"attributes": listed}))
    assert content.attributes == (("level", "2"), ("rarity", "epic"), ("power", "7"))


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"name": 5}, "$.name"),
        ({"name": ""}, "$.name"),
        ({"name": "x" * 129}, "$.name"),
        ({"description": "x" * 1025}, "$.description"),
        ({"image": "http://plain.example/x.png"}, "$.image"),
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
        item_content(TYPE, level(metadata))
    assert refused.value.metadata == {"level": "2", "path": path}


def test_a_breach_of_the_schema_names_the_field() -> None:
    schema = {
        "type": "object",
        "properties": {"stats": {"properties": {"power": {"type": "integer", "maximum": 10}}}},
    }
    with pytest.raises(MetadataMismatch) as refused:
        check_metadata(replace(TYPE, metadata_schema=schema), level({"stats": {"power": 11}}))
    assert refused.value.metadata == {"level": "2", "path": "$.stats.power"}
    assert refused.value.field == "nft_type.levels[1].metadata"


def test_metadata_that_keeps_the_schema_passes() -> None:
    schema = {"required": ["name"], "properties": {"name": {"type": "string"}}}
    check_metadata(replace(TYPE, metadata_schema=schema), level({"name": "Explorer II"}))


def test_a_schema_that_is_none_names_the_fault() -> None:
    with pytest.raises(InvalidMetadataSchema) as refused:
        check_schema({"properties": {"name": {"type": "sting"}}})
    assert refused.value.metadata["path"].startswith("$.properties.name")


def test_a_reference_to_elsewhere_is_refused_and_not_fetched() -> None:
    schema = {"$ref": "https://schemas.example/badge.json"}
    with pytest.raises(InvalidMetadataSchema, match="leads nowhere"):
        check_metadata(replace(TYPE, metadata_schema=schema), level({}))


def test_documents_have_a_size_limit() -> None:
    with pytest.raises(InvalidMetadataSchema, match="32768 bytes"):
        check_schema({"description": "x" * 40_000})
    with pytest.raises(MetadataMismatch, match="8192 bytes"):
        check_metadata(TYPE, level({"story": "x" * 9_000}))
