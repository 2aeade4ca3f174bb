"""The ledger's arithmetic: what a posting does to balances, and what it refuses."""

import pytest

from points_svc.errors import BalanceOverflow, InsufficientFunds
from points_svc.ledger import (
    MAX_BALANCE,
    Account,
    AccountKey,
    Book,
    Entry,
    Instruction,
    Kind,
    Posting,
    issuance,
    redemption,
    to_open,
    unopened,
    user_account,
)

ANNA = user_account("anna", "G2A")
BORIS = user_account("boris", "G2A")
ISSUANCE = issuance("G2A")


def account(key: AccountKey, posted: int, **state: int) -> Account:
    return unopened(key)._replace(posted=posted, **state)


def instruction(kind: Kind) -> Instruction:
    return Instruction(kind, "r-1", "anna", "G2A", 7, "quest-completed", "", {}, None)


def test_award_moves_from_issuance_to_the_user() -> None:
    [posting] = instruction(Kind.AWARD).postings
    assert posting == (AccountKey("system:issuance", "G2A"), AccountKey("user:anna", "G2A"), 7)


def test_spend_moves_from_the_user_to_redemption() -> None:
    [posting] = instruction(Kind.SPEND).postings
    assert posting == (ANNA, AccountKey("system:redemption", "G2A"), 7)


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


def test_a_floor_below_zero_is_an_overdraft() -> None:
    book = Book([account(ANNA, 0, floor=-50)])
    book.post([Posting(ANNA, BORIS, 50)])
    with pytest.raises(InsufficientFunds) as refused:
        book.post([Posting(ANNA, BORIS, 1)])
    assert refused.value.metadata["available"] == "0"


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
    spend = Posting(ANNA, redemption("G2A"), 1)
    award = Posting(ISSUANCE, BORIS, 1)
    assert to_open([spend]) == {redemption("G2A")}
    assert to_open([award]) == {ISSUANCE, BORIS}
