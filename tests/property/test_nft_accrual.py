"""Progress does not depend on the order of rewards, nor on how they are batched."""

from datetime import UTC, datetime
from itertools import count
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nft_svc.accrual import Accrual, Grant, Reward, Standing
from nft_svc.audit import Origin
from nft_svc.definitions import LevelRule, NftType, OnchainPolicy, TokenStandard, check_levels
from nft_svc.progress import Progress, advance

COUNTERS = ("quests", "cities", "friends")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
rewards = st.lists(st.tuples(st.sampled_from(COUNTERS), st.integers(1, 9)), max_size=30)


@st.composite
def types(draw: st.DrawFn) -> NftType:
    """A type whose levels each ask for at least what the one before asked for."""
    levels: list[LevelRule] = []
    thresholds: dict[str, int] = {}
    for number in range(1, draw(st.integers(1, 6)) + 1):
        more = draw(
            st.dictionaries(st.sampled_from(COUNTERS), st.integers(1, 12), min_size=1, max_size=3)
        )
        thresholds = {
            counter: thresholds.get(counter, 0) + more.get(counter, 0)
            for counter in COUNTERS
            if counter in thresholds or counter in more
        }
        levels.append(LevelRule(number, thresholds, {}, draw(st.booleans())))
    check_levels(COUNTERS, levels)
    return NftType(
        "explorer", "Explorer", "", COUNTERS, None, "", OnchainPolicy.AUTO, TokenStandard.NFT,
        tuple(levels),
    )  # fmt: skip


def highest(nft_type: NftType, progress: Progress) -> int:
    """The definition: the highest level all of whose thresholds are reached."""
    return max((r.level for r in nft_type.levels if r.reached(progress.counters)), default=0)


@given(types(), rewards, st.randoms())
def test_any_order_comes_to_the_same_end(
    nft_type: NftType, given_rewards: list[tuple[str, int]], random: Any
) -> None:
    shuffled = random.sample(given_rewards, len(given_rewards))
    ends = []
    for order in (given_rewards, shuffled):
        progress = Progress()
        for counter, increment in order:
            before = progress
            progress = advance(progress, nft_type, counter, increment)
            assert progress.level >= before.level
            assert progress.level == highest(nft_type, progress)
        ends.append(progress)
    assert ends[0] == ends[1]


@given(types(), rewards, st.lists(st.integers(1, 5), min_size=30, max_size=30))
def test_any_batching_comes_to_the_same_end(
    nft_type: NftType, given_rewards: list[tuple[str, int]], sizes: list[int]
) -> None:
    one_by_one = settle(nft_type, given_rewards, [1] * len(given_rewards))
    assert settle(nft_type, given_rewards, sizes) == one_by_one
    standing, outcomes, mints = one_by_one
    assert len(mints) <= 1
    assert standing.progress.level == max((level for _, level, _ in outcomes), default=0)


def settle(nft_type: NftType, given_rewards: list[tuple[str, int]], sizes: list[int]) -> Any:
    """What the user has in the end, the outcomes, and the content of the mints, batch by batch."""
    ids = count(1)
    standing, outcomes, mints = Standing(Progress()), [], []
    left, batches = list(given_rewards), iter(sizes)
    while left:
        size = next(batches)
        batch, left = left[:size], left[size:]
        accrual = Accrual(
            {"explorer": nft_type}, {("ada", "explorer"): standing}, NOW, lambda: str(next(ids))
        )
        for counter, increment in batch:
            reward = Reward("ada", "explorer", counter, increment, "", Origin("connect/connect"))
            outcome = accrual.apply(reward)
            outcomes.append((outcome.counter_value, outcome.level, outcome.level_raised))
        standing = accrual.changed["ada", "explorer"]
        mints += [mint.content for mint, _ in accrual.mints]
    return standing, outcomes, mints


gifts = st.lists(
    st.one_of(st.none(), st.tuples(st.sampled_from(COUNTERS), st.integers(1, 9))), max_size=20
)


@given(types(), gifts, st.data())
def test_taking_back_in_any_order_leaves_what_was_never_taken_back(
    nft_type: NftType, given_gifts: list[tuple[str, int] | None], data: st.DataObject
) -> None:
    given_back = data.draw(st.sets(st.sampled_from(range(len(given_gifts))))) if given_gifts else ()
    kept = [gift for number, gift in enumerate(given_gifts) if number not in given_back]
    steps = [(number, False) for number in range(len(given_gifts))]
    for number in given_back:
        earliest = steps.index((number, False)) + 1
        steps.insert(data.draw(st.integers(earliest, len(steps))), (number, True))
    end = accrue(nft_type, [(given_gifts[number], back) for number, back in steps])
    straight = accrue(nft_type, [(gift, False) for gift in kept])
    assert end.level == straight.level == max(highest(nft_type, end), min(end.grants, 1))
    assert end.grants == straight.grants
    assert {name: value for name, value in end.counters.items() if value} == straight.counters


def accrue(nft_type: NftType, steps: list[tuple[tuple[str, int] | None, bool]]) -> Progress:
    """Progress after gifts (None is a badge) and gifts taken back, one batch each."""
    standing = Standing(Progress())
    origin = Origin("connect/connect")
    for gift, back in steps:
        accrual = Accrual(
            {"explorer": nft_type}, {("ada", "explorer"): standing}, NOW, lambda: "id"
        )
        reward = Reward("ada", "explorer", *gift, "", origin) if gift else None
        effect = reward or Grant("ada", "explorer", "", origin)
        if back:
            accrual.revert(effect)
        else:
            accrual.apply(effect)
        before, standing = standing, accrual.changed["ada", "explorer"]
        instances = {**accrual.created, **accrual.moved}.values()
        moved = before.progress.level != standing.progress.level
        assert [one.level for one in instances] == [standing.progress.level] * moved
    return standing.progress
