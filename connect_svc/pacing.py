"""Evaluating many events within one transaction: not for long, and with breaks.

Rules may cost a good part of a second an event. Postgres ends a session that leaves its transaction
idle for a minute, and nothing else runs in this process while an expression is evaluated.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeVar

from mesh.clock import monotonic

LONGEST_SECONDS = 2.0
_SLICE_SECONDS = 0.05

Item = TypeVar("Item")
Result = TypeVar("Result")


async def paced(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """What `work` makes of the first items, of as many as there is time for, of one at least.

    The others are for the next transaction.
    """
    results: list[Result] = []
    now = monotonic()
    end, pause = now + LONGEST_SECONDS, now + _SLICE_SECONDS
    for item in items:
        results.append(work(item))
        now = monotonic()
        if now >= end:
            break
        if now >= pause:
            await asyncio.sleep(0)
            pause = monotonic() + _SLICE_SECONDS
    return results
