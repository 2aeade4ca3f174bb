"""TEP-64: what is written on chain reads back the same, and nothing malformed gets through."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytoniq_core.boc.cell import Cell
from pytoniq_core.boc.hashmap.hashmap import HashMap

from chain_gateway.cells import build
from chain_gateway.content import KNOWN_KEYS, ContentUnreadable, decode, encode, off_chain
from chain_gateway.errors import ContentTooLarge
from chain_gateway.operations import MAX_CONTENT_BYTES, Content, check_size

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=600)
MINT = "0192f7a2-0000-7000-8000-000000000001"


@given(st.dictionaries(st.sampled_from(KNOWN_KEYS), texts, min_size=1))
def test_what_is_encoded_decodes_to_the_same(entries: dict[str, str]) -> None:
    whole = HashMap(256, value_serializer=lambda cell, into: into.store_ref(cell))
    for key, value in entries.items():
        snake = encode({key: value}).refs[0].refs[0]
        whole.set_int_key(int.from_bytes(hashlib.sha256(key.encode()).digest()), snake)
    plain = build().store_uint(0, 8).store_dict(whole.serialize()).end_cell()
    assert encode(entries).hash == plain.hash, "the shortcut for mint ids changes nothing"
    through_the_wire = Cell.one_from_boc(encode(entries).to_boc())
    assert decode(through_the_wire) == entries


@given(texts, texts, texts, st.lists(st.tuples(texts, texts), max_size=5).map(tuple))
def test_content_keeps_its_attributes_in_order(
    name: str, description: str, image: str, attributes: tuple[tuple[str, str], ...]
) -> None:
    entries = decode(encode(Content(name, description, image, attributes).entries(MINT)))
    assert entries.pop("mint_id") == MINT
    traits = json.loads(entries.pop("attributes", "[]"))
    assert tuple((trait["trait_type"], trait["value"]) for trait in traits) == attributes
    assert entries == {
        key: value
        for key, value in (("name", name), ("description", description), ("image", image))
        if value
    }


@given(st.text(min_size=1, max_size=20).filter(lambda key: key not in KNOWN_KEYS), texts)
def test_unknown_keys_are_shown_by_their_hash(key: str, value: str) -> None:
    [(shown, read)] = decode(encode({key: value})).items()
    assert shown.startswith("0x")
    assert len(shown) == 66
    assert read == value


def test_off_chain_and_chunked_content_are_read() -> None:
    written = build().store_uint(1, 8).store_bytes(b"https://example.test/1.json").end_cell()
    assert decode(written) == {"uri": "https://example.test/1.json"}
    assert off_chain("https://example.test/1.json").hash == written.hash
    long = "ipfs://" + "x" * 500
    assert decode(off_chain(long)) == {"uri": long}

    chunks = HashMap(32, value_serializer=lambda cell, into: into.store_ref(cell))
    for number, text in enumerate((b"two ", b"parts")):
        chunks.set_int_key(number, build().store_bytes(text).end_cell())
    value = build().store_uint(1, 8).store_dict(chunks.serialize()).end_cell()
    whole = HashMap(256, value_serializer=lambda cell, into: into.store_ref(cell))
    whole.set_int_key(1, value)
    content = build().store_uint(0, 8).store_dict(whole.serialize()).end_cell()
    assert list(decode(content).values()) == ["two parts"]


@given(st.binary(max_size=60))
def test_malformed_cells_are_refused_and_nothing_else_happens(data: bytes) -> None:
    cell = build().store_bytes(b"\x00" + data).end_cell()
    try:
        decode(cell)
    except ContentUnreadable:
        return
    assert data[:1] < b"\x80"  # an empty dictionary


def test_size_counts_bytes_not_characters() -> None:
    fits = Content("n", "", "", (("t", "x" * 7_000),))
    check_size(fits, MINT)
    with pytest.raises(ContentTooLarge) as caught:
        check_size(Content("n", "", "", (("t", "字" * 3_000),)), MINT)
    assert int(caught.value.metadata["actual"]) > MAX_CONTENT_BYTES
    assert caught.value.metadata["limit"] == str(MAX_CONTENT_BYTES)
