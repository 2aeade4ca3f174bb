"""Page tokens (AIP-158): opaque, bound to the query they came from, stable under insertions.

A token carries the sort key of the last row shown, so that the next page starts behind it however
much was inserted meanwhile.
"""

import base64
import hashlib
import json
from binascii import Error as Base64Error
from dataclasses import dataclass

from google.protobuf.message import Message

from mesh.errors import InvalidArgument, PageTokenInvalid

SortKey = tuple[str | int, ...]

_VERSION = b"\x01"
_BINDING_BYTES = 8


@dataclass(frozen=True)
class Page:
    """What to read next: at most `size` rows whose sort key comes behind `after`."""

    size: int
    after: SortKey | None


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
    return Page(size=min(size or default, cap), after=after)


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
    if not all(type(part) in (str, int) for part in key):
        raise PageTokenInvalid(field="page_token")
    return tuple(key)


def _binding(request: Message) -> bytes:
    query = type(request)()
    query.CopyFrom(request)
    query.ClearField("page_size")
    query.ClearField("page_token")
    name = request.DESCRIPTOR.full_name.encode()
    content = query.SerializeToString(deterministic=True)
    return hashlib.sha256(name + b"\0" + content).digest()[:_BINDING_BYTES]
