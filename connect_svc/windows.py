"""Days and weeks of a rule's own time zone: when a rule is valid, and where its limits count. Pure.

A window follows from the event's own time. It begins and ends at local midnights, so that a day is
23 or 25 hours long when the zone's clocks change.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from go2asia.connect.v1 import rules_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from connect_svc.errors import InvalidRule

_DAY = timedelta(days=1)
_WEEK = timedelta(days=7)


class Window(StrEnum):
    """For how long a limit counts; values are those of `Limit.Window`, less the prefix."""

    DAY = "DAY"
    WEEK = "WEEK"
    CAMPAIGN = "CAMPAIGN"


@dataclass(frozen=True, slots=True)
class Span:
    """One window: its name, as counters carry it, and its end; None if it has none."""

    name: str
    end: datetime | None


@dataclass(frozen=True, slots=True)
class Validity:
    """The time in which a rule applies, start included, end not, and the zone of its days."""

    zone: ZoneInfo
    start: Timestamp | None = None
    end: Timestamp | None = None

    def holds(self, moment: Timestamp) -> bool:
        """Whether the rule applies at `moment`."""
        if self.start is None and self.end is None:
            return True
        at = _instant(moment)
        if self.start is not None and at < _instant(self.start):
            return False
        return self.end is None or at < _instant(self.end)

    def __str__(self) -> str:
        return (
            f"from {self.told(self.start) if self.start else 'always'} "
            f"until {self.told(self.end) if self.end else 'for ever'}"
        )

    def told(self, moment: Timestamp) -> str:
        """A moment for people, in the rule's zone if its calendar reaches that far."""
        if self.zone.key == "UTC":
            return moment.ToJsonString()
        try:
            return moment.ToDatetime(UTC).astimezone(self.zone).isoformat()
        except OverflowError:
            return moment.ToJsonString()

    def span(self, window: Window, moment: Timestamp) -> Span:
        """The window in which `moment` lies; raises `OverflowError` at the calendar's very ends."""
        if window is Window.CAMPAIGN:
            return Span("campaign", None if self.end is None else self.end.ToDatetime(UTC))
        day = moment.ToDatetime(UTC).astimezone(self.zone).date()
        if window is Window.DAY:
            return Span(f"day {day}", _midnight(day + _DAY, self.zone))
        monday = day - timedelta(days=day.weekday())
        return Span(f"week {monday}", _midnight(monday + _WEEK, self.zone))


ALWAYS = Validity(ZoneInfo("UTC"))


def compile_validity(rule: rules_pb2.Rule) -> Validity:
    """When a rule applies; raises `InvalidRule` for a zone, day or time that there is not."""
    zone = _zone(rule.time_zone)
    start = _bound(rule, "valid_from", "first_date", zone, timedelta())
    end = _bound(rule, "valid_to", "last_date", zone, _DAY)
    if start and end and _instant(start) >= _instant(end):
        name = "last_date" if rule.last_date else "valid_to"
        raise InvalidRule(
            field=f"rule.{name}",
            wrong=f"The validity ends before it begins; set {name} to a later time.",
        )
    return Validity(zone, start, end)


@cache
def _zone(name: str) -> ZoneInfo:
    # Looked up by name first: ZoneInfo opens whatever file or folder of the database it is given.
    if name and name not in _zone_names():
        raise InvalidRule(
            field="rule.time_zone",
            wrong=f"There is no time zone {name!r}; give an IANA name such as Asia/Bangkok.",
        )
    return ZoneInfo(name or "UTC")


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())


def _bound(
    rule: rules_pb2.Rule, moment_name: str, date_name: str, zone: ZoneInfo, later: timedelta
) -> Timestamp | None:
    """A bound of the validity, given as a moment or as a day; `later` is added to a day."""
    day: str = getattr(rule, date_name)
    if not rule.HasField(moment_name):  # type: ignore[arg-type]
        return _first_moment(day, date_name, zone, later) if day else None
    if day:
        raise InvalidRule(
            field=f"rule.{date_name}",
            wrong=f"Both {moment_name} and {date_name} are set; leave one of them out.",
        )
    moment: Timestamp = getattr(rule, moment_name)
    try:
        moment.ToJsonString()
    except ValueError as error:
        raise InvalidRule(
            field=f"rule.{moment_name}",
            wrong=f"{moment_name} is out of range; give a time in years 1 to 9999.",
        ) from error
    return moment


def _first_moment(text: str, name: str, zone: ZoneInfo, later: timedelta) -> Timestamp:
    bound = Timestamp()
    try:
        bound.FromDatetime(_midnight(date.fromisoformat(text) + later, zone))
    except (ValueError, OverflowError) as error:
        raise InvalidRule(
            field=f"rule.{name}",
            wrong=f"There is no day {text}; give one as YYYY-MM-DD, such as 2025-06-07.",
        ) from error
    return bound


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    """The first moment of a day; where clocks skip midnight, the moment at which they do."""
    return datetime.combine(day, time(), zone).astimezone(UTC)


def _instant(moment: Timestamp) -> tuple[int, int]:
    return moment.seconds, moment.nanos
