"""The ledger's arithmetic: what a posting does to balances, and what it refuses."""

from datetime import UTC, datetime

import pytest

from points_svc.book import Book
from points_svc.errors import BalanceOverflow, InsufficientFunds
from points_svc.flows import touched
from points_svc.ledger import (
    MAX_BALANCE,
    Account,
    AccountKey,
    Entry,
    Instruction,
    Kind,
    Lot,
    Posting,
    debt_account,
    issuance,
    redemption,
    unopened,
    user_account,
)

ANNA = user_account("anna", "G2A")
BORIS = user_account("boris", "G2A")
ISSUANCE = issuance("G2A")


def account(key: AccountKey, posted: int, **state: int) -> Account:
    return unopened(key)._replace(posted=posted, **state)


def lot(
    key: AccountKey, amount: int, name: str = "lot", expire_time: datetime | None = None
) -> Lot:
    return Lot((name, 0), key, amount, amount, 0, expire_time)


def instruction(kind: Kind) -> Instruction:
    return Instruction(kind, "r-1", "anna", "G2A", 7, "quest-completed", "", {}, None)


def test_award_moves_from_issuance_to_the_user() -> None:
    outcome = Book([]).book(instruction(Kind.AWARD), "t-1")
    assert [(entry.account, entry.amount) for entry in outcome.entries] == [
        (AccountKey("system:issuance", "G2A"), -7),
        (AccountKey("user:anna", "G2A"), 7),
    ]


def test_spend_moves_from_the_user_to_redemption() -> None:
    book = Book([account(ANNA, 10)], [lot(ANNA, 10)])
    outcome = book.book(instruction(Kind.SPEND), "t-1")
    assert [(entry.account, entry.amount) for entry in outcome.entries] == [
        (ANNA, -7),
        (AccountKey("system:redemption", "G2A"), 7),
    ]


def test_entries_carry_balance_and_version_after_them() -> None:
    book = Book([account(ANNA, 5, version=3), account(ISSUANCE, -40, version=9)])
    assert book.post([Posting(ISSUANCE, ANNA, 10)]) == (
        Entry(ISSUANCE, -10, balance_after=-50, account_version=10),
        Entry(ANNA, 10, balance_after=15, account_version=4),
    )


def test_later_postings_see_earlier_ones() -> None:
    book = Book([])
    book.post([Posting(ISSUANCE, ANNA, 10)])
    book.post([Posting(ANNA, redemption("G2A"), 10)])
    assert book.account(ANNA).posted == 0
    assert book.account(ANNA).version == 2


def test_spending_all_is_allowed_and_one_more_is_not() -> None:
    book = Book([account(ANNA, 10)])
    with pytest.raises(InsufficientFunds) as refused:
        book.post([Posting(ANNA, BORIS, 11)])
    assert refused.value.metadata == {"available": "10", "amount": "11"}
    book.post([Posting(ANNA, BORIS, 10)])
    assert book.account(ANNA).available == 0


def test_held_points_cannot_be_spent() -> None:
    book = Book([account(ANNA, 10, held=4)])
    with pytest.raises(InsufficientFunds) as refused:
        book.post([Posting(ANNA, BORIS, 7)])
    assert refused.value.metadata["available"] == "6"


def test_an_overdraft_is_a_debt_within_its_limit() -> None:
    book = Book([account(ANNA, 4), account(debt_account(ANNA), 0, floor=-3)], [lot(ANNA, 4)])
    book.book(instruction(Kind.SPEND), "t-1")
    assert book.account(ANNA).posted == 0
    assert book.owed(ANNA) == 3
    with pytest.raises(InsufficientFunds) as refused:
        book.book(instruction(Kind.SPEND), "t-2")
    assert refused.value.metadata["available"] == "0"


def test_an_award_repays_the_debt_first() -> None:
    book = Book([account(debt_account(ANNA), -5)])
    outcome = book.book(instruction(Kind.AWARD), "t-1")
    assert (book.owed(ANNA), book.account(ANNA).posted) == (0, 2)
    assert [change.amount for change in outcome.lot_changes] == [2]


def test_spending_takes_what_expires_first_and_never_what_is_held() -> None:
    soon, late = datetime(2030, 1, 1, tzinfo=UTC), datetime(2031, 1, 1, tzinfo=UTC)
    lots = [
        lot(ANNA, 5, "c"),
        lot(ANNA, 5, "b", late),
        lot(ANNA, 5, "a", soon)._replace(held=3),
    ]
    book = Book([account(ANNA, 15, held=3)], lots)
    outcome = book.book(instruction(Kind.SPEND), "t-1")
    assert [(c.lot_id[0], c.amount) for c in outcome.lot_changes] == [("a", -2), ("b", -5)]


def test_a_transfer_keeps_the_expiry() -> None:
    soon = datetime(2030, 1, 1, tzinfo=UTC)
    book = Book([account(ANNA, 10)], [lot(ANNA, 5, "a", soon), lot(ANNA, 5, "b")])
    asked = instruction(Kind.TRANSFER)._replace(recipient="boris")
    book.book(asked, "t-1")
    assert [(one.amount, one.expire_time) for one in book.lots(BORIS)] == [(5, soon), (2, None)]


def test_rolling_back_leaves_no_trace() -> None:
    book = Book([account(ANNA, 10)], [lot(ANNA, 10)])
    mark = book.mark()
    book.book(instruction(Kind.SPEND), "t-1")
    book.book(instruction(Kind.AWARD), "t-2")
    book.roll_back(mark)
    assert (book.changed(), book.changed_lots(), book.made_lots()) == ([], [], [])
    assert [one.amount for one in book.lots(ANNA)] == [10]


@pytest.mark.parametrize(
    ("source", "destination"),
    [
        (account(ISSUANCE, 1 - MAX_BALANCE), account(ANNA, 0)),
        (account(ISSUANCE, 0), account(ANNA, MAX_BALANCE - 1)),
    ],
    ids=["source", "destination"],
)
def test_balances_stay_within_int64(source: Account, destination: Account) -> None:
    book = Book([source, destination])
    with pytest.raises(BalanceOverflow):
        book.post([Posting(source.key, destination.key, 2)])
    book.post([Posting(source.key, destination.key, 1)])


def test_a_refused_transaction_changes_nothing_though_its_first_posting_was_sound() -> None:
    book = Book([account(ANNA, 10)])
    with pytest.raises(InsufficientFunds):
        book.post([Posting(ANNA, BORIS, 10), Posting(ANNA, BORIS, 1)])
    assert book.account(ANNA) == account(ANNA, 10)
    assert book.account(BORIS) == unopened(BORIS)
    assert book.changed() == []


def test_only_accounts_that_can_change_are_opened() -> None:
    assert touched(instruction(Kind.SPEND))[1] == {redemption("G2A")}
    assert touched(instruction(Kind.AWARD))[1] == {ISSUANCE, ANNA}
    transfer = instruction(Kind.TRANSFER)._replace(recipient="boris")
    assert touched(transfer)[1] == {BORIS}
