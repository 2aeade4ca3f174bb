"""Page tokens continue the query they came from, and no other."""

import base64

import pytest
from go2asia.points.v1 import points_pb2 as pb

from mesh.errors import InvalidArgument, PageTokenInvalid
from mesh.pagination import next_token, open_page


def request(**fields: object) -> pb.ListTransactionsRequest:
    return pb.ListTransactionsRequest(**{"user_id": "u1", **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (7, 7), (500, 500), (501, 500)])
def test_sizes_are_coerced(asked: int, given: int) -> None:
    page = open_page(request(page_size=asked))
    assert (page.size, page.after) == (given, None)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        open_page(request(page_size=-1))
    assert caught.value.field == "page_size"


def test_a_token_carries_the_sort_key_whatever_the_page_size() -> None:
    token = next_token(request(page_size=10), ("2026-01-01", 42, "имя"))
    assert open_page(request(page_size=20, page_token=token)).after == ("2026-01-01", 42, "имя")


def test_a_token_of_another_query_is_refused() -> None:
    token = next_token(request(), ("a",))
    with pytest.raises(PageTokenInvalid):
        open_page(request(user_id="u2", page_token=token))


def forged(body: bytes) -> str:
    """A token of the right query with another body."""
    token = next_token(request(), ())
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    return base64.urlsafe_b64encode(raw[:9] + body).decode()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "not base64!",
        forged(b"{}"),
        forged(b"[1.5]"),
        forged(b"[true]"),
        forged(b"[null]"),
        forged(b"[[1]]"),
        forged(b"["),
        forged(b"\xff"),
    ],
)
def test_malformed_tokens_are_refused(token: str) -> None:
    with pytest.raises(PageTokenInvalid):
        open_page(request(page_token=token))
