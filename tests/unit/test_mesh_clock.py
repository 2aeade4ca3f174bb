"""Ids are UUIDv7: unique, and in order of creation across milliseconds."""

import time
from datetime import UTC
from uuid import RFC_4122, UUID

from mesh.clock import new_id, utc_now


def test_ids_are_version_7() -> None:
    made = UUID(new_id())
    assert (made.version, made.variant) == (7, RFC_4122)


def test_ids_carry_their_time_and_sort_by_it() -> None:
    before = time.time_ns() // 1_000_000
    first = new_id()
    time.sleep(0.002)
    second = new_id()
    assert first < second
    assert before <= UUID(first).int >> 80 <= time.time_ns() // 1_000_000


def test_ids_of_one_moment_differ() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000


def test_now_is_aware() -> None:
    assert utc_now().tzinfo is UTC
