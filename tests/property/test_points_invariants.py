"""What holds for the ledger whatever is posted, in whatever order."""

from collections import Counter
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from points_svc.book import Book
from points_svc.errors import BalanceOverflow, InsufficientFunds
from points_svc.ledger import (
    MAX_BALANCE,
    AccountKey,
    Entry,
    Posting,
    issuance,
    redemption,
    user_account,
)

UNITS = ("G2A", "XP")
USERS = ("anna", "boris", "chai")


@st.composite
def postings(draw: st.DrawFn) -> Posting:
    unit = draw(st.sampled_from(UNITS))
    accounts = [user_account(user, unit) for user in USERS] + [issuance(unit), redemption(unit)]
    source = draw(st.sampled_from(accounts))
    destination = draw(st.sampled_from([key for key in accounts if key != source]))
    amounts = st.integers(1, 100) | st.integers(MAX_BALANCE // 2, MAX_BALANCE)
    return Posting(source, destination, draw(amounts))


transactions = st.lists(st.lists(postings(), min_size=1, max_size=3), max_size=40)


def post_all(book: Book, wanted: list[list[Posting]]) -> list[tuple[Entry, ...]]:
    booked = []
    for one in wanted:
        try:
            booked.append(book.post(one))
        except (InsufficientFunds, BalanceOverflow):
            continue
    return booked


@given(transactions)
def test_every_transaction_sums_to_zero_per_unit(wanted: list[list[Posting]]) -> None:
    for entries in post_all(Book([]), wanted):
        sums: Counter[str] = Counter()
        for entry in entries:
            sums[entry.account.unit] += entry.amount
        assert set(sums.values()) == {0}


@given(transactions)
def test_no_user_is_ever_below_the_floor_nor_anybody_outside_int64(
    wanted: list[list[Posting]],
) -> None:
    for entries in post_all(Book([]), wanted):
        for entry in entries:
            assert abs(entry.balance_after) <= MAX_BALANCE
            assert entry.balance_after >= 0 or not entry.account.owner.startswith("user:")


@given(transactions)
def test_each_accounts_entries_form_one_chain_that_ends_in_its_balance(
    wanted: list[list[Posting]],
) -> None:
    book = Book([])
    last: dict[AccountKey, Entry] = {}
    for entries in post_all(book, wanted):
        for entry in entries:
            before = last.get(entry.account)
            assert entry.account_version == (before.account_version if before else 0) + 1
            assert entry.balance_after == (before.balance_after if before else 0) + entry.amount
            last[entry.account] = entry
    assert {account.key: account.posted for account in book.changed()} == {
        key: entry.balance_after for key, entry in last.items()
    }


@given(transactions, st.randoms())
def test_transactions_without_a_common_account_may_come_in_any_order(
    wanted: list[list[Posting]], random: Random
) -> None:
    """Each unit is a world of its own, so interleaving two units differently changes nothing."""
    single_unit = [one for one in wanted if len({p.source.unit for p in one}) == 1]
    queues = {u: [one for one in single_unit if one[0].source.unit == u] for u in UNITS}
    shuffled = []
    while any(queues.values()):
        shuffled.append(queues[random.choice([u for u in UNITS if queues[u]])].pop(0))
    here, there = Book([]), Book([])
    assert sorted(post_all(here, single_unit)) == sorted(post_all(there, shuffled))
    assert sorted(here.changed()) == sorted(there.changed())
