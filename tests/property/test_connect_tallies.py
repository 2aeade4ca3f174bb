"""A tally survives being stored, and adds up whatever was counted."""

import json

from hypothesis import given
from hypothesis import strategies as st

from connect_svc.rules import Action, Decision, Outcome, Result
from connect_svc.tallies import Tally

COMMANDS = st.sampled_from(
    [
        ("credit_points", {"unit": "G2A", "amount": 7}),
        ("debit_points", {"unit": "G2A", "amount": 2}),
        ("grant_nft", {"nft_type": "explorer"}),
        ("send_ton", {"amount": 5, "comment": ""}),
    ]
)
STOPPED = st.sampled_from([Result.CAP_REACHED, Result.BUDGET_SPENT, Result.ERROR])


@st.composite
def decisions(draw: st.DrawFn) -> Decision:
    result = draw(st.one_of(st.just(Result.MATCHED), st.none(), STOPPED))
    if result is not Result.MATCHED:
        outcomes = () if result is None else (Outcome("rule", 1, result, "why"),)
        return Decision(1, outcomes, ())
    actions = tuple(
        Action(f"{n}", "event", "rule", 1, f"key-{n}", "ada", kind, command)
        for n, (kind, command) in enumerate(draw(st.lists(COMMANDS, max_size=4)))
    )
    return Decision(1, (Outcome("rule", 1, Result.MATCHED, "why"),), actions)


@given(st.lists(decisions(), max_size=30), st.integers(0, 30))
def test_a_tally_goes_on_where_it_was(decided: list[Decision], stop: int) -> None:
    whole, parts = Tally(), Tally()
    for number, decision in enumerate(decided):
        whole.count(decision)
        parts.count(decision)
        if number == stop:
            parts = Tally.of(json.loads(json.dumps(parts.plain())))
    assert whole == parts == Tally.of(json.loads(json.dumps(whole.plain())))
    assert whole.events == sum(bool(decision.actions) for decision in decided)
    actions = [action for decision in decided for action in decision.actions]
    assert sum(total.actions for total in whole.totals.values()) == len(actions)
    assert sum(total.amount for total in whole.totals.values()) == sum(
        int(action.command.get("amount", 0)) for action in actions
    )
    results = [outcome.result for decision in decided for outcome in decision.outcomes]
    assert sum(whole.stopped.values()) == sum(each is not Result.MATCHED for each in results)
