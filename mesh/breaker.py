"""A circuit breaker: after several failures in a row a sick peer gets a rest, then one more chance.

Pure; the caller brings the time, in seconds of a monotonic clock. Based on M. Nygard, "Release
It!": closed (calls pass), open (calls are held back), half-open (a small call may try).
"""

from dataclasses import dataclass
from enum import Enum, auto


class State(Enum):
    """Whether calls may pass."""

    CLOSED = auto()
    OPEN = auto()
    HALF_OPEN = auto()


@dataclass
class Breaker:
    """Opens after `threshold` failures in a row, for `cooldown` seconds at a time."""

    threshold: int = 5
    cooldown: float = 10.0
    _failures: int = 0
    _retry_time: float = 0.0

    def state(self, now: float) -> State:
        """The state at `now`; half-open from the end of a cooldown until the next verdict."""
        if self._failures < self.threshold:
            return State.CLOSED
        return State.OPEN if now < self._retry_time else State.HALF_OPEN

    def succeeded(self) -> None:
        """The peer answered: close."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """The peer did not answer: count it, and open when that makes `threshold` in a row."""
        self._failures += 1
        self._retry_time = now + self.cooldown
