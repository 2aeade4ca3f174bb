"""Backoff doubles up to its cap, and jitter spreads it over the whole range."""

from datetime import timedelta

import pytest

from mesh.outbox import Backoff

BACKOFF = Backoff(first=timedelta(seconds=2), cap=timedelta(minutes=1))


@pytest.mark.parametrize(
    ("attempts", "seconds"), [(1, 2), (2, 4), (3, 8), (5, 32), (6, 60), (7, 60), (100_000, 60)]
)
def test_the_longest_pause_doubles_up_to_the_cap(attempts: int, seconds: int) -> None:
    assert BACKOFF.delay(attempts, 1.0) == timedelta(seconds=seconds)


def test_jitter_is_full() -> None:
    assert BACKOFF.delay(3, 0.0) == timedelta(0)
    assert BACKOFF.delay(3, 0.25) == timedelta(seconds=2)
