"""Level metadata: checked against the type's JSON Schema, and turned into item content. Pure.

Schemas are JSON Schema 2020-12; references outside the schema are refused, never fetched.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError, best_match
from referencing import Registry
from referencing.exceptions import Unresolvable

from mesh.errors import InvalidArgument
from nft_svc.definitions import LevelRule, NftType
from nft_svc.errors import InvalidMetadataSchema, MetadataMismatch
from nft_svc.templates import Subject, fill

MAX_SCHEMA_BYTES = 32_768
MAX_METADATA_BYTES = 8_192
# The Gateway's limits on content (gateway.v1.Content); what passes here is not refused there.
MAX_NAME, MAX_DESCRIPTION, MAX_URI = 128, 1024, 512
MAX_ATTRIBUTES, MAX_TRAIT, MAX_VALUE = 20, 64, 256
SCHEMES = frozenset({"https", "ipfs"})
MARK = ("status", "revoked")
"""The attribute of an item whose level was taken back."""


@dataclass(frozen=True, slots=True)
class ItemContent:
    """What an item says about itself on chain (TEP-64); attributes are (trait, value), in order.

    With a `uri` its content lies there instead, off chain.
    """

    name: str
    description: str
    image: str
    attributes: tuple[tuple[str, str], ...]
    uri: str = ""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raises `InvalidMetadataSchema`, with the path of the fault, for a schema that is none."""
    if _size(schema) > MAX_SCHEMA_BYTES:
        raise InvalidMetadataSchema(
            f"The metadata schema is larger than {MAX_SCHEMA_BYTES} bytes; make it smaller.",
            field="nft_type.metadata_schema",
            path="$",
        )
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise _invalid_schema(error.json_path, error.message) from None


def check_metadata(nft_type: NftType, rule: LevelRule) -> None:
    """Raises `MetadataMismatch` if the level's metadata breaks the type's schema.

    The error names the level and the JSON path of the field at fault. Raises
    `InvalidMetadataSchema` if the schema refers to something outside of itself.
    """
    if _size(rule.metadata) > MAX_METADATA_BYTES:
        raise _mismatch(rule.level, "$", f"is larger than {MAX_METADATA_BYTES} bytes")
    if nft_type.metadata_schema is None:
        return
    validator = Draft202012Validator(dict(nft_type.metadata_schema), registry=Registry())
    try:
        fault: ValidationError | None = best_match(validator.iter_errors(dict(rule.metadata)))
    except Unresolvable as error:
        raise _invalid_schema("$", f"the reference {error.ref!r} leads nowhere inside it") from None
    if fault is not None:
        raise _mismatch(rule.level, fault.json_path, fault.message)


def item_content(nft_type: NftType, rule: LevelRule, subject: Subject) -> ItemContent:
    """What the item `subject` says about itself on chain at a level.

    The level's `name`, `description` and `image` come before those of the type; `level` is the
    first attribute, then those of the type, then the metadata's `attributes`: a list of objects
    with `trait_type` and `value`. Images and values are templates. Raises `MetadataMismatch` where
    that breaks a limit of item content, and `UnknownPlaceholder`.
    """
    level = (("level", str(rule.level)),)
    attributes = (*level, *_of_type(nft_type, subject), *_of_level(rule, subject))
    if len(attributes) > MAX_ATTRIBUTES:
        raise _mismatch(rule.level, "$.attributes", f"makes more than {MAX_ATTRIBUTES} in all")
    return ItemContent(
        name=_text(rule, "name", nft_type.display_name, MAX_NAME, required=True),
        description=_text(rule, "description", nft_type.description, MAX_DESCRIPTION),
        image=_image(nft_type, rule, subject),
        attributes=attributes,
        uri=_uri(nft_type, subject),
    )


def marked(content: ItemContent) -> ItemContent:
    """What an item says whose level was taken back: what it said, and that this is over.

    It says so on chain, wherever its content was before, so that no host can hide it.
    """
    kept = [pair for pair in content.attributes if pair[0] != MARK[0]]
    return replace(content, attributes=(*kept[: MAX_ATTRIBUTES - 1], MARK), uri="")


def _image(nft_type: NftType, rule: LevelRule, subject: Subject) -> str:
    given = _text(rule, "image", "", MAX_URI)
    where = (f"nft_type.levels[{rule.level - 1}].metadata", "$.image")
    if given:
        image = fill(given, subject, *where)
    else:
        image = fill(nft_type.image, subject, "nft_type.image")
    if image and urlsplit(image).scheme not in SCHEMES:
        raise _mismatch(rule.level, "$.image", "is no https or ipfs URI")
    if len(image) > MAX_URI:
        raise _mismatch(rule.level, "$.image", f"has {len(image)} characters of {MAX_URI}")
    return image


def _uri(nft_type: NftType, subject: Subject) -> str:
    uri = fill(nft_type.item_uri, subject, "nft_type.item_uri")
    if uri and (urlsplit(uri).scheme not in SCHEMES or len(uri) > MAX_URI):
        raise InvalidArgument(
            f"{uri} is no https or ipfs URI within {MAX_URI} characters; correct it.",
            field="nft_type.item_uri",
        )
    return uri


def _text(rule: LevelRule, key: str, default: str, longest: int, *, required: bool = False) -> str:
    value = rule.metadata.get(key, default)
    if not isinstance(value, str):
        raise _mismatch(rule.level, f"$.{key}", "is no text")
    if len(value) > longest or (required and not value):
        raise _mismatch(rule.level, f"$.{key}", f"has {len(value)} characters of {longest}")
    return value


def _of_type(nft_type: NftType, subject: Subject) -> list[tuple[str, str]]:
    filled = []
    for number, (trait, template) in enumerate(nft_type.attributes):
        field = f"nft_type.attributes[{number}].value"
        value = fill(template, subject, field)
        if len(value) > MAX_VALUE:
            raise InvalidArgument(
                f"The value has {len(value)} characters of {MAX_VALUE}; shorten it.", field=field
            )
        filled.append((trait, value))
    return filled


def _of_level(rule: LevelRule, subject: Subject) -> list[tuple[str, str]]:
    listed = rule.metadata.get("attributes", [])
    if not isinstance(listed, list) or len(listed) >= MAX_ATTRIBUTES:
        raise _mismatch(rule.level, "$.attributes", f"is no list of under {MAX_ATTRIBUTES} entries")
    return [_attribute(rule, number, entry, subject) for number, entry in enumerate(listed)]


def _attribute(rule: LevelRule, number: int, entry: object, subject: Subject) -> tuple[str, str]:
    path = f"$.attributes[{number}]"
    if not isinstance(entry, dict) or not {"trait_type", "value"} <= entry.keys():
        raise _mismatch(rule.level, path, "is no object with trait_type and value")
    trait, value = entry["trait_type"], entry["value"]
    if not isinstance(trait, str) or not 0 < len(trait) <= MAX_TRAIT or trait == "level":
        raise _mismatch(
            rule.level, f"{path}.trait_type", f"is no text of 1–{MAX_TRAIT} characters, or `level`"
        )
    if isinstance(value, str):
        field = f"nft_type.levels[{rule.level - 1}].metadata"
        spelled = fill(value, subject, field, f"{path}.value")
    else:
        spelled = json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict | list) or len(spelled) > MAX_VALUE:
        raise _mismatch(
            rule.level, f"{path}.value", f"is no plain value within {MAX_VALUE} characters"
        )
    return trait, spelled


def _size(document: Mapping[str, Any]) -> int:
    return len(json.dumps(document, ensure_ascii=False).encode())


def _invalid_schema(path: str, wrong: str) -> InvalidMetadataSchema:
    return InvalidMetadataSchema(
        f"The metadata schema is not valid at {path}: {wrong}. Correct it and send again.",
        field="nft_type.metadata_schema",
        path=path,
    )


def _mismatch(level: int, path: str, wrong: str) -> MetadataMismatch:
    return MetadataMismatch(
        f"Metadata of level {level} at {path}: {wrong}; correct it and send again.",
        field=f"nft_type.levels[{level - 1}].metadata",
        level=str(level),
        path=path,
    )
