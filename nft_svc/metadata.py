"""Level metadata: kept within limits, and turned into item content. Pure."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from mesh.errors import InvalidArgument
from nft_svc.definitions import LevelRule, NftType
from nft_svc.errors import InvalidMetadataSchema, MetadataMismatch
from nft_svc.templates import Subject, fill

MAX_SCHEMA_BYTES = 32_768
MAX_METADATA_BYTES = 8_192
# The Gateway's limits on content, all in gateway.v1.Content; what passes here is not refused there.
MAX_NAME, MAX_DESCRIPTION, MAX_URI = 128, 1024, 512
MAX_ATTRIBUTES, MAX_TRAIT, MAX_VALUE = 20, 64, 256
MAX_WRITTEN_BYTES = 8_192
_URI = re.compile(r"(https|ipfs)://\S+")
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


def check_documents(nft_type: NftType) -> None:
    """Raises `InvalidMetadataSchema` or `MetadataMismatch` for a document that is too large."""
    if _size(nft_type.metadata_schema or {}) > MAX_SCHEMA_BYTES:
        raise invalid_schema("$", f"it is larger than {MAX_SCHEMA_BYTES} bytes")
    for rule in nft_type.levels:
        if _size(rule.metadata) > MAX_METADATA_BYTES:
            raise mismatch(rule.level, "$", f"is larger than {MAX_METADATA_BYTES} bytes")


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
        raise mismatch(rule.level, "$.attributes", f"makes more than {MAX_ATTRIBUTES} in all")
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


def check_written(rule: LevelRule, content: ItemContent, mint_id: str) -> None:
    """Raises `MetadataMismatch` if an item's content, or what a mark makes of it, is too large."""
    for each in (content, marked(content)):
        size = written_bytes(each, mint_id)
        if size > MAX_WRITTEN_BYTES:
            raise mismatch(
                rule.level, "$", f"makes {size} bytes of item content of {MAX_WRITTEN_BYTES}"
            )


def written_bytes(content: ItemContent, mint_id: str) -> int:
    """How much the Gateway writes on chain, as it counts; nothing, where content lies elsewhere."""
    if content.uri:
        return 0
    traits = [{"trait_type": trait, "value": value} for trait, value in content.attributes]
    listed = json.dumps(traits, ensure_ascii=False, separators=(",", ":")) if traits else ""
    texts = (content.name, content.description, content.image, listed, mint_id)
    return sum(len(text.encode()) for text in texts)


def _image(nft_type: NftType, rule: LevelRule, subject: Subject) -> str:
    given = _text(rule, "image", "", MAX_URI)
    where = (f"nft_type.levels[{rule.level - 1}].metadata", "$.image")
    if given:
        image = fill(given, subject, *where)
    else:
        image = fill(nft_type.image, subject, "nft_type.image")
    if image and not _opens(image):
        raise mismatch(rule.level, "$.image", "is no https or ipfs URI")
    if len(image) > MAX_URI:
        raise mismatch(rule.level, "$.image", f"has {len(image)} characters of {MAX_URI}")
    return image


def _uri(nft_type: NftType, subject: Subject) -> str:
    uri = fill(nft_type.item_uri, subject, "nft_type.item_uri")
    if uri and not (_opens(uri) and len(uri) <= MAX_URI):
        raise InvalidArgument(
            f"{uri} is no https or ipfs URI within {MAX_URI} characters; correct it.",
            field="nft_type.item_uri",
        )
    return uri


def _opens(uri: str) -> bool:
    try:
        return bool(_URI.fullmatch(uri) and urlsplit(uri).netloc)
    except ValueError:  # an address in brackets that is none
        return False


def _text(rule: LevelRule, key: str, default: str, longest: int, *, required: bool = False) -> str:
    value = rule.metadata.get(key, default)
    if not isinstance(value, str):
        raise mismatch(rule.level, f"$.{key}", "is no text")
    if len(value) > longest or (required and not value):
        raise mismatch(rule.level, f"$.{key}", f"has {len(value)} characters of {longest}")
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
        raise mismatch(rule.level, "$.attributes", f"is no list of under {MAX_ATTRIBUTES} entries")
    return [_attribute(rule, number, entry, subject) for number, entry in enumerate(listed)]


def _attribute(rule: LevelRule, number: int, entry: object, subject: Subject) -> tuple[str, str]:
    path = f"$.attributes[{number}]"
    if not isinstance(entry, dict) or not {"trait_type", "value"} <= entry.keys():
        raise mismatch(rule.level, path, "is no object with trait_type and value")
    trait, value = entry["trait_type"], entry["value"]
    if not isinstance(trait, str) or not 0 < len(trait) <= MAX_TRAIT or trait == "level":
        raise mismatch(
            rule.level, f"{path}.trait_type", f"is no text of 1–{MAX_TRAIT} characters, or `level`"
        )
    if isinstance(value, str):
        field = f"nft_type.levels[{rule.level - 1}].metadata"
        spelled = fill(value, subject, field, f"{path}.value")
    else:
        spelled = json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict | list) or len(spelled) > MAX_VALUE:
        raise mismatch(
            rule.level, f"{path}.value", f"is no plain value within {MAX_VALUE} characters"
        )
    return trait, spelled


def _size(document: Mapping[str, Any]) -> int:
    return len(json.dumps(document, ensure_ascii=False).encode())


def invalid_schema(path: str, wrong: str) -> InvalidMetadataSchema:
    """A schema that has something `wrong` at a JSON path."""
    return InvalidMetadataSchema(
        f"The metadata schema is not valid at {path}: {wrong}. Correct it and send again.",
        field="nft_type.metadata_schema",
        path=path,
    )


def mismatch(level: int, path: str, wrong: str) -> MetadataMismatch:
    """A level's metadata that has something `wrong` at a JSON path."""
    return MetadataMismatch(
        f"Metadata of level {level} at {path}: {wrong}; correct it and send again.",
        field=f"nft_type.levels[{level - 1}].metadata",
        level=str(level),
        path=path,
    )
