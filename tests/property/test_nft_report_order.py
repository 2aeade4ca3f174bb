"""Whatever order reports come in, a mint and its watchers end where the Gateway's operation did."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from nft_svc.metadata import ItemContent
from nft_svc.mints import STEPS, Change, Mint, MintState, Report, Verdict, follow, judge

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MINT = Mint("m", "n", "ada", "explorer", ItemContent("E", "", "", ()), NOW, NOW)


@st.composite
def histories(draw: st.DrawFn) -> list[Report]:
    """A walk of the Gateway through the machine, each step under the next version."""
    state, history = MintState.QUEUED, [Report("m", "op", 1, MintState.QUEUED)]
    for version in range(2, draw(st.integers(2, 12))):
        steps = sorted(STEPS[state])
        if not steps:
            break
        state = draw(st.sampled_from(steps))
        history.append(Report("m", "op", version, state))
    return history


def fold(reports: list[Report]) -> tuple[Mint, list[Change]]:
    mint, changes = MINT, []
    for report in reports:
        if judge(mint, report) is Verdict.NEWS:
            changes.append(follow(mint, report, NOW))
            mint = changes[-1].mint
    return mint, changes


@given(histories(), st.randoms(), st.data())
def test_any_order_with_losses_and_repetitions_ends_at_the_highest_version(
    history: list[Report], random: Any, data: st.DataObject
) -> None:
    last = history[-1]
    heard = [*data.draw(st.lists(st.sampled_from(history), max_size=20)), last]
    random.shuffle(heard)
    mint, _ = fold(heard)
    assert (mint.state, mint.operation_version) == (last.state, last.version)


@given(histories(), st.randoms())
def test_no_report_of_a_true_history_is_forbidden(history: list[Report], random: Any) -> None:
    mint = MINT
    for report in random.sample(history, len(history)):
        assert judge(mint, report) is not Verdict.FORBIDDEN or report.version < history[-1].version
        if judge(mint, report) is Verdict.NEWS:
            mint = follow(mint, report, NOW).mint


@given(histories(), st.randoms())
def test_a_watchers_fold_equals_the_final_state(history: list[Report], random: Any) -> None:
    final, changes = fold(random.sample(history, len(history)))
    seen = MINT
    for change in random.sample(changes * 2, len(changes) * 2):
        if change.mint.version > seen.version:
            seen = change.mint
    assert seen == final
    assert [change.mint.version for change in changes] == list(range(2, len(changes) + 2))


@given(histories(), st.sampled_from(sorted(MintState)), st.integers(1, 99))
def test_finalized_never_moves(history: list[Report], state: MintState, more: int) -> None:
    mint = replace(MINT, state=MintState.FINALIZED, operation_id="op", operation_version=5)
    assert judge(mint, Report("m", "op", 5 + more, state)) is Verdict.FORBIDDEN
