"""Errors keep what they say on the way out and back."""

import grpc
import pytest
from go2asia.connect.v1 import events_pb2
from go2asia.mesh.v1 import item_error_pb2
from go2asia.points.v1 import points_pb2

from mesh import status
from mesh.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    Kind,
    MeshError,
    MessageTooLarge,
    NotFound,
    Overloaded,
    Unavailable,
    Unstorable,
)
from mesh.validation import MAX_VIOLATIONS, InvalidFields, check, unstorable_field


def over_the_wire(error: MeshError) -> MeshError:
    sent = status.to_grpc(error)
    received = grpc.aio.AioRpcError(
        sent.code,
        initial_metadata=grpc.aio.Metadata(),
        trailing_metadata=grpc.aio.Metadata(*(sent.trailing_metadata or ())),
        details=sent.details,
    )
    return status.from_grpc(received)


def bare(code: grpc.StatusCode, details: str = "said grpc") -> MeshError:
    return status.from_grpc(
        grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)
    )


def test_every_kind_has_its_code() -> None:
    assert {kind.name for kind in Kind} == {code.name for code in status.CODES.values()}


def test_class_message_field_and_metadata_survive() -> None:
    sent = NotFound("No such user.", field="user_id", resource_type="user", resource_id="ada")
    for received in (over_the_wire(sent), status.from_item_error(status.to_item_error(sent))):
        assert type(received) is NotFound
        assert received.message == "No such user."
        assert received.field == "user_id"
        assert received.metadata == {"resource_type": "user", "resource_id": "ada"}


def test_an_unknown_reason_keeps_its_kind() -> None:
    item = item_error_pb2.ItemError(code=9, reason="NEW_REASON", domain="new.go2asia", message="x")
    received = status.from_item_error(item)
    assert (received.kind, received.reason) == (Kind.FAILED_PRECONDITION, "NEW_REASON")
    assert not received.transient


def test_a_code_outside_the_table_is_internal() -> None:
    assert status.from_item_error(item_error_pb2.ItemError(code=2)).kind is Kind.INTERNAL


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.CANCELLED, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded),
        (grpc.StatusCode.UNIMPLEMENTED, Internal),
        (grpc.StatusCode.UNKNOWN, Internal),
    ],
)
def test_what_grpc_says_itself_has_a_class(
    code: grpc.StatusCode, expected: type[MeshError]
) -> None:
    error = bare(code)
    assert type(error) is expected
    assert "said grpc" in error.message


def test_a_message_too_large_is_not_sent_again() -> None:
    said = "CLIENT: Received message larger than max (5000008 vs. 4194304)"
    error = bare(grpc.StatusCode.RESOURCE_EXHAUSTED, said)
    assert type(error) is MessageTooLarge
    assert said in error.message
    assert not error.transient


def test_the_field_that_cannot_be_stored_is_named() -> None:
    award = points_pb2.AwardRequest(request_id="a")
    award.posting.metadata["quest"] = "temple\0"
    told = status.told(Unstorable(), award)
    assert (told.kind, told.field) == (Kind.INVALID_ARGUMENT, 'posting.metadata["quest"]')
    assert type(over_the_wire(told)) is InvalidArgument


def test_what_could_not_be_stored_is_our_fault_if_the_request_does_not_hold_it() -> None:
    award = points_pb2.AwardRequest(request_id="a", posting=points_pb2.PostingDetails(amount=1))
    assert type(status.told(Unstorable(), award)) is Internal


@pytest.mark.parametrize(
    ("value", "field"),
    [("\0", "context"), (float("nan"), "context"), ("fine", None), (1.5, None), (None, None)],
)
def test_a_struct_is_one_field(value: object, field: str | None) -> None:
    event = events_pb2.Event()
    event.context.update({"stay": {"nights": [2, value]}})
    assert unstorable_field(event) == field
    event = events_pb2.Event(source="quest")
    event.context["a\0"] = 1
    assert unstorable_field(events_pb2.BatchSubmitEventsRequest(events=[event, event])) == (
        "events[0].context"
    )


def test_all_violations_survive() -> None:
    sent = InvalidFields([("a", "must be above 0"), ("b.c", "is required")])
    received = over_the_wire(sent)
    assert isinstance(received, InvalidFields)
    assert received.violations == sent.violations
    assert received.message == sent.message


def test_violations_are_found_with_their_paths() -> None:
    award = points_pb2.AwardRequest(request_id="a", posting=points_pb2.PostingDetails(amount=-1))
    award.posting.metadata[""] = "x"
    with pytest.raises(InvalidFields) as refused:
        check(award, prefix="items[3].award")
    fields = [field for field, _ in refused.value.violations]
    assert refused.value.field == fields[0] == "items[3].award.posting.user_id"
    assert "items[3].award.posting.amount" in fields
    assert 'items[3].award.posting.metadata[""]' in fields
    assert len(fields) <= MAX_VIOLATIONS


def test_a_missing_oneof_is_named() -> None:
    with pytest.raises(InvalidArgument, match=r"items\[0\]"):
        check(points_pb2.PostItem(), prefix="items[0]")


def test_a_good_message_passes() -> None:
    check(points_pb2.GetBalanceRequest(user_id="ada", unit="G2A"))
