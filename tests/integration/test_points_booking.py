"""Booking on a real Postgres: concurrency, replicas, idempotency, refusals."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta

import pytest

from devstack.postgres import Cluster
from mesh.errors import RequestIdReused
from points_svc.errors import (
    BalanceOverflow,
    BatchRefused,
    EffectiveTimeInFuture,
    InsufficientFunds,
    UnknownUnit,
)
from points_svc.ledger import MAX_BALANCE, Transaction
from points_svc.posting import Desk
from tests.integration.points_desk import (
    LedgerDatabase,
    audit,
    award,
    balance,
    migrated,
    replica,
    spend,
)


@pytest.fixture(scope="module")
def ledger(postgres: Cluster, make_database: Callable[[], str]) -> LedgerDatabase:
    return migrated(postgres, make_database)


@pytest.fixture
async def desks(ledger: LedgerDatabase) -> AsyncIterator[tuple[Desk, Desk]]:
    """Two replicas of the service."""
    async with replica(ledger) as one, replica(ledger) as other:
        yield one, other


@pytest.fixture
def desk(desks: tuple[Desk, Desk]) -> Desk:
    return desks[0]


async def test_fifty_spenders_of_ten_points_have_ten_winners(
    ledger: LedgerDatabase, desks: tuple[Desk, Desk]
) -> None:
    await desks[0].book(award("crowd", 10))
    outcomes = await asyncio.gather(
        *(desks[number % 2].book(spend("crowd", 1)) for number in range(50)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, Transaction) for outcome in outcomes) == 10
    assert sum(isinstance(outcome, InsufficientFunds) for outcome in outcomes) == 40
    assert (await balance(ledger, "crowd")).posted == 0


async def test_fifty_identical_requests_book_once(
    ledger: LedgerDatabase, desks: tuple[Desk, Desk]
) -> None:
    order = award("eager", 7)
    booked = await asyncio.gather(*(desks[number % 2].book(order) for number in range(50)))
    assert len({transaction.transaction_id for transaction in booked}) == 1
    assert (await balance(ledger, "eager")).version == 1


async def test_a_duplicate_on_another_replica_is_not_told_that_funds_ran_out(
    desks: tuple[Desk, Desk],
) -> None:
    for _ in range(20):
        await desks[0].book(award("hasty", 5))
        order = spend("hasty", 5)
        first, second = await asyncio.gather(*(desk.book(order) for desk in desks))
        assert first.transaction_id == second.transaction_id


async def test_a_replay_answers_with_the_transaction_as_it_was_booked(desk: Desk) -> None:
    order = award("replay", 3, effective_time=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC))
    first = await desk.book(order)
    await desk.book(award("replay", 4))
    assert await desk.book(order) == first


async def test_a_request_id_with_another_input_is_refused(
    ledger: LedgerDatabase, desk: Desk
) -> None:
    await desk.book(award("reuser", 3, request_id="reused"))
    with pytest.raises(RequestIdReused) as refused:
        await desk.book(award("reuser", 4, request_id="reused"))
    assert refused.value.metadata == {"request_id": "reused"}
    assert (await balance(ledger, "reuser")).posted == 3


async def test_repetitions_within_one_batch_collapse(desk: Desk) -> None:
    order = award("echo", 3, request_id="echo")
    first, repeated, other, spent = await desk.book_many(
        [order, order, award("echo", 4, request_id="echo"), spend("echo", 3, request_id="echo")]
    )
    assert isinstance(first, Transaction)
    assert repeated == first
    assert isinstance(other, RequestIdReused)
    assert isinstance(spent, Transaction), "another operation has request ids of its own"


async def test_a_refused_group_leaves_what_others_booked_beside_it(desk: Desk) -> None:
    order = award("twin", 3)
    booked, together = await asyncio.gather(
        desk.book(order), desk.book_together([order, award("twin", 4), spend("twin", 100)])
    )
    kept, unbooked, refused = together
    assert kept == booked
    assert isinstance(unbooked, BatchRefused)
    assert isinstance(refused, InsufficientFunds)


async def test_a_refusal_is_evaluated_anew(desk: Desk) -> None:
    order = spend("patient", 5)
    with pytest.raises(InsufficientFunds):
        await desk.book(order)
    await desk.book(award("patient", 5))
    assert (await desk.book(order)).instruction.amount == 5


async def test_poison_that_breaks_the_statement_fails_alone(desk: Desk) -> None:
    orders = [award(f"neighbour-{number}", 1) for number in range(256)]
    orders[100] = award("poison", 1, reason="a NUL \0 that Postgres cannot store")
    outcomes = await desk.book_many(orders)
    failed = [
        number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Transaction)
    ]
    assert failed == [100]


async def test_an_unknown_unit_is_refused_and_opens_no_account(
    ledger: LedgerDatabase, desk: Desk
) -> None:
    with pytest.raises(UnknownUnit) as refused:
        await desk.book(award("anna", 1, unit="DOGE"))
    assert refused.value.metadata == {"unit": "DOGE"}
    assert ledger.query("SELECT 1 FROM accounts WHERE unit = 'DOGE'") == []
    with pytest.raises(UnknownUnit):
        await balance(ledger, "anna", "DOGE")


async def test_a_refused_stranger_leaves_no_trace(ledger: LedgerDatabase, desk: Desk) -> None:
    with pytest.raises(InsufficientFunds):
        await desk.book(spend("stranger", 1, request_id="strange"))
    assert ledger.query("SELECT 1 FROM accounts WHERE owner = 'user:stranger'") == []
    assert ledger.query("SELECT 1 FROM idempotency_keys WHERE request_id = 'strange'") == []
    assert (await balance(ledger, "stranger")).posted == 0


async def test_a_balance_that_would_leave_int64_is_refused(
    ledger: LedgerDatabase, desk: Desk
) -> None:
    await desk.book(award("rich", 1, unit="XP"))
    ledger.query(
        "UPDATE accounts SET posted = %s WHERE owner = 'user:rich' RETURNING 1", MAX_BALANCE
    )
    with pytest.raises(BalanceOverflow) as refused:
        await desk.book(award("rich", 1, unit="XP"))
    assert refused.value.metadata == {"account": "user:rich"}
    ledger.query("UPDATE accounts SET posted = 1 WHERE owner = 'user:rich' RETURNING 1")


async def test_times_in_the_future_are_refused_beyond_what_clocks_differ(desk: Desk) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=3)
    booked = await desk.book(award("timely", 1, effective_time=soon))
    assert booked.effective_time == booked.booked_time
    with pytest.raises(EffectiveTimeInFuture):
        await desk.book(award("timely", 1, effective_time=soon + timedelta(hours=1)))


async def test_replicas_that_cross_each_other_leave_a_sound_ledger(
    ledger: LedgerDatabase, desks: tuple[Desk, Desk]
) -> None:
    dice = random.Random(11)
    orders = [
        dice.choice((award, award, spend))(
            f"crossing-{dice.randrange(30)}", dice.randint(1, 50), unit=dice.choice(("G2A", "XP"))
        )
        for _ in range(600)
    ]
    answers = [
        asyncio.create_task(desks[number % 2].book(order))
        for number, order in enumerate([*orders, *orders])
    ]
    outcomes = await asyncio.gather(*answers, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} <= {Transaction, InsufficientFunds}
    assert (await audit(ledger)).findings == []
