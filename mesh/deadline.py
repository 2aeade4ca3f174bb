"""The time budget of the work at hand, handed down from hop to hop.

A server call binds its deadline here; client calls made meanwhile take what is left, less a margin
in which the caller can still answer. All numbers are seconds.
"""

from contextvars import ContextVar

from mesh.clock import monotonic
from mesh.errors import DeadlineExceeded

# Below this a call cannot do anything useful any more: refuse it instead of starting it.
USEFUL_SECONDS = 0.005
# What a hop keeps for itself to turn the callee's answer, or its silence, into its own answer.
HOP_MARGIN_SECONDS = 0.010

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def bind(seconds: float | None) -> None:
    """Sets the budget of the current context; None takes the limit away."""
    _deadline.set(None if seconds is None else monotonic() + seconds)


def remaining() -> float | None:
    """What is left of the current budget, possibly negative; None if there is no limit."""
    deadline = _deadline.get()
    return None if deadline is None else deadline - monotonic()


def accepted(offered: float | None, largest: float | None) -> float | None:
    """How long a server works on a call: what the client offered, capped by the method's largest.

    Raises `DeadlineExceeded` when too little is left to be worth a start.
    """
    budget = min((limit for limit in (offered, largest) if limit is not None), default=None)
    return _worthwhile(budget)


def outgoing(wanted: float | None) -> float | None:
    """How long a client call may take: what it wants, within the current budget less the margin.

    Raises `DeadlineExceeded` when too little is left for the callee.
    """
    left = remaining()
    if left is None:
        return wanted
    left -= HOP_MARGIN_SECONDS
    return _worthwhile(left if wanted is None else min(wanted, left))


def _worthwhile(budget: float | None) -> float | None:
    if budget is not None and budget < USEFUL_SECONDS:
        raise DeadlineExceeded(
            f"Only {max(budget, 0) * 1000:.0f} ms are left for this call; allow it more time."
        )
    return budget
