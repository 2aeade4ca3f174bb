"""What to do with a wallet message, given what the chain says about it. Pure.

`final` is the time of the wallet's shard as of the last final block. A shard's block may be older
than the masterchain block that commits to it, and only by its own time does the wallet refuse.

| phase     | query in the wallet | chain time                      | verdict   |
|-----------|---------------------|---------------------------------|-----------|
| PENDING   | yes                 |                                 | PROCESSED |
| PENDING   | no                  | head before expiry              | SEND      |
| PENDING   | no                  | head at expiry, final before it | WAIT      |
| PENDING   | no                  | final at or after expiry        | SETTLE    |
| PROCESSED | no                  | the wallet cannot have forgotten| REVERTED  |
| PROCESSED |                     | final before the end of grace   | WAIT      |
| PROCESSED |                     | final after the end of grace    | SETTLE    |

"Processed" proves no mint: the wallet stores a query id even if it could send nothing. So a message
is settled by looking at its items; those that are missing go into a new message, which is safe
because deploying on to an initialised item changes nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto


class Phase(Enum):
    """How far a message is known to have come; a closed one is no longer looked at."""

    PENDING = 1
    PROCESSED = 2
    CLOSED = 3


class Verdict(Enum):
    """What to do next."""

    WAIT = auto()
    SEND = auto()
    PROCESSED = auto()
    REVERTED = auto()
    SETTLE = auto()


@dataclass(frozen=True, slots=True)
class Message:
    """A persisted wallet message; times are chain time in seconds, `value` is in nanoton.

    `processed_at` is the time of the block at which the wallet was first seen to have run it.
    """

    message_id: int
    query_id: int
    created_at: int
    phase: Phase
    processed_at: int | None
    value: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What the chain says: its time at the head, that of the wallet's shard as of the last final
    block, and the wallet's word.

    `final_time` is None until a final block was followed.
    """

    head_time: int
    final_time: int | None
    processed: bool


@dataclass(frozen=True, slots=True)
class Timing:
    """The wallet's time-out, and how long after a processed message its items are awaited."""

    timeout: int
    grace: int


# The wallet pays in the block after the one in which it runs a message, or a little later.
_PAYS_WITHIN = 15


def promised(messages: Iterable[Message], head_time: int) -> int:
    """What these messages will still take from the balance that the wallet has at the head."""
    return sum(
        message.value
        for message in messages
        if message.processed_at is None or message.processed_at + _PAYS_WITHIN > head_time
    )


def judge(message: Message, facts: Facts, timing: Timing) -> Verdict:
    """The verdict by the table above."""
    if message.phase is Phase.PROCESSED:
        return _judge_processed(message, facts, timing)
    if facts.processed:
        return Verdict.PROCESSED
    # The wallet runs a message only while created_at > now - timeout.
    expiry = message.created_at + timing.timeout
    if facts.head_time < expiry:
        return Verdict.SEND
    if facts.final_time is None or facts.final_time < expiry:
        return Verdict.WAIT
    return Verdict.SETTLE


def _judge_processed(message: Message, facts: Facts, timing: Timing) -> Verdict:
    processed_at = message.processed_at or message.created_at
    if not facts.processed and facts.head_time < processed_at + timing.timeout:
        return Verdict.REVERTED
    if facts.final_time is not None and facts.final_time >= processed_at + timing.grace:
        return Verdict.SETTLE
    return Verdict.WAIT
