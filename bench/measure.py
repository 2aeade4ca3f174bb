"""What every benchmark shares: interleaved rounds, medians, ratios, one JSON form.

Variants run in turn, round after round, so that whatever else the machine does meets all of them;
the median of the rounds is reported. Ratios hold across machines, absolute figures do not.
"""

import asyncio
import json
import statistics
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Literal, TypeAlias

RESULTS = Path(__file__).parent / "results"

Variant: TypeAlias = Callable[[], Awaitable[float]]
"""Runs for a while and returns a rate."""


@dataclass(frozen=True)
class Figure:
    """One result; the goal holds for `ratio` where there is a baseline, else for `value`.

    Without a goal it is only told.
    """

    name: str
    value: float
    unit: str
    baseline: float | None
    ratio: float | None
    goal: float | None
    better: Literal["higher", "lower"]

    @property
    def verdict(self) -> str:
        """Whether the goal was reached."""
        if self.goal is None:
            return "no goal"
        measured = self.value if self.ratio is None else self.ratio
        reached = measured >= self.goal if self.better == "higher" else measured <= self.goal
        return f"goal {self.goal:g}: {'reached' if reached else 'MISSED'}"


def against(
    name: str, value: float, baseline: float, goal: float | None, *, unit: str = "transfers/s"
) -> Figure:
    """A rate compared with a baseline; more is better."""
    ratio = round(value / baseline, 2)
    return Figure(name, round(value), unit, round(baseline), ratio, goal, "higher")


async def interleave(variants: Mapping[str, Variant], rounds: int) -> dict[str, float]:
    """The median rate of each variant over `rounds` rounds, after one round to warm up."""
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for number in range(rounds + 1):
        for name, variant in variants.items():
            rate = await variant()
            print(f"  round {number}  {name:<14} {rate:>10,.0f}/s", flush=True)
            if number:
                rates[name].append(rate)
    return {name: statistics.median(measured) for name, measured in rates.items()}


async def rate(work: Callable[[], Awaitable[int]], *, in_flight: int, seconds: float) -> float:
    """How much a second `in_flight` callers do who repeat `work`, which says how much it did."""
    done, start = 0, perf_counter()

    async def repeat() -> None:
        nonlocal done
        while perf_counter() - start < seconds:
            amount = await work()
            done += amount  # not in one step: the old value would be read before the wait

    await asyncio.gather(*(repeat() for _ in range(in_flight)))
    return done / (perf_counter() - start)


def report(name: str, figures: list[Figure]) -> None:
    """Prints the figures and writes `bench/results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    rows = [asdict(figure) for figure in figures]
    (RESULTS / f"{name}.json").write_text(json.dumps(rows, indent=2) + "\n")
    show(figures)


def show(figures: list[Figure]) -> None:
    """Prints the figures."""
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f} of {figure.baseline:,.0f}"
        print(
            f"{figure.name:<32} {_short(figure.value):>9} {figure.unit:<12} {ratio:<18} "
            f"{figure.verdict}"
        )


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
