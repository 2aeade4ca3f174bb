"""No message is given up that a block may still run, whenever its shard's blocks get committed to.

A masterchain block may be far younger than the newest block of the shard that it commits to.
"""

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from chain_gateway.delivery import Facts, Message, Phase, Timing, Verdict, judge

TIMING = Timing(timeout=30, grace=10)
CREATED = 1_000
EXPIRY = CREATED + TIMING.timeout

steps = st.lists(st.integers(1, 9), min_size=1, max_size=20)


@given(
    shard=steps,
    lags=st.lists(st.integers(0, 60), min_size=20, max_size=20),
    run=st.integers(0, 19),
    finality=st.integers(0, 4),
)
def test_what_is_given_up_never_runs(
    shard: list[int], lags: list[int], run: int, finality: int
) -> None:
    """One masterchain block for each of the shard's, `lags` seconds younger than that at least."""
    times = list(accumulate(shard, initial=CREATED))
    heads = list(accumulate((t + lag for t, lag in zip(times, lags, strict=False)), max))
    runs = run if run < len(times) and times[run] < EXPIRY else None
    message = Message(1, 7, CREATED, Phase.PENDING, None, 0)
    given_up = None
    for number, head_time in enumerate(heads):
        final = number - finality
        ran = runs is not None and number >= runs
        facts = Facts(head_time, times[final] if final >= 0 else None, ran)
        if judge(message, facts, TIMING) is Verdict.SETTLE:
            given_up = number
            break
    assert given_up is None or runs is None
    last = len(heads) - 1 - finality
    if runs is None and last >= 0 and times[last] >= EXPIRY:
        assert given_up is not None, "and what never runs is given up"
