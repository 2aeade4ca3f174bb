"""Balances and statements of the past: what was once answered stays true."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from go2asia.points.v1 import points_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.clock import new_id
from mesh.db import Database
from mesh.errors import MeshError, PageTokenInvalid
from mesh.pagination import next_token
from points_svc import convert
from points_svc.booking import Booking
from points_svc.errors import PeriodReversed, TimeInFuture
from points_svc.flows import touched
from points_svc.ledger import Transaction
from points_svc.store.booking import Store
from points_svc.store.reading import Reader
from tests.rpc.points_service import Ledger, award, request_id, spend

Stub = Any  # the generated async stub is known to type checkers only


@pytest.fixture
async def database(ledger: Ledger) -> AsyncIterator[Database]:
    """The ledger's database, as another replica has it."""
    url = ledger.cluster.url(ledger.name, "points_app")
    async with Database(url, application_name="points") as database:
        yield database


async def book(store: Store, request: convert.Posted) -> Transaction:
    """Books within a transaction that is still open then."""
    asked, transaction_id = convert.instruction(request), new_id()
    locks, opens = touched(asked)
    booking = await Booking.begin(store, locks, opening=opens, needs={asked.user: asked.amount})
    outcome = booking.book.book(asked, transaction_id)
    made = booking.add(asked, outcome, transaction_id)
    await booking.finish()
    return made


def statement(user_id: str, **fields: Any) -> points_pb2.GetStatementRequest:
    return points_pb2.GetStatementRequest(user_id=user_id, unit="G2A", **fields)


@pytest.mark.parametrize("had", [0, 3], ids=["stranger", "holder"])
async def test_the_past_waits_for_what_is_being_booked(
    ops: Stub, database: Database, had: int
) -> None:
    user_id = f"uma-{had}"
    if had:
        await ops.Award(award(user_id, had))
    async with database.transaction() as connection:
        made = await book(Store(connection), award(user_id, 5))
        moment = convert.timestamp(made.booked_time)
        end = convert.timestamp(made.booked_time + convert.SMALLEST_STEP)
        asked = [
            asyncio.ensure_future(call)
            for call in (
                ops.GetBalance(
                    points_pb2.GetBalanceRequest(user_id=user_id, unit="G2A", as_of_time=moment)
                ),
                ops.GetStatement(statement(user_id, end_time=end)),
            )
        ]
        await asyncio.sleep(0.3)
        assert not [call for call in asked if call.done()]
    balance, told = await asyncio.gather(*asked)
    assert balance.balance.posted == had + 5
    assert told.closing_balance == had + 5


async def test_asking_for_the_past_of_a_stranger_opens_no_account(
    ops: Stub, ledger: Ledger
) -> None:
    assert (await ops.GetStatement(statement("nobody"))).closing_balance == 0
    with ledger.cluster.connect(ledger.name) as connection:
        found = connection.execute("SELECT 1 FROM accounts WHERE owner = 'user:nobody'").fetchall()
    assert found == []


async def test_a_balance_and_its_debt_are_of_one_moment(
    ops: Stub, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ops.Award(award("vic", 5))
    limit = points_pb2.SetOverdraftLimitRequest(
        request_id=request_id("limit"), user_id="vic", unit="G2A", limit=10
    )
    await ops.SetOverdraftLimit(limit)
    debts = Reader._accounts

    async def late(reader: Reader, keys: Any) -> Any:
        url = ledger.cluster.url(ledger.name, "points_app")
        async with (
            Database(url, application_name="points") as other,
            other.transaction() as connection,
        ):
            await book(Store(connection), spend("vic", 8))
        return await debts(reader, keys)

    request = points_pb2.GetBalanceRequest(user_id="vic", unit="G2A")
    monkeypatch.setattr(Reader, "_accounts", late)
    torn = (await ops.GetBalance(request)).balance
    monkeypatch.undo()
    assert (torn.posted, torn.owed) == (5, 0)
    after = (await ops.GetBalance(request)).balance
    assert (after.posted, after.owed, after.overdraft_limit) == (0, 3, 10)


async def test_a_balance_of_the_past_tells_no_overdraft_limit(ops: Stub) -> None:
    given = (await ops.Award(award("wes", 5))).transaction
    limit = points_pb2.SetOverdraftLimitRequest(
        request_id=request_id("limit"), user_id="wes", unit="G2A", limit=10
    )
    await ops.SetOverdraftLimit(limit)
    then = points_pb2.GetBalanceRequest(user_id="wes", unit="G2A", as_of_time=given.booked_time)
    assert (await ops.GetBalance(then)).balance.overdraft_limit == 0


async def test_a_statement_up_to_now_ends_where_its_first_page_did(ops: Stub) -> None:
    for amount in (1, 2, 4):
        await ops.Award(award("xia", amount))
    request = statement("xia", page_size=2)
    first = await ops.GetStatement(request)
    await ops.Award(award("xia", 8))
    request.page_token = first.next_page_token
    last = await ops.GetStatement(request)
    assert (first.closing_balance, last.closing_balance) == (7, 7)
    assert [line.entry.amount for line in (*first.lines, *last.lines)] == [1, 2, 4]
    assert last.next_page_token == ""


@pytest.mark.parametrize(
    ("start", "end", "error", "field"),
    [
        (2_000, 1_000, PeriodReversed, "start_time"),
        (4_000_000_000, None, TimeInFuture, "start_time"),
        (4_000_000_000, 4_000_000_001, TimeInFuture, "end_time"),
    ],
)
async def test_a_period_that_cannot_be_is_refused_for_what_is_wrong_with_it(
    ops: Stub, start: int, end: int | None, error: type[MeshError], field: str
) -> None:
    request = statement("yan", start_time=Timestamp(seconds=start))
    if end is not None:
        request.end_time.seconds = end
    with pytest.raises(error) as refused:
        await ops.GetStatement(request)
    assert refused.value.field == field


@pytest.mark.parametrize("key", [(1,), ("x", 1), (2**63, 0), (1, 2**62), (1, 10**30)])
async def test_a_statements_page_token_that_nobody_issued_is_refused(
    ops: Stub, key: tuple[str | int, ...]
) -> None:
    request = statement("zoe")
    request.page_token = next_token(request, key)
    with pytest.raises(PageTokenInvalid):
        await ops.GetStatement(request)
