"""Writes examples/events.jsonl: one simulated week of 40 users. Same seed, same file.

    python examples/make_events.py > examples/events.jsonl

The week holds what real feeds hold: exact duplicates, events that arrive late and out of order, one
that matches no rule and one that is malformed.
"""

import json
import random
import sys
from datetime import UTC, datetime, timedelta

USERS = [f"user-{number:02d}" for number in range(1, 41)]
WEEK = datetime(2025, 6, 2, tzinfo=UTC)
COUNTS = {
    "quest.completed": 110,
    "booking.paid": 70,
    "referral.joined": 30,
    "review.published": 50,
    "event.attended": 45,
    "voucher.redeemed": 25,
}
SOURCES = {
    "quest.completed": "quest",
    "booking.paid": "booking",
    "referral.joined": "referral",
    "review.published": "blog",
    "event.attended": "pulse",
    "voucher.redeemed": "voucher",
}


def context_of(event_type: str, chance: random.Random) -> dict[str, object]:
    """Return the facts that a domain service would send with such an event."""
    match event_type:
        case "quest.completed":
            difficulty = chance.choices(["easy", "normal", "hard"], [5, 3, 2])[0]
            return {"quest_id": f"quest-{chance.randint(1, 60)}", "difficulty": difficulty}
        case "booking.paid":
            nights = chance.randint(1, 9)
            cents = nights * chance.randint(1_800, 9_500)
            return {"nights": nights, "total_cents": cents, "city": chance.choice(CITIES)}
        case "referral.joined":
            return {"campaign": chance.choice(["summer", "friends"])}
        case "review.published":
            return {"stars": chance.randint(1, 5), "words": chance.randint(50, 400)}
        case "event.attended":
            return {"category": chance.choice(["music", "food", "sport", "business"])}
        case _:
            return {"partner_id": f"partner-{chance.randint(1, 12)}"}


CITIES = ["Bangkok", "Danang", "Bali", "Phuket"]


def make_events(seed: int) -> list[dict[str, object]]:
    """Return the week's lines in the order in which they arrive."""
    chance = random.Random(seed)
    events: list[dict[str, object]] = []
    for event_type, count in COUNTS.items():
        for number in range(count):
            actor, inviter = chance.sample(USERS, 2)
            event: dict[str, object] = {
                "source": SOURCES[event_type],
                "external_id": f"{event_type.replace('.', '-')}-{number:04d}",
                "event_type": event_type,
                "actor_user_id": actor,
                "context": context_of(event_type, chance),
                "occurred_time": moment(chance),
            }
            if event_type == "referral.joined":
                event["primary_subject_user_id"] = inviter
            events.append(event)
    events.sort(key=lambda event: str(event["occurred_time"]))
    make_late(events, chance)
    for original in chance.sample(events, 12):
        events.insert(chance.randint(events.index(original) + 1, len(events)), dict(original))
    events.insert(40, MATCHES_NOTHING)
    events.insert(150, MALFORMED)
    return events


def moment(chance: random.Random) -> str:
    """Return a second of the week, RFC 3339."""
    time = WEEK + timedelta(seconds=chance.randrange(7 * 86_400))
    return time.isoformat().replace("+00:00", "Z")


def make_late(events: list[dict[str, object]], chance: random.Random) -> None:
    """Move 25 events later in the file than their own time would have them."""
    for _ in range(25):
        late = events.pop(chance.randrange(len(events) // 2))
        events.insert(chance.randrange(len(events) // 2, len(events)), late)


MATCHES_NOTHING: dict[str, object] = {
    "source": "blog",
    "external_id": "review-published-too-short",
    "event_type": "review.published",
    "actor_user_id": "user-07",
    "context": {"stars": 5, "words": 3},
    "occurred_time": "2025-06-03T10:00:00Z",
}
MALFORMED: dict[str, object] = {
    "source": "quest",
    "external_id": "quest-completed-without-actor",
    "event_type": "quest.completed",
    "actor_user_id": "",
    "context": {"difficulty": "hard"},
    "occurred_time": "2025-06-05T08:30:00Z",
}

if __name__ == "__main__":
    for line in make_events(seed=20250602):
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
