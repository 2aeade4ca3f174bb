"""The same rules for three engines: so many event types, each with its cities and thresholds.

A rule is for one event type and one city, and asks for an amount of at least its threshold, two
nights, and one of two channels. Every event has the type and the city of one rule, so that one of
all rules comes close to matching, and about half of the time does: only the amount decides.
"""

import random
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from go2asia.connect.v1 import events_pb2, rules_pb2
from google.protobuf.json_format import ParseDict

TYPES = 50
LARGEST = 1_000
_EVENT_ID = "0198c000-0000-7000-8000-000000000000"


@dataclass(frozen=True)
class Offer:
    """What one rule asks for."""

    event_type: str
    city: str
    threshold: int


def offers(count: int) -> list[Offer]:
    """That many rules, spread evenly over the event types."""
    chance = random.Random(1)
    return [
        Offer(f"booking.paid_{n % TYPES}", f"city-{n // TYPES}", chance.randrange(LARGEST))
        for n in range(count)
    ]


def facts(known: list[Offer], count: int) -> list[dict[str, Any]]:
    """That many events, each close to one of the rules: the event type beside the context."""
    chance = random.Random(2)
    near = [chance.choice(known) for _ in range(count)]
    return [
        {
            "event_type": each.event_type,
            "city": each.city,
            "amount": chance.randrange(LARGEST),
            "nights": 3,
            "channel": "app",
        }
        for each in near
    ]


def as_rule(offer: Offer, number: int) -> rules_pb2.Rule:
    """The rule as Connect has it."""
    return ParseDict(
        {
            "rule_id": f"rule-{number}",
            "version": 1,
            "event_type": offer.event_type,
            "condition": f"event.context.city == '{offer.city}'"
            f" && event.context.amount >= {offer.threshold}.0"
            " && event.context.nights >= 2.0 && event.context.channel in ['app', 'web']",
            "actions": [{"key": "points", "credit_points": {"unit": "G2A", "amount": "10"}}],
        },
        rules_pb2.Rule(),
    )


def as_event(fact: dict[str, Any]) -> events_pb2.Event:
    """The event as Connect has it."""
    event = events_pb2.Event(
        event_id=_EVENT_ID, source="bench", event_type=fact["event_type"], actor_user_id="ada"
    )
    event.context.update({name: fact[name] for name in fact if name != "event_type"})
    event.occurred_time.FromJsonString("2025-06-07T12:00:00Z")
    return event


def as_table(known: list[Offer]) -> dict[str, Any]:
    """A decision graph (JDM) of one table that collects all rows that match."""
    columns = ("event_type", "city", "amount", "nights", "channel")
    table = {
        "hitPolicy": "collect",
        "inputs": [{"id": name, "name": name, "field": name} for name in columns],
        "outputs": [{"id": "points", "name": "points", "field": "points"}],
        "rules": [
            {
                "_id": str(number),
                "event_type": f'"{offer.event_type}"',
                "city": f'"{offer.city}"',
                "amount": f">= {offer.threshold}",
                "nights": ">= 2",
                "channel": '"app", "web"',
                "points": "10",
            }
            for number, offer in enumerate(known)
        ],
    }
    names = ("event", "rules", "rewards")
    kinds = ("inputNode", "decisionTableNode", "outputNode")
    return {
        "nodes": [
            {"id": name, "name": name, "type": kind, **({"content": table} if table_here else {})}
            for name, kind, table_here in zip(names, kinds, (False, True, False), strict=True)
        ],
        "edges": [
            {"id": f"{start}-{end}", "type": "edge", "sourceId": start, "targetId": end}
            for start, end in pairwise(names)
        ],
    }


def as_conditions(known: list[Offer]) -> list[dict[str, Any]]:
    """The rules of json-rules-engine, each with the event type whose engine is to have it."""
    return [
        {
            "event_type": offer.event_type,
            "rule": {
                "conditions": {
                    "all": [
                        {"fact": name, "operator": operator, "value": value}
                        for name, operator, value in (
                            ("city", "equal", offer.city),
                            ("amount", "greaterThanInclusive", offer.threshold),
                            ("nights", "greaterThanInclusive", 2),
                            ("channel", "in", ["app", "web"]),
                        )
                    ]
                },
                "event": {"type": "credit_points", "params": {"amount": 10}},
            },
        }
        for offer in known
    ]
