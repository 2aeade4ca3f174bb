"""What the demo must end with, worked out from its input files alone.

    python examples/expect.py rules.yaml badges.yaml events.jsonl

A second opinion: it knows nothing of the services, their contracts or their database, and evaluates
CEL with another library (celpy) than they do. Prints one JSON object: points by user and unit,
badge levels by user, and who owns which minted badge.
"""

import json
import re
import sys
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import celpy
import yaml
from celpy import celtypes

REQUIRED = ("source", "external_id", "event_type", "actor_user_id", "occurred_time")
SOURCE = re.compile("[a-z][a-z0-9-]{0,62}")
ENVIRONMENT = celpy.Environment()
PROGRAMS: dict[str, celpy.Runner] = {}


def read_events(path: Path) -> tuple[list[dict[str, Any]], int]:
    """Return the first of each distinct well-formed event, and how many lines are malformed."""
    first: dict[tuple[str, str], dict[str, Any]] = {}
    malformed = 0
    for line in path.read_text(encoding="utf-8-sig").split("\n"):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
            if not all(event[field] for field in REQUIRED):
                raise ValueError("a required field is empty")
            datetime.fromisoformat(event["occurred_time"])
            if not SOURCE.fullmatch(event["source"]):
                raise ValueError("not the name of a source")
        except (ValueError, KeyError, TypeError):
            malformed += 1
            continue
        first.setdefault((event["source"], event["external_id"]), event)
    return list(first.values()), malformed


def to_cel(value: Any) -> Any:
    """Convert JSON to CEL as protobuf's Struct does: every number is a double."""
    if isinstance(value, bool):
        return celtypes.BoolType(value)
    if isinstance(value, (int, float)):
        return celtypes.DoubleType(value)
    if isinstance(value, dict):
        return celtypes.MapType({celtypes.StringType(k): to_cel(v) for k, v in value.items()})
    if isinstance(value, list):
        return celtypes.ListType([to_cel(item) for item in value])
    return None if value is None else celtypes.StringType(value)


def evaluate(expression: str, event: dict[str, Any]) -> Any:
    """Evaluate one expression over one event; raises celpy.CELEvalError when it errs."""
    if expression not in PROGRAMS:
        PROGRAMS[expression] = ENVIRONMENT.program(ENVIRONMENT.compile(expression))
    subject = to_cel({"primary_subject_user_id": "", "context": {}} | event)
    subject[celtypes.StringType("occurred_time")] = celtypes.TimestampType(event["occurred_time"])
    return PROGRAMS[expression].evaluate({"event": subject})


def applies(rule: dict[str, Any], event: dict[str, Any]) -> bool:
    """Tell whether a rule's type, state, window and condition accept the event."""
    if rule["event_type"] != event["event_type"]:
        return False
    if rule.get("state", "STATE_ENABLED") != "STATE_ENABLED":
        return False
    when = datetime.fromisoformat(event["occurred_time"])
    if "valid_from" in rule and when < datetime.fromisoformat(rule["valid_from"]):
        return False
    if "valid_to" in rule and when >= datetime.fromisoformat(rule["valid_to"]):
        return False
    return not rule.get("condition") or evaluate(rule["condition"], event) == celtypes.BoolType(
        True
    )


def rewards_of(rule: dict[str, Any], event: dict[str, Any]) -> list[tuple[str, str, str, int]]:
    """Return (user, kind, name, amount) for each action; all of a rule's actions or none."""
    rewards = []
    for action in rule["actions"]:
        user = str(evaluate(action.get("recipient") or "event.actor_user_id", event))
        if "increment_progress" in action:
            target = action["increment_progress"]
            name = f"{target['nft_type']}/{target['counter']}"
            kind, sign = "progress", 1
        else:
            kind, sign = "points", 1 if "credit_points" in action else -1
            target = action.get("credit_points") or action["debit_points"]
            name = target["unit"]
        amount = int(evaluate(str(target.get("amount") or "1"), event))
        if not user or amount <= 0:
            return []
        rewards.append((user, kind, name, sign * amount))
    return rewards


def level_of(badge: dict[str, Any], counters: dict[str, int]) -> int:
    """Return the highest level all of whose thresholds are reached."""
    reached = 0
    for level in badge["levels"]:
        if all(counters.get(name, 0) >= least for name, least in level["thresholds"].items()):
            reached = max(reached, level["level"])
    return reached


def is_minted(badge: dict[str, Any], level: int) -> bool:
    """Tell whether reaching this level put the badge on chain."""
    return badge.get("onchain_policy") == "ONCHAIN_POLICY_AUTO" and any(
        rule.get("auto_mint_onchain") and rule["level"] <= level for rule in badge["levels"]
    )


def expect(rules_path: Path, badges_path: Path, events_path: Path) -> dict[str, Any]:
    """Return everything the economy must hold after these events, however they arrive."""
    rules = yaml.safe_load(rules_path.read_text())["rules"]
    badges = {badge["code"]: badge for badge in yaml.safe_load(badges_path.read_text())["badges"]}
    events, malformed = read_events(events_path)
    points: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    counters: dict[str, dict[str, dict[str, int]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(int))
    )
    actions = 0
    for event in events:
        for rule in rules:
            try:
                rewards = rewards_of(rule, event) if applies(rule, event) else []
            except celpy.CELEvalError:
                continue
            actions += len(rewards)
            for user, kind, name, amount in rewards:
                if kind == "points":
                    points[user][name] += amount
                else:
                    badge, _, counter = name.partition("/")
                    counters[user][badge][counter] += amount
    levels = {
        user: {code: level for code, of in held.items() if (level := level_of(badges[code], of))}
        for user, held in counters.items()
    }
    return {
        "events": {"distinct": len(events), "malformed": malformed},
        "actions": actions,
        "points": points,
        "levels": {user: held for user, held in levels.items() if held},
        "mints": sorted(
            [user, code]
            for user, held in levels.items()
            for code, level in held.items()
            if is_minted(badges[code], level)
        ),
    }


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python examples/expect.py RULES.yaml BADGES.yaml EVENTS.jsonl")
    json.dump(expect(*map(Path, sys.argv[1:])), sys.stdout, indent=1, sort_keys=True)
