"""Days and weeks in a rule's zone, also where clocks change, and validity told as days."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from go2asia.connect.v1 import rules_pb2
from google.protobuf.json_format import ParseDict
from google.protobuf.timestamp_pb2 import Timestamp

from connect_svc.errors import InvalidRule
from connect_svc.windows import Validity, Window, compile_validity


def moment(text: str) -> Timestamp:
    stamp = Timestamp()
    stamp.FromJsonString(text)
    return stamp


def utc(text: str) -> datetime:
    return moment(text).ToDatetime(UTC)


def validity(**fields: Any) -> Validity:
    return compile_validity(ParseDict(fields, rules_pb2.Rule()))


@pytest.mark.parametrize(
    ("zone", "occurred", "day", "end"),
    [
        ("", "2025-06-07T23:59:59.999Z", "2025-06-07", "2025-06-08T00:00:00Z"),
        ("Asia/Bangkok", "2025-06-07T16:59:59Z", "2025-06-07", "2025-06-07T17:00:00Z"),
        ("Asia/Bangkok", "2025-06-07T17:00:00Z", "2025-06-08", "2025-06-08T17:00:00Z"),
        # Clocks go forward on 30 March 2025 and back on 26 October: 23 and 25 hours.
        ("Europe/Berlin", "2025-03-29T23:00:00Z", "2025-03-30", "2025-03-30T22:00:00Z"),
        ("Europe/Berlin", "2025-10-25T22:00:00Z", "2025-10-26", "2025-10-26T23:00:00Z"),
        ("Europe/Berlin", "2025-10-26T22:59:59Z", "2025-10-26", "2025-10-26T23:00:00Z"),
        # On 4 November 2018 São Paulo had no midnight: its clocks went from 23:59 to 01:00.
        ("America/Sao_Paulo", "2018-11-04T02:59:59Z", "2018-11-03", "2018-11-04T03:00:00Z"),
        ("America/Sao_Paulo", "2018-11-04T03:00:00Z", "2018-11-04", "2018-11-05T02:00:00Z"),
        # In Havana midnight came twice on 2 November 2025; the day began with the first.
        ("America/Havana", "2025-11-02T04:30:00Z", "2025-11-02", "2025-11-03T05:00:00Z"),
        ("America/Havana", "2025-11-02T03:59:59Z", "2025-11-01", "2025-11-02T04:00:00Z"),
    ],
)
def test_a_day_is_that_of_the_zone(zone: str, occurred: str, day: str, end: str) -> None:
    span = validity(time_zone=zone).span(Window.DAY, moment(occurred))
    assert (span.name, span.end) == (f"day {day}", utc(end))


@pytest.mark.parametrize(
    ("zone", "start", "end"),
    [
        ("Europe/Berlin", "2025-03-23T23:00:00Z", "2025-03-30T22:00:00Z"),
        ("Europe/Berlin", "2025-10-19T22:00:00Z", "2025-10-26T23:00:00Z"),
        ("UTC", "2024-12-30T00:00:00Z", "2025-01-06T00:00:00Z"),
    ],
)
def test_a_week_goes_from_monday_to_sunday(zone: str, start: str, end: str) -> None:
    told = validity(time_zone=zone)
    first = told.span(Window.WEEK, moment(start))
    before = moment(start)
    before.FromDatetime(utc(start) - timedelta(microseconds=1))
    last = moment(end)
    last.FromDatetime(utc(end) - timedelta(microseconds=1))
    assert first == told.span(Window.WEEK, last)
    assert first.end == utc(end)
    assert first != told.span(Window.WEEK, before)
    assert told.span(Window.WEEK, before).end == utc(start)


def test_a_campaign_is_one_window_that_ends_with_the_validity() -> None:
    for_ever = validity().span(Window.CAMPAIGN, moment("2025-06-07T00:00:00Z"))
    ended = validity(valid_to="2025-07-01T00:00:00Z").span(
        Window.CAMPAIGN, moment("2025-06-07T00:00:00Z")
    )
    assert (for_ever.name, for_ever.end) == ("campaign", None)
    assert (ended.name, ended.end) == ("campaign", utc("2025-07-01T00:00:00Z"))


@pytest.mark.parametrize(
    ("occurred", "holds"),
    [
        ("2025-06-06T16:59:59.999Z", False),
        ("2025-06-06T17:00:00Z", True),
        ("2025-06-08T16:59:59.999Z", True),
        ("2025-06-08T17:00:00Z", False),
    ],
)
def test_days_of_validity_are_those_of_the_zone_and_both_included(
    occurred: str, holds: bool
) -> None:
    weekend = validity(time_zone="Asia/Bangkok", first_date="2025-06-07", last_date="2025-06-08")
    assert weekend.holds(moment(occurred)) is holds
    assert str(weekend) == "from 2025-06-07T00:00:00+07:00 until 2025-06-09T00:00:00+07:00"


def test_one_day_is_a_validity() -> None:
    birthday = validity(first_date="2025-06-07", last_date="2025-06-07")
    assert birthday.holds(moment("2025-06-07T12:00:00Z"))
    mixed = validity(valid_from="2025-06-07T12:00:00Z", last_date="2025-06-07")
    assert not mixed.holds(moment("2025-06-07T11:59:59Z"))
    assert mixed.holds(moment("2025-06-07T23:59:59Z"))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"time_zone": "Asia/Bangkokk"}, "rule.time_zone"),
        ({"time_zone": "America"}, "rule.time_zone"),
        ({"time_zone": "../../etc/passwd"}, "rule.time_zone"),
        ({"time_zone": "/etc/localtime"}, "rule.time_zone"),
        ({"time_zone": "asia/bangkok"}, "rule.time_zone"),
        ({"time_zone": "+07:00"}, "rule.time_zone"),
        ({"first_date": "2025-02-29"}, "rule.first_date"),
        ({"last_date": "9999-12-31"}, "rule.last_date"),
        ({"first_date": "0000-01-01"}, "rule.first_date"),
        ({"first_date": "0001-01-01", "time_zone": "Asia/Tokyo"}, "rule.first_date"),
        ({"first_date": "2025-06-08", "last_date": "2025-06-07"}, "rule.last_date"),
        (
            {"first_date": "2025-06-07", "valid_from": "2025-06-07T00:00:00Z"},
            "rule.first_date",
        ),
        ({"last_date": "2025-06-07", "valid_to": "2025-06-07T00:00:00Z"}, "rule.last_date"),
        ({"first_date": "2025-06-07", "valid_to": "2025-06-07T00:00:00Z"}, "rule.valid_to"),
    ],
)
def test_a_zone_or_a_day_that_there_is_not(fields: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRule) as wrong:
        validity(**fields)
    assert wrong.value.field == field
