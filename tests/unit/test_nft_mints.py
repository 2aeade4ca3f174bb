"""The mint state machine, one rule at a time."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from nft_svc.metadata import ItemContent
from nft_svc.mints import Location, Mint, MintState, Report, Verdict, follow, judge, refuse

T0 = datetime(2026, 1, 1, tzinfo=UTC)
T1 = datetime(2026, 1, 2, tzinfo=UTC)
PLACE = Location("0:aa", 7, "0:bb", "0:cc")
MINT = Mint("m", "n", "ada", "explorer", ItemContent("E", "", "", ()), T0, T0)


def report(
    state: MintState, version: int, operation: str = "op", location: Location | None = None
) -> Report:
    return Report("m", operation, version, state, location)


def at(state: MintState, version: int = 5) -> Mint:
    return replace(MINT, state=state, operation_id="op", operation_version=version, location=PLACE)


def test_news_moves_the_mint_and_counts_the_change() -> None:
    change = follow(MINT, report(MintState.SUBMITTED, 3, location=PLACE), T1)
    assert change.mint.state is MintState.SUBMITTED
    assert (change.mint.version, change.mint.operation_version) == (2, 3)
    assert (change.mint.location, change.mint.update_time) == (PLACE, T1)
    assert (change.previous, change.rollback) == (MintState.QUEUED, False)


def test_steps_may_be_missing() -> None:
    assert judge(MINT, report(MintState.FINALIZED, 9)) is Verdict.NEWS


@pytest.mark.parametrize("version", [4, 5])
def test_late_and_repeated_reports_are_stale(version: int) -> None:
    assert judge(at(MintState.MINTED), report(MintState.SUBMITTED, version)) is Verdict.STALE


@pytest.mark.parametrize("end", [MintState.FINALIZED, MintState.FAILED, MintState.CANCELLED])
@pytest.mark.parametrize("state", list(MintState))
def test_an_end_is_an_end(end: MintState, state: MintState) -> None:
    assert judge(at(end), report(state, 99)) is Verdict.FORBIDDEN


@pytest.mark.parametrize("state", [MintState.QUEUED, MintState.AWAITING_WALLET])
def test_what_was_sent_cannot_become_unsent(state: MintState) -> None:
    assert judge(at(MintState.SUBMITTED), report(state, 6)) is Verdict.FORBIDDEN


def test_another_operation_cannot_speak_for_the_mint() -> None:
    other = report(MintState.MINTED, 6, operation="other")
    assert judge(at(MintState.SUBMITTED), other) is Verdict.FORBIDDEN


@pytest.mark.parametrize(
    ("before", "after", "rollback"),
    [
        (MintState.MINTED, MintState.SUBMITTED, True),
        (MintState.MINTED, MintState.ACCEPTED, True),
        (MintState.ACCEPTED, MintState.SUBMITTED, True),
        (MintState.MINTED, MintState.FAILED, True),
        (MintState.ACCEPTED, MintState.FAILED, False),
        (MintState.AWAITING_WALLET, MintState.QUEUED, False),
        (MintState.SUBMITTED, MintState.FINALIZED, False),
    ],
)
def test_a_step_back_of_the_chain_is_flagged(
    before: MintState, after: MintState, rollback: bool
) -> None:
    news = report(after, 6)
    assert judge(at(before), news) is Verdict.NEWS
    assert follow(at(before), news, T1).rollback is rollback


def test_a_refusal_ends_a_mint_that_nobody_took() -> None:
    change = refuse(MINT, "INVALID_ARGUMENT", T1)
    assert change is not None
    assert (change.mint.state, change.mint.failure_reason) == (MintState.FAILED, "INVALID_ARGUMENT")
    assert refuse(at(MintState.QUEUED), "INVALID_ARGUMENT", T1) is None
