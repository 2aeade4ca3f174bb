"""Page tokens continue the query they came from, and no other."""

import base64

import pytest
from go2asia.points.v1 import points_pb2 as pb

from mesh.errors import InvalidArgument, PageTokenInvalid
from mesh.pagination import Page, SortKey, next_token, open_page


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
        forged(b"[-1]"),
        forged(b"[9223372036854775808]"),
        forged(b'["\\u0000"]'),
        forged(b'["\\ud800"]'),
        forged(b"["),
        forged(b"\xff"),
    ],
)
def test_malformed_tokens_are_refused(token: str) -> None:
    with pytest.raises(PageTokenInvalid):
        open_page(request(page_token=token))


ID = "0190b7f4-7b1e-7cc3-98c4-dc0c0c07398f"


def behind(*key: str | int) -> Page:
    return open_page(request(page_token=next_token(request(), key)))


def test_a_sort_key_is_read_as_what_its_column_holds() -> None:
    first = open_page(request())
    assert (first.after_id(), first.after_text(), first.after_number()) == (None, None, None)
    assert behind(ID).after_id() == ID
    assert behind("ada").after_text() == "ada"
    assert behind(7).after_number() == 7


@pytest.mark.parametrize("key", [("ada",), (7,), (ID, 1), (ID + "\n",), ()])
def test_what_is_no_id_is_refused(key: SortKey) -> None:
    with pytest.raises(PageTokenInvalid):
        behind(*key).after_id()


@pytest.mark.parametrize("key", [(7,), ("a", "b"), ()])
def test_what_is_no_text_is_refused(key: SortKey) -> None:
    with pytest.raises(PageTokenInvalid):
        behind(*key).after_text()


@pytest.mark.parametrize("key", [("7",), (1, 2), (2**31,), ()])
def test_what_is_no_number_of_the_column_is_refused(key: SortKey) -> None:
    with pytest.raises(PageTokenInvalid):
        behind(*key).after_number(2**31 - 1)


def pages(rows: list[str], size: int) -> list[list[str]]:
    """All pages of `rows`, which are texts in order, each shown as a transaction's reason."""
    shown: list[list[str]] = []
    token = ""
    while token or not shown:
        page = open_page(request(page_size=size, page_token=token))
        after = page.after_text() or ""
        found = [row for row in rows if row > after][: page.limit]
        messages, token = page.fill(
            found, lambda row: pb.Transaction(reason=row), lambda row: (row,)
        )
        shown.append([message.reason for message in messages])
    return shown


def test_pages_end_at_their_size_and_the_last_one_says_so() -> None:
    assert pages(["a", "b", "c", "d"], 2) == [["a", "b"], ["c", "d"]]
    assert pages(["a", "b", "c"], 2) == [["a", "b"], ["c"]]
    assert pages([], 2) == [[]]


def test_pages_end_before_they_are_too_large_to_be_sent() -> None:
    rows = [f"{number:03}" + "x" * 500_000 for number in range(10)]
    assert [len(page) for page in pages(rows, 100)] == [6, 4]
    assert [len(page) for page in pages(["a" * 5_000_000, "b"], 100)] == [1, 1]
