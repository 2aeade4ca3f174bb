"""Page tokens (AIP-158): opaque, bound to the query they came from, stable under insertions.

A token carries the sort key of the last row shown, so that the next page starts behind it however
much was inserted meanwhile. Anyone can write one, so whoever reads one believes nothing.

    page = open_page(request)
    found = await store.rows(after=page.after_id(), limit=page.limit)
    shown, token = page.fill(found, convert.row, lambda row: (row.row_id,))
"""

import base64
import hashlib
import json
import re
from binascii import Error as Base64Error
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import Message

from mesh.errors import InvalidArgument, PageTokenInvalid
from mesh.wire import FILL_BYTES

Row = TypeVar("Row")
Shown = TypeVar("Shown", bound=Message)

SortKey = tuple[str | int, ...]

_VERSION = b"\x01"
_BINDING_BYTES = 8
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SURROGATE = re.compile("[\ud800-\udfff]")
LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Page:
    """What to read next: at most `size` rows whose sort key comes behind `after`."""

    size: int
    after: SortKey | None
    request: Message

    @property
    def limit(self) -> int:
        """How many rows to read: one more than are shown tells whether there is a next page."""
        return self.size + 1

    def after_id(self) -> str | None:
        """The UUID that is the sort key; None on the first page. Raises `PageTokenInvalid`."""
        match self.after:
            case None:
                return None
            case (str(row_id),) if _UUID.fullmatch(row_id):
                return row_id
        raise PageTokenInvalid(field="page_token")

    def after_text(self) -> str | None:
        """The text that is the sort key; None on the first page. Raises `PageTokenInvalid`."""
        match self.after:
            case None:
                return None
            case (str(text),):
                return text
        raise PageTokenInvalid(field="page_token")

    def after_number(self, largest: int = LARGEST) -> int | None:
        """The number that is the sort key; None on the first page. Raises `PageTokenInvalid`.

        `largest` is what the number's column can hold.
        """
        match self.after:
            case None:
                return None
            case (int(number),) if number <= largest:
                return number
        raise PageTokenInvalid(field="page_token")

    def fill(
        self, found: Sequence[Row], show: Callable[[Row], Shown], key: Callable[[Row], SortKey]
    ) -> tuple[list[Shown], str]:
        """The rows to show, and the token of the page behind them, empty at the end.

        `found` are up to `limit` rows, `key` is a row's sort key. A page ends early when its rows
        would not fit in a message.
        """
        shown: list[Shown] = []
        room = FILL_BYTES  # no single row comes near the size of a message
        for row in found[: self.size]:
            message = show(row)
            room -= message.ByteSize()
            if room < 0 and shown:
                break
            shown.append(message)
        if len(shown) == len(found):
            return shown, ""
        return shown, next_token(self.request, key(found[len(shown) - 1]))


def open_page(request: Message, *, default: int = 50, cap: int = 500) -> Page:
    """Reads `page_size` and `page_token` of a list request.

    A size of 0 means `default`, a size above `cap` means `cap`. Raises `InvalidArgument` for a
    negative size and `PageTokenInvalid` for a token that is malformed or came from a request whose
    other fields differ.
    """
    size: int = request.page_size  # type: ignore[attr-defined]
    token: str = request.page_token  # type: ignore[attr-defined]
    if size < 0:
        raise InvalidArgument(
            "page_size is below zero; leave it at 0 for the default.", field="page_size"
        )
    after = _decode(token, _binding(request)) if token else None
    return Page(size=min(size or default, cap), after=after, request=request)


def next_token(request: Message, last: SortKey) -> str:
    """The token that continues `request` behind the row whose sort key is `last`."""
    body = json.dumps(last, separators=(",", ":"), ensure_ascii=False).encode()
    raw = _VERSION + _binding(request) + body
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _decode(token: str, binding: bytes) -> SortKey:
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        head, body = raw[: 1 + _BINDING_BYTES], raw[1 + _BINDING_BYTES :]
        key = json.loads(body)
    except (ValueError, Base64Error, RecursionError) as error:
        raise PageTokenInvalid(field="page_token") from error
    if head != _VERSION + binding or not isinstance(key, list):
        raise PageTokenInvalid(field="page_token")
    if not all(_is_storable(part) for part in key):
        raise PageTokenInvalid(field="page_token")
    return tuple(key)


def _is_storable(part: object) -> bool:
    """Whether a part of a sort key can have come out of a database, where numbers count from 0."""
    if isinstance(part, str):
        return "\0" not in part and _SURROGATE.search(part) is None
    return type(part) is int and 0 <= part <= LARGEST


def _binding(request: Message) -> bytes:
    query = type(request)()
    query.CopyFrom(request)
    query.ClearField("page_size")
    query.ClearField("page_token")
    name = request.DESCRIPTOR.full_name.encode()
    content = query.SerializeToString(deterministic=True)
    return hashlib.sha256(name + b"\0" + content).digest()[:_BINDING_BYTES]
