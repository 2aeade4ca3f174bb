"""How long deciding an event takes at 10,000 rules, here and in two other engines."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, TypeVar

import zen

from bench.connect import rule_data
from bench.measure import Figure
from connect_svc.deciding import decide
from connect_svc.rules import Catalogue, compile_rule

FEW, MANY = 100, 10_000
EVENTS = 5_000
JSON_RULES_ENGINE = "json-rules-engine@7.3.1"

Event = TypeVar("Event")
Measure = Callable[[float], float]
"""Runs for so many seconds and returns the microseconds that an event took."""


async def measure(folder: Path, *, rounds: int, seconds: float) -> list[Figure]:
    """All figures about rules."""
    with ExitStack() as cleanup:
        found = await asyncio.to_thread(_measure, folder, rounds, seconds, cleanup)
    ours, few = found["ours"], found["ours, 100"]
    figures = [
        Figure("rules.10k_us", round(ours, 2), "µs/event", None, None, 20, "lower"),
        _compared("rules.10k_vs_100", ours, few, ours / few, None),
        _compared("rules.10k_vs_zen", ours, found["zen"], found["zen"] / ours, 120),
    ]
    if "json rules" in found:
        theirs = found["json rules"]
        name = "rules.10k_vs_json_rules_engine"
        figures.append(_compared(name, ours, theirs, theirs / ours, 100))
    return figures


def _compared(name: str, ours: float, theirs: float, ratio: float, goal: float | None) -> Figure:
    micros = (round(ours, 2), "µs/event", round(theirs, 2))
    return Figure(name, *micros, round(ratio, 2), goal, "lower" if goal is None else "higher")


def _measure(folder: Path, rounds: int, seconds: float, cleanup: ExitStack) -> dict[str, float]:
    known = rule_data.offers(MANY)
    facts = rule_data.facts(known, EVENTS)
    engines = {
        "ours": _ours(known, facts),
        "ours, 100": _ours(known[:FEW], rule_data.facts(known[:FEW], EVENTS)),
        "zen": _zen(known, facts),
    }
    if (json_rules := _json_rules(folder, known, facts, cleanup)) is not None:
        engines["json rules"] = json_rules
    taken: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds + 1):
        for name, engine in engines.items():
            micros = engine(seconds)
            print(f"  round {number}  {name:<24} {micros:>12,.1f} µs an event", flush=True)
            if number:
                taken[name].append(micros)
    return {name: median(measured) for name, measured in taken.items()}


def _ours(known: list[rule_data.Offer], facts: list[dict[str, Any]]) -> Measure:
    compiled = [compile_rule(rule_data.as_rule(offer, n)) for n, offer in enumerate(known)]
    catalogue = Catalogue(1, compiled)
    events = [rule_data.as_event(fact) for fact in facts]
    return _loop(events, lambda event: len(decide(catalogue, event).actions))


def _zen(known: list[rule_data.Offer], facts: list[dict[str, Any]]) -> Measure:
    content = zen.ZenDecisionContent(json.dumps(rule_data.as_table(known)))
    decision = zen.ZenEngine().create_decision(content)
    return _loop(facts, lambda fact: len(decision.evaluate(fact)["result"]))


def _loop(events: Sequence[Event], decide_one: Callable[[Event], int]) -> Measure:
    """Decides the events one after the other; the function returns how many rules matched."""

    def run(seconds: float) -> float:
        done = matched = 0
        start = perf_counter()
        while perf_counter() - start < seconds:
            matched += decide_one(events[done % len(events)])
            done += 1
        taken = perf_counter() - start
        _check(matched / done, done)
        return taken / done * 1e6

    return run


def _json_rules(
    folder: Path, known: list[rule_data.Offer], facts: list[dict[str, Any]], cleanup: ExitStack
) -> Measure | None:
    """The engine in a Node.js process of its own; None where there is no npm."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        print("Node.js with npm is not installed here, so json-rules-engine is not measured.")
        return None
    subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", JSON_RULES_ENGINE],
        cwd=_package(folder),
        check=True,
    )
    data = folder / "rules.json"
    data.write_text(json.dumps({"rules": rule_data.as_conditions(known), "events": facts}))
    process = cleanup.enter_context(
        subprocess.Popen(
            ["node", str(Path(__file__).with_name("json_rules.mjs")), str(folder), str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    )

    def run(seconds: float) -> float:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("Node.js was started without pipes")
        process.stdin.write(f"{seconds}\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        _check(answer["share"], round(seconds * 1e6 / answer["micros"]))
        return float(answer["micros"])

    return run


def _package(folder: Path) -> Path:
    """The folder, made a package of its own: npm would else install into one above it."""
    (folder / "package.json").write_text('{"private": true}\n')
    return folder


def _check(share: float, events: int) -> None:
    """Raises when an engine matched implausibly many or few; half of the events have a match."""
    if events > 1_000 and not 0.4 < share < 0.6:
        raise RuntimeError(f"{share:.0%} of the events matched, not half: the rules differ")
