"""What events may be, and that equal events look equal."""

import json
from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2
from google.protobuf.json_format import MessageToJson, Parse, ParseDict

from connect_svc.errors import ContextTooLarge, SourceNotOwned
from connect_svc.normalization import admit, normalize
from mesh.errors import InvalidArgument
from mesh.identity import Identity

QUEST = Identity("domain-service", "quest")


def event(**fields: Any) -> events_pb2.Event:
    known = {
        "source": "quest",
        "external_id": "1",
        "event_type": "quest.completed",
        "actor_user_id": "ada",
        "occurred_time": "2025-06-07T12:00:00Z",
    }
    return ParseDict(known | fields, events_pb2.Event())


def nested(levels: int) -> Any:
    return {"deeper": nested(levels - 1)} if levels else 1


def test_a_sound_event_keeps_everything_that_counts() -> None:
    context = {"n": 1.5, "s": "é", "b": True, "l": [1, [None]], "o": {"x": "y"}}
    submission = normalize(event(context=context), "event")
    assert submission.event == event(context=context)
    assert json.loads(submission.context) == context


def test_the_argument_is_left_alone() -> None:
    sent = event(occurred_time="2025-06-07T12:00:00.123456789Z")
    submission = normalize(sent, "event")
    assert sent.occurred_time.nanos == 123_456_789
    assert submission.event.occurred_time.nanos == 123_456_000


@pytest.mark.parametrize(
    "other",
    [
        event(context={}),
        event(occurred_time="2025-06-07T12:00:00.000000999Z"),
        event(event_id="01890a5d-ac96-774b-bcce-b302099a8057"),
        event(received_time="2025-06-07T12:00:00Z"),
        Parse(MessageToJson(event()), events_pb2.Event()),
    ],
)
def test_what_makes_no_difference(other: events_pb2.Event) -> None:
    assert normalize(other, "").fingerprint == normalize(event(), "").fingerprint


@pytest.mark.parametrize(
    "other",
    [
        event(context={"a": 1}),
        event(actor_user_id="bob"),
        event(primary_subject_user_id="bob"),
        event(event_type="quest.failed"),
        event(occurred_time="2025-06-07T12:00:00.000001Z"),
    ],
)
def test_what_makes_another_event(other: events_pb2.Event) -> None:
    assert normalize(other, "").fingerprint != normalize(event(), "").fingerprint


def test_the_order_of_the_context_makes_no_difference() -> None:
    one = normalize(event(context={"a": 1, "b": 2, "c": 3}), "")
    two = normalize(event(context={"c": 3, "b": 2, "a": 1}), "")
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize(
    ("context", "field"),
    [
        ({"text": "x" * 16_384}, "event.context"),
        ({"a": {"l": [0] * 257}}, "event.context.a.l"),
        ({"l": [[0], [0] * 257]}, "event.context.l"),
        (nested(11), "event.context" + ".deeper" * 10),
    ],
)
def test_a_context_beyond_the_bounds(context: Any, field: str) -> None:
    with pytest.raises(ContextTooLarge) as refused:
        normalize(event(context=context), "event")
    assert refused.value.field == field
    assert int(refused.value.metadata["actual"]) > int(refused.value.metadata["limit"])


def test_a_context_at_the_bounds() -> None:
    normalize(event(context={"l": [0] * 256}), "")
    normalize(event(context=nested(10)), "")
    normalize(event(context={"text": "x" * 16_300}), "")


def test_numbers_that_json_cannot_say() -> None:
    infinite = event()
    infinite.context["n"] = float("inf")
    with pytest.raises(InvalidArgument, match="finite") as refused:
        normalize(infinite, "event")
    assert refused.value.field == "event.context.n"


def test_a_value_without_a_kind() -> None:
    unset = event()
    unset.context.fields["x"].SetInParent()
    with pytest.raises(InvalidArgument, match="unset"):
        normalize(unset, "")


@pytest.mark.parametrize(
    "fields",
    [
        {"actor_user_id": "a\0"},
        {"primary_subject_user_id": "\0"},
        {"context": {"s": "\0"}},
        {"context": {"\0": 1}},
    ],
)
def test_what_the_database_cannot_hold(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="NUL"):
        normalize(event(**fields), "")


def test_a_time_out_of_range() -> None:
    late = event()
    late.occurred_time.seconds = 2**60
    with pytest.raises(InvalidArgument, match="out of range") as refused:
        normalize(late, "events[3]")
    assert refused.value.field == "events[3].occurred_time"


def test_a_domain_service_reports_only_as_itself() -> None:
    assert admit(event(), QUEST, "event").key == ("quest", "1")
    assert admit(event(source="booking"), Identity("operator", "ops"), "event")
    with pytest.raises(SourceNotOwned) as refused:
        admit(event(source="booking"), QUEST, "event")
    assert refused.value.metadata == {"source": "booking", "caller": "domain-service/quest"}


@pytest.mark.parametrize(
    ("field", "user"),
    [("actor_user_id", ""), ("actor_user_id", "ada\n"), ("primary_subject_user_id", "\x85")],
)
def test_the_contract_s_rules_come_first(field: str, user: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        admit(event(**{field: user}), QUEST, "events[2]")
    assert refused.value.field == f"events[2].{field}"
