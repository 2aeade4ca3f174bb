"""Schemas by authors: breaches are found at their path, and no schema holds the service up."""

from dataclasses import replace
from typing import Any

import pytest

from nft_svc.conformity import check_conformity
from nft_svc.definitions import LevelRule, NftType, OnchainPolicy, TokenStandard
from nft_svc.errors import InvalidMetadataSchema, MetadataMismatch
from nft_svc.schemas import SECONDS, Fault, find_fault

POWER = {"properties": {"stats": {"properties": {"power": {"type": "integer", "maximum": 10}}}}}
DOUBLING = {
    "$ref": "#/$defs/0",
    "$defs": {
        **{str(n): {"allOf": [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)},
        "40": {},
    },
}


def a_type(schema: dict[str, Any] | None, *metadata: dict[str, Any]) -> NftType:
    return NftType(
        code="explorer",
        display_name="Explorer",
        description="",
        counters=("quests",),
        metadata_schema=schema,
        image="",
        onchain_policy=OnchainPolicy.AUTO,
        token_standard=TokenStandard.NFT,
        levels=tuple(
            LevelRule(number, {"quests": number}, each, True)
            for number, each in enumerate(metadata, start=1)
        ),
    )


def test_a_breach_is_told_with_the_number_and_the_path_of_the_field() -> None:
    fault = find_fault(POWER, [{}, {"stats": {"power": 10}}, {"stats": {"power": 11}}])
    assert fault == Fault("$.stats.power", "11 is greater than the maximum of 10", 2)


def test_what_keeps_the_schema_passes() -> None:
    assert find_fault(POWER, [{"stats": {"power": 7}, "name": "Explorer"}]) is None
    assert find_fault({"properties": {"inner": {"$ref": "#"}}}, [{"inner": {"inner": {}}}]) is None


@pytest.mark.parametrize(
    ("schema", "path", "wrong"),
    [
        ({"properties": {"name": {"type": "sting"}}}, "$.properties.name.type", "sting"),
        ({"$ref": "https://schemas.example/badge.json"}, "$", "leads nowhere"),
        ({"$ref": "#/$defs/none"}, "$", "leads nowhere"),
        ({"$ref": "#"}, "$", "RecursionError"),
        ({"$ref": "#/const", "const": "a word"}, "$", "cannot be applied"),
        ({"$ref": "#/const", "const": 5}, "$", "cannot be applied"),
        ({"properties": {"name": {"pattern": "("}}}, "$.properties.name.pattern", "regex"),
    ],
)
def test_a_schema_that_is_none_is_told_where(schema: Any, path: str, wrong: str) -> None:
    fault = find_fault(schema, [{"name": "Explorer"}])
    assert fault is not None
    assert fault.document is None
    assert fault.path.startswith(path)
    assert wrong in fault.wrong


def test_a_fault_does_not_repeat_a_long_document() -> None:
    fault = find_fault({"maxProperties": 1}, [{"a": "x" * 8_000, "b": 1}])
    assert fault is not None
    assert len(fault.wrong) < 300


async def test_the_error_names_the_level_and_the_field() -> None:
    with pytest.raises(MetadataMismatch) as refused:
        await check_conformity(a_type(POWER, {}, {"stats": {"power": 11}}))
    assert refused.value.metadata == {"level": "2", "path": "$.stats.power"}
    assert refused.value.field == "nft_type.levels[1].metadata"
    await check_conformity(a_type(POWER, {"stats": {"power": 9}}))
    await check_conformity(replace(a_type(POWER, {"stats": 1}), metadata_schema=None))


@pytest.mark.parametrize(
    "schema",
    [{"properties": {"name": {"pattern": "^(a+)+$"}}}, DOUBLING],
    ids=["a pattern that backtracks", "references that double"],
)
async def test_a_schema_without_end_is_broken_off(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidMetadataSchema, match=f"more than {SECONDS:g} s") as refused:
        await check_conformity(a_type(schema, {"name": "a" * 40 + "!"}))
    assert refused.value.metadata == {"path": "$"}
