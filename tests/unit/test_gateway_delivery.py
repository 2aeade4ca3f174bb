"""The table of what to do with a wallet message, row by row."""

import pytest

from chain_gateway.delivery import Facts, Message, Phase, Timing, Verdict, judge, promised

TIMING = Timing(timeout=600, grace=120)
CREATED, RAN = 1_000, 1_010


def verdict(
    phase: Phase, *, processed: bool, head: int, final: int | None, processed_at: int | None = None
) -> Verdict:
    message = Message(1, 7, CREATED, phase, processed_at, 0)
    return judge(message, Facts(head, final, processed), TIMING)


@pytest.mark.parametrize(
    ("processed", "head", "final", "expected"),
    [
        (False, CREATED, None, Verdict.SEND),
        (False, CREATED + 599, CREATED + 598, Verdict.SEND),
        (True, CREATED + 1, None, Verdict.PROCESSED),
        (True, CREATED + 700, CREATED + 699, Verdict.PROCESSED),
        (False, CREATED + 600, CREATED + 599, Verdict.WAIT),
        (False, CREATED + 605, None, Verdict.WAIT),
        (False, CREATED + 605, CREATED + 600, Verdict.SETTLE),
    ],
)
def test_a_pending_message(
    processed: bool, head: int, final: int | None, expected: Verdict
) -> None:
    assert verdict(Phase.PENDING, processed=processed, head=head, final=final) is expected


@pytest.mark.parametrize(
    ("processed", "head", "final", "expected"),
    [
        (True, RAN, None, Verdict.WAIT),
        (True, RAN + 119, RAN + 119, Verdict.WAIT),
        (True, RAN + 130, RAN + 120, Verdict.SETTLE),
        (False, RAN + 1, RAN - 1, Verdict.REVERTED),
        (False, RAN + 599, RAN + 500, Verdict.REVERTED),
        # Long after, the wallet may have forgotten: no rollback, but time to look at the items.
        (False, RAN + 600, RAN + 599, Verdict.SETTLE),
    ],
)
def test_a_processed_message(
    processed: bool, head: int, final: int | None, expected: Verdict
) -> None:
    got = verdict(Phase.PROCESSED, processed=processed, head=head, final=final, processed_at=RAN)
    assert got is expected


def test_nothing_is_settled_before_its_time_is_final() -> None:
    """Settling is what makes a second message: not while the first could still run."""
    for head in range(CREATED, CREATED + 2_000, 7):
        for lag in (1, 5, 50):
            got = verdict(Phase.PENDING, processed=False, head=head, final=head - lag)
            assert (got is Verdict.SETTLE) == (head - lag >= CREATED + TIMING.timeout)


def test_what_is_promised_is_what_the_wallet_has_not_paid_yet() -> None:
    waiting = Message(1, 7, CREATED, Phase.PENDING, None, 5)
    just_ran = Message(2, 8, CREATED, Phase.PROCESSED, RAN, 7)
    assert promised([waiting, just_ran], RAN) == 12
    assert promised([waiting, just_ran], RAN + 60) == 5
