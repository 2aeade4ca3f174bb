"""Failures as classes: what the code raises is what the caller on the other side catches.

A service declares each of its failures once, in its `errors.py`:

    class InsufficientFunds(MeshError):
        \"\"\"The available balance does not cover the amount; lower it or top up first.\"\"\"

        kind = Kind.FAILED_PRECONDITION
        reason = "INSUFFICIENT_FUNDS"
        domain = "points.go2asia"

Declaring registers the class under (domain, reason), the pair that `google.rpc.ErrorInfo` carries
(AIP-193), so that the client side can rebuild it. `mesh.status` maps kinds to status codes.
"""

from collections.abc import Mapping
from enum import Enum, auto
from functools import lru_cache
from inspect import getdoc
from typing import Any, ClassVar


class Kind(Enum):
    """What a caller can do about a failure; the names are those of `google.rpc.Code`."""

    INVALID_ARGUMENT = auto()
    NOT_FOUND = auto()
    ALREADY_EXISTS = auto()
    FAILED_PRECONDITION = auto()
    ABORTED = auto()
    OUT_OF_RANGE = auto()
    PERMISSION_DENIED = auto()
    UNAUTHENTICATED = auto()
    RESOURCE_EXHAUSTED = auto()
    UNAVAILABLE = auto()
    DEADLINE_EXCEEDED = auto()
    INTERNAL = auto()


# Not ABORTED: most such refusals ask for a fresh read first (an etag); `Conflict` says otherwise.
_TRANSIENT = frozenset({Kind.UNAVAILABLE, Kind.DEADLINE_EXCEEDED, Kind.RESOURCE_EXHAUSTED})
_registry: dict[tuple[str, str], type["MeshError"]] = {}


class MeshError(Exception):
    """The request failed.

    Base of every failure that may cross the wire. The first paragraph of a subclass's docstring is
    its default message: one sentence on what is wrong and what to do next.
    """

    kind: ClassVar[Kind] = Kind.INTERNAL
    reason: ClassVar[str]
    domain: ClassVar[str] = "mesh.go2asia"
    transient: ClassVar[bool] = False
    """Whether the same request, with the same request id, may succeed when tried again."""

    def __init_subclass__(cls, *, registered: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in cls.__dict__ and "transient" not in cls.__dict__:
            cls.transient = cls.kind in _TRANSIENT
        if not registered or "reason" not in cls.__dict__:
            return
        if not cls.__doc__:
            raise TypeError(f"{cls.__name__} needs a docstring: it is the error's default message")
        known = _registry.setdefault((cls.domain, cls.reason), cls)
        if known is not cls:
            raise TypeError(
                f"{cls.__name__} and {known.__name__} both claim {cls.domain}/{cls.reason}; "
                "give one of them another reason"
            )

    def __init__(
        self, message: str | None = None, *, field: str | None = None, **metadata: str
    ) -> None:
        self.message = message or _first_paragraph(type(self))
        self.field = field
        self.metadata = metadata
        super().__init__(self.message)


class InvalidArgument(MeshError):
    """A field breaks its rule in the contract; correct the request and send it again."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ARGUMENT"


class Unstorable(InvalidArgument):
    """A text holds a NUL character or a number is not finite: neither can be stored; correct it.

    Raised where that is noticed, which is seldom where the field is known: `mesh.status.told` finds
    the field, if the request is to blame. On the wire the same as its parent.
    """


class PageTokenInvalid(MeshError):
    """The page token is malformed or belongs to another query; start again without one."""

    kind = Kind.INVALID_ARGUMENT
    reason = "PAGE_TOKEN_INVALID"


class NotFound(MeshError):
    """Nothing has the given id; check the id."""

    kind = Kind.NOT_FOUND
    reason = "NOT_FOUND"


class RequestIdReused(MeshError):
    """The request id was used before with another input; send a new request under a new id."""

    kind = Kind.ALREADY_EXISTS
    reason = "REQUEST_ID_REUSED"


class Conflict(MeshError):
    """Concurrent changes got in the way several times; try again with the same request id."""

    kind = Kind.ABORTED
    reason = "CONCURRENT_UPDATE"
    transient = True


class Overloaded(MeshError):
    """The service's queue is full; try again later with the same request id."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"


class MessageTooLarge(MeshError):
    """The request or its answer is too large for a message; split it, or ask for smaller pages."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "MESSAGE_TOO_LARGE"
    transient = False


class Unavailable(MeshError):
    """A dependency is out of reach; try again with the same request id."""

    kind = Kind.UNAVAILABLE
    reason = "UNAVAILABLE"


class DeadlineExceeded(MeshError):
    """The time left was not enough; try again with the same request id and a later deadline."""

    kind = Kind.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"


class PermissionDenied(MeshError):
    """The caller's role is not among the method's; call with a certificate of an allowed role."""

    kind = Kind.PERMISSION_DENIED
    reason = "ROLE_NOT_ALLOWED"


class Unauthenticated(MeshError):
    """The client certificate carries no identity of this mesh; obtain one from the mesh's CA."""

    kind = Kind.UNAUTHENTICATED
    reason = "NO_IDENTITY"


class Internal(MeshError):
    """The service failed for a reason of its own; report the request id to its operators."""

    kind = Kind.INTERNAL
    reason = "INTERNAL"


def rebuild(
    kind: Kind,
    *,
    domain: str,
    reason: str,
    message: str,
    field: str | None,
    metadata: Mapping[str, str],
) -> MeshError:
    """The error that a peer raised, as the class registered under (domain, reason).

    A reason this process has no class for still arrives as a `MeshError` of the right kind.
    """
    cls = _registry.get((domain, reason)) or _foreign(kind, domain, reason)
    error = cls.__new__(cls)
    MeshError.__init__(error, message, field=field)
    error.metadata = dict(metadata)
    return error


@lru_cache(maxsize=256)
def _foreign(kind: Kind, domain: str, reason: str) -> type[MeshError]:
    class ForeignError(MeshError, registered=False):
        """A peer refused with a reason this process does not know."""

    ForeignError.kind, ForeignError.domain, ForeignError.reason = kind, domain, reason
    ForeignError.transient = kind in _TRANSIENT
    return ForeignError


def _first_paragraph(cls: type[MeshError]) -> str:
    paragraph = (getdoc(cls) or cls.__name__).split("\n\n", 1)[0]
    return " ".join(paragraph.split())
