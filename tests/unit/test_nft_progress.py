"""Levels at their edges: several at once, never down, and what a type may not say."""

import pytest

from nft_svc.definitions import (
    LevelRule,
    NftType,
    OnchainPolicy,
    TokenStandard,
    check_levels,
)
from nft_svc.errors import CounterOverflow, InvalidLevels
from nft_svc.progress import MAX_COUNTER, Progress, advance


def rule(level: int, auto: bool = False, **thresholds: int) -> LevelRule:
    return LevelRule(level, thresholds, {}, auto)


def nft_type(*levels: LevelRule, policy: OnchainPolicy = OnchainPolicy.AUTO) -> NftType:
    return NftType(
        code="explorer",
        display_name="Explorer",
        description="",
        counters=("quests", "cities"),
        metadata_schema=None,
        image="",
        onchain_policy=policy,
        token_standard=TokenStandard.NFT,
        levels=levels,
    )


EXPLORER = nft_type(rule(1, quests=1), rule(2, quests=5), rule(3, quests=5, cities=2))


def test_a_level_is_reached_at_its_threshold_and_not_before() -> None:
    four = advance(Progress({"quests": 3}, 1), EXPLORER, "quests", 1)
    assert four.level == 1
    assert advance(four, EXPLORER, "quests", 1).level == 2


def test_one_reward_may_reach_several_levels() -> None:
    assert advance(Progress({"cities": 2}, 0), EXPLORER, "quests", 7).level == 3


def test_all_thresholds_of_a_level_count() -> None:
    assert advance(Progress({"quests": 100}, 2), EXPLORER, "cities", 1).level == 2


def test_a_level_once_reached_stays_when_the_type_grows_harder() -> None:
    harder = nft_type(rule(1, quests=50), rule(2, quests=60), rule(3, quests=70))
    assert advance(Progress({"quests": 5}, 2), harder, "quests", 1).level == 2


def test_a_type_that_lost_levels_keeps_what_people_have() -> None:
    assert advance(Progress({"quests": 9}, 3), nft_type(rule(1, quests=1)), "quests", 1).level == 3


def test_a_counter_ends_at_int64() -> None:
    full = advance(Progress({"quests": MAX_COUNTER - 1}, 2), EXPLORER, "quests", 1)
    assert full.counters["quests"] == MAX_COUNTER
    with pytest.raises(CounterOverflow) as refused:
        advance(full, EXPLORER, "quests", 1)
    assert refused.value.metadata == {"counter": "quests"}


def test_a_rise_past_an_auto_mint_level_counts() -> None:
    levels = (rule(1, quests=1), rule(2, auto=True, quests=2), rule(3, quests=3))
    assert nft_type(*levels).auto_mints(above=0, upto=3)
    assert not nft_type(*levels).auto_mints(above=2, upto=3)
    assert not nft_type(*levels, policy=OnchainPolicy.ON_REQUEST).auto_mints(above=0, upto=3)


@pytest.mark.parametrize(
    ("levels", "wrong"),
    [
        ([rule(2, quests=1)], 1),
        ([rule(1, quests=1), rule(3, quests=2)], 2),
        ([rule(1, quests=5), rule(2, quests=4)], 2),
        ([rule(1, quests=5), rule(2, cities=1)], 2),
        ([rule(1, quests=1, towns=1)], 1),
    ],
)
def test_levels_must_count_and_climb(levels: list[LevelRule], wrong: int) -> None:
    with pytest.raises(InvalidLevels) as refused:
        check_levels(("quests", "cities"), levels)
    assert refused.value.metadata == {"level": str(wrong)}
    assert refused.value.field == f"nft_type.levels[{wrong - 1}]"
