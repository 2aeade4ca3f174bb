"""The only door to the OS clock and to random ids, so that tests can see who uses them."""

import os
import time
from datetime import UTC, datetime
from uuid import UUID


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

    Ids made in different milliseconds sort by time of creation, so B-trees grow at their right
    edge.
    """
    milliseconds = time.time_ns() // 1_000_000
    randomness = int.from_bytes(os.urandom(10))
    value = milliseconds << 80 | randomness
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return str(UUID(int=value))
