"""Which message or query a fault hits, and how a clock may be moved."""

from pathlib import Path

import pytest

from ton_devnet.clock import ClockError, ManualClock, WallClock
from ton_devnet.faults import Delay, Drop, Effect, Failure, FaultError, Faults, Rule, Silence
from ton_devnet.store import Store


def rule(effect: Effect, *queries: str, share: float = 1.0, left: int | None = None) -> Rule:
    return Rule(effect, frozenset(queries), share, left)


def test_a_fault_hits_so_many_and_no_more() -> None:
    faults = Faults()
    faults.add(rule(Drop(), left=2))
    faults.add(rule(Delay(1.5), left=1))
    assert [faults.on_external() for _ in range(4)] == [Drop(), Drop(), Delay(1.5), None]
    assert [spent.hits for spent in faults.rules] == [2, 1]


def test_a_share_hits_about_that_many_and_always_the_same() -> None:
    hits = []
    for _ in range(2):
        faults = Faults()
        faults.add(rule(Drop(), share=0.3))
        hits.append([faults.on_external() is not None for _ in range(1000)])
    assert hits[0] == hits[1]
    assert 250 < sum(hits[0]) < 350


def test_a_query_fault_hits_the_queries_it_names() -> None:
    faults = Faults()
    faults.add(rule(Failure(652, "timeout"), "getTime"))
    assert faults.on_query("getVersion") is None
    assert faults.on_external() is None
    faults.add(rule(Silence()))
    assert faults.on_query("getVersion") == Silence()
    assert faults.on_query("getTime") == Failure(652, "timeout")
    faults.clear()
    assert faults.on_query("getTime") is None


@pytest.mark.parametrize(
    ("effect", "share", "left", "field"),
    [(Drop(), 0.0, None, "share"), (Drop(), 1.5, None, "share"), (Drop(), 1.0, 0, "next"),
     (Delay(0), 1.0, None, "seconds")],
)  # fmt: skip
def test_an_impossible_fault_is_refused(
    effect: Effect, share: float, left: int | None, field: str
) -> None:
    with pytest.raises(FaultError, match=f"{field} is"):
        rule(effect, share=share, left=left)


def test_a_manual_clock_stands_still_goes_forward_and_is_remembered(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    clock = ManualClock(store, 1_000)
    clock.move_to(2_000)
    assert clock() == 2_000
    with pytest.raises(ClockError, match="never goes back"):
        clock.move_to(1_999)
    with pytest.raises(ClockError, match="32-bit"):
        clock.move_to(2**32)
    assert ManualClock(store, 1_000)() == 2_000


def test_a_wall_clock_remembers_its_offset_and_is_moved_by_nobody(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")
    assert WallClock(store, 60, lambda: 1000.9)() == 1060
    clock = WallClock(store, None, lambda: 1000.9)
    assert clock() == 1060
    with pytest.raises(ClockError, match="--clock manual"):
        clock.move_to(5000)
