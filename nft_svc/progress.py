"""The Progress & Level Engine: a reward raises a counter, counters reach levels. Pure.

Counters only add up and levels only rise, so the end is the same whatever the order of rewards and
however they are batched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from nft_svc.definitions import NftType
from nft_svc.errors import CounterOverflow

MAX_COUNTER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Progress:
    """A user's progress towards one type; level 0 is before the first."""

    counters: Mapping[str, int] = field(default_factory=dict)
    level: int = 0


def advance(progress: Progress, nft_type: NftType, counter: str, increment: int) -> Progress:
    """The progress after a reward of one of the type's counters; it may rise several levels.

    A level already reached stays, even if the type's newer thresholds would ask for more.
    Raises `CounterOverflow` when the counter would leave the range of int64.
    """
    value = progress.counters.get(counter, 0) + increment
    if value > MAX_COUNTER:
        raise CounterOverflow(counter=counter)
    counters = {**progress.counters, counter: value}
    return Progress(counters, _climb(nft_type, counters, progress.level))


def _climb(nft_type: NftType, counters: Mapping[str, int], level: int) -> int:
    for rule in nft_type.levels[level:]:
        if not rule.reached(counters):
            break
        level = rule.level
    return level
