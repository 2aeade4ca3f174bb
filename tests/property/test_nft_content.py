"""What the NFT service lets through, the Gateway takes: both count the same bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chain_gateway.errors import ContentTooLarge
from chain_gateway.operations import Content, check_size
from nft_svc.metadata import MAX_WRITTEN_BYTES, ItemContent, written_bytes

MINT = "0192f7a2-0000-7000-8000-000000000001"
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
attributes = st.lists(st.tuples(texts, texts), max_size=20).map(tuple)


@given(texts, texts, attributes, texts, st.integers(-2, 2))
def test_content_is_refused_by_both_or_by_neither(
    name: str, image: str, traits: tuple[tuple[str, str], ...], uri: str, over: int
) -> None:
    """Around the limit: the description takes what the rest leaves, and a little more or less."""
    rest = written_bytes(ItemContent(name, "", image, traits), MINT)
    description = "x" * (MAX_WRITTEN_BYTES - rest + over)
    content = name, description, image, traits, uri
    size = written_bytes(ItemContent(*content), MINT)
    if size <= MAX_WRITTEN_BYTES:
        check_size(Content(*content), MINT)
        return
    with pytest.raises(ContentTooLarge) as refused:
        check_size(Content(*content), MINT)
    assert refused.value.metadata == {"limit": str(MAX_WRITTEN_BYTES), "actual": str(size)}
