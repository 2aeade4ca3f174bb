"""The Progress & Level Engine: a reward raises a counter, counters reach levels. Pure.

The level is always the highest whose thresholds are reached, at least 1 with a badge that was
given; so the end is the same whatever the order of rewards, of grants and of taking them back, and
however they are batched. Only a change of the definition leaves a level standing above its
thresholds: it falls when something is taken back.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nft_svc.definitions import NftType
from nft_svc.errors import CounterOverflow

MAX_COUNTER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Progress:
    """A user's progress towards one type; level 0 is before the first.

    `grants` counts the badges given without progress; any holds the level at 1 or above.
    """

    counters: Mapping[str, int] = field(default_factory=dict)
    level: int = 0
    grants: int = 0


def advance(progress: Progress, nft_type: NftType, counter: str, increment: int) -> Progress:
    """The progress after a reward of one of the type's counters; it may rise several levels.

    A level already reached stays, even if the type's newer thresholds would ask for more.
    Raises `CounterOverflow` when the counter would leave the range of int64.
    """
    value = progress.counters.get(counter, 0) + increment
    if value > MAX_COUNTER:
        raise CounterOverflow(counter=counter)
    counters = {**progress.counters, counter: value}
    return Progress(counters, _climb(nft_type, counters, progress.level), progress.grants)


def give(progress: Progress) -> Progress:
    """The progress after a badge was given without any."""
    return replace(progress, level=max(progress.level, 1), grants=progress.grants + 1)


def retreat(progress: Progress, nft_type: NftType, counter: str, decrement: int) -> Progress:
    """The progress after a reward that it holds was taken back; it may fall several levels."""
    counters = {**progress.counters, counter: progress.counters[counter] - decrement}
    return _fall(replace(progress, counters=counters), nft_type)


def take_away(progress: Progress, nft_type: NftType) -> Progress:
    """The progress after a given badge was taken back."""
    return _fall(replace(progress, grants=progress.grants - 1), nft_type)


def reached(nft_type: NftType, progress: Progress) -> int:
    """The level that counters and grants amount to under a definition."""
    return max(_climb(nft_type, progress.counters, 0), min(progress.grants, 1))


def _fall(progress: Progress, nft_type: NftType) -> Progress:
    return replace(progress, level=min(progress.level, reached(nft_type, progress)))


def _climb(nft_type: NftType, counters: Mapping[str, int], level: int) -> int:
    for rule in nft_type.levels[level:]:
        if not rule.reached(counters):
            break
        level = rule.level
    return level
