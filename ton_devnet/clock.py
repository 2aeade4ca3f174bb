"""Whose time the chain follows: the wall's, or only what it is told."""

import time
from collections.abc import Callable
from typing import Protocol

from ton_devnet.store import Store

_OFFSET, _TOLD = "clock_offset", "clock_told"


class ClockError(ValueError):
    """The clock cannot be moved like that; the text says what it can do."""


class Clock(Protocol):
    def __call__(self) -> int:
        """Unix seconds."""

    def move_to(self, utime: int) -> None:
        """Say what time it is. Raises ClockError."""


class WallClock:
    """The machine's time plus an offset in seconds, which is remembered."""

    def __init__(
        self, store: Store, offset: int | None, wall: Callable[[], float] = time.time
    ) -> None:
        self._wall = wall
        if offset is not None:
            store.set(_OFFSET, offset)
        self._offset = store.setting(_OFFSET) or 0

    def __call__(self) -> int:
        return int(self._wall()) + self._offset

    def move_to(self, utime: int) -> None:
        raise ClockError(
            "this network follows the wall clock; start it with --clock manual to move time by hand"
        )


class ManualClock:
    """Stands still until it is moved, and goes on from there after a restart.

    `start` is the time of a network that has none yet. Never back: an account whose last payment
    lies ahead of the block's time could execute nothing.
    """

    def __init__(self, store: Store, start: int) -> None:
        self._store = store
        self._time = store.setting(_TOLD) or start
        store.set(_TOLD, self._time)

    def __call__(self) -> int:
        return self._time

    def move_to(self, utime: int) -> None:
        if utime < self._time:
            raise ClockError(f"chain time is {self._time} and never goes back; give a later time")
        if utime >= 2**32:
            raise ClockError(f"{utime} is too late: block times are 32-bit unix seconds")
        self._store.set(_TOLD, utime)
        self._time = utime
