"""The breaker opens after failures in a row, rests, and lets one try."""

from mesh.breaker import Breaker, State


def test_opens_only_after_failures_in_a_row() -> None:
    breaker = Breaker(threshold=3, cooldown=10)
    breaker.failed(0)
    breaker.failed(0)
    breaker.succeeded()
    breaker.failed(0)
    breaker.failed(0)
    assert breaker.state(0) is State.CLOSED
    breaker.failed(0)
    assert breaker.state(0) is State.OPEN


def test_half_opens_after_the_cooldown() -> None:
    breaker = Breaker(threshold=1, cooldown=10)
    breaker.failed(100)
    assert breaker.state(109.9) is State.OPEN
    assert breaker.state(110) is State.HALF_OPEN


def test_a_failed_try_rests_again_and_a_good_one_closes() -> None:
    breaker = Breaker(threshold=2, cooldown=10)
    breaker.failed(0)
    breaker.failed(0)
    breaker.failed(12)
    assert breaker.state(13) is State.OPEN
    assert breaker.state(22) is State.HALF_OPEN
    breaker.succeeded()
    assert breaker.state(22) is State.CLOSED
