"""The one table between errors and their wire forms, in both directions.

A unary call carries `google.rpc.Status` with `ErrorInfo` and `BadRequest` in its trailers
(AIP-193); an item of a batch carries the same facts as `go2asia.mesh.v1.ItemError`.
"""

from collections.abc import Sequence

import grpc
from go2asia.mesh.v1 import item_error_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from mesh.errors import (
    DeadlineExceeded,
    Internal,
    Kind,
    MeshError,
    MessageTooLarge,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unstorable,
    rebuild,
)
from mesh.telemetry import current_request_id
from mesh.validation import InvalidFields, unstorable_field

_DETAILS = "grpc-status-details-bin"

CODES: dict[Kind, grpc.StatusCode] = {kind: grpc.StatusCode[kind.name] for kind in Kind}
_NUMBERS: dict[Kind, int] = {kind: code.value[0] for kind, code in CODES.items()}
_KINDS: dict[int, Kind] = {number: kind for kind, number in _NUMBERS.items()}

# What gRPC itself says, without ErrorInfo: the transport broke, timed out, or refused.
_BARE: dict[grpc.StatusCode, type[MeshError]] = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.CANCELLED: Unavailable,  # by the peer: our own cancellation is CancelledError
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
}
# How gRPC words it, on either side and in either direction, when a message exceeds its limit.
_TOO_LARGE = "message larger than max"


def told(error: Exception, request: Message) -> MeshError:
    """What the sender of a request is told of a failure; `Internal` if it is a defect of ours.

    What could not be stored was the request's own only if the request holds such a thing.
    """
    if isinstance(error, Unstorable):
        if field := unstorable_field(request):
            return Unstorable(error.message, field=field)
    elif isinstance(error, MeshError):
        return error
    return Internal(request_id=current_request_id() or "")


def to_grpc(error: MeshError) -> grpc.Status:
    """The status, with details in its trailers, to abort a call with."""
    status = status_pb2.Status(code=_NUMBERS[error.kind], message=error.message)
    status.details.add().Pack(
        error_details_pb2.ErrorInfo(
            reason=error.reason, domain=error.domain, metadata=error.metadata
        )
    )
    if violations := _violations(error):
        bad_request = error_details_pb2.BadRequest()
        for field, wrong in violations:
            bad_request.field_violations.add(field=field, description=wrong)
        status.details.add().Pack(bad_request)
    return rpc_status.to_status(status)


def from_grpc(error: grpc.aio.AioRpcError) -> MeshError:
    """The error the peer raised, of the same class; or what gRPC's own failure means."""
    for key, value in error.trailing_metadata() or ():
        if key == _DETAILS and isinstance(value, bytes):
            rebuilt = _from_status(status_pb2.Status.FromString(value))
            if rebuilt is not None:
                return rebuilt
    code, words = error.code(), error.details() or "no details"
    said = f"The call failed with {code.name}: {words}"
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_LARGE in words:
        return MessageTooLarge(f"{said}; split the request or ask for a smaller page.")
    return _BARE.get(code, Internal)(f"{said}.")


def to_item_error(error: MeshError, path: str = "") -> item_error_pb2.ItemError:
    """The error of one item of a batch; `path` is the item's place in the request."""
    field = "" if error.field is None else ".".join(filter(None, (path, error.field)))
    return item_error_pb2.ItemError(
        code=_NUMBERS[error.kind],
        reason=error.reason,
        domain=error.domain,
        message=error.message,
        field=field,
        metadata=error.metadata,
    )


def from_item_error(item: item_error_pb2.ItemError) -> MeshError:
    """The error the peer raised for this item, of the same class."""
    return rebuild(
        _KINDS.get(item.code, Kind.INTERNAL),
        domain=item.domain,
        reason=item.reason,
        message=item.message,
        field=item.field or None,
        metadata=item.metadata,
    )


def _violations(error: MeshError) -> Sequence[tuple[str, str]]:
    if isinstance(error, InvalidFields):
        return error.violations
    return [(error.field, error.message)] if error.field else []


def _from_status(status: status_pb2.Status) -> MeshError | None:
    info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        for known in (info, bad_request):
            if detail.Is(known.DESCRIPTOR):
                detail.Unpack(known)
    if not info.reason:
        return None
    violations = [(found.field, found.description) for found in bad_request.field_violations]
    if len(violations) > 1:
        return InvalidFields(violations)
    return rebuild(
        _KINDS.get(status.code, Kind.INTERNAL),
        domain=info.domain,
        reason=info.reason,
        message=status.message,
        field=violations[0][0] if violations else None,
        metadata=info.metadata,
    )
