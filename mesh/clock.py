"""The only door to the OS clock and to random ids, so that tests can see who uses them."""

import os
import time
from datetime import UTC, datetime

_last_step = 0


def utc_now() -> datetime:
    """Current time of this host, aware, in UTC.

    For display and logs. Leases and expiries are decided by the database's time.
    """
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that never go backwards; meaningful only as a difference within this process."""
    return time.monotonic()


def new_id() -> str:
    """A new UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then randomness.

    Ids of one process sort by creation, those of several by millisecond, so B-trees grow at their
    right edge: the 12 bits after the milliseconds hold fractions of one (RFC 9562, section 6.2,
    method 3), moved ahead by one step where the clock has not moved.
    """
    global _last_step
    _last_step = max(_last_step + 1, time.time_ns() * 4096 // 1_000_000)
    randomness = int.from_bytes(os.urandom(8))
    value = (_last_step >> 12) << 80 | (_last_step & 0xFFF) << 64 | randomness
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    text = f"{value:032x}"  # a UUID object takes as long again
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
