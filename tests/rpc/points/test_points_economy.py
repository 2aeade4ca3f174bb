"""Transfers, holds, lots, reversals, statements and seals over RPC: races, edges, bad input."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from go2asia.points.v1 import points_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import InvalidArgument, MeshError
from points_svc.errors import (
    ExpireTimePassed,
    FilterRequired,
    HoldClosed,
    HoldExceeded,
    HoldNotFound,
    HoldOfAnotherAccount,
    InsufficientFunds,
    NotReversible,
    OriginalNotFound,
    ReversalExceeds,
    SameAccount,
    TimeInFuture,
    UnknownUnit,
)
from tests.rpc.points_service import (
    Ledger,
    award,
    batch,
    capture,
    hold,
    release,
    request_id,
    reverse,
    spend,
    transfer,
)

Stub = Any  # the generated async stub is known to type checkers only
UNKNOWN = "01939d5e-0000-7000-8000-000000000000"


async def balance(stub: Stub, user_id: str, as_of: Timestamp | None = None) -> points_pb2.Balance:
    request = points_pb2.GetBalanceRequest(user_id=user_id, unit="G2A", as_of_time=as_of)
    return (await stub.GetBalance(request)).balance


async def lots(stub: Stub, user_id: str) -> list[points_pb2.Lot]:
    request = points_pb2.ListLotsRequest(user_id=user_id, unit="G2A", include_empty=True)
    return list((await stub.ListLots(request)).lots)


def seconds_from_now(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromDatetime(datetime.now(UTC) + timedelta(seconds=seconds))
    return moment


async def test_an_atomic_batch_books_all_or_nothing(ops: Stub) -> None:
    items = [award("abe", 5), spend("abe", 3), spend("abe", 3)]
    results = (await ops.BatchPost(batch(*items, atomic=True))).results
    assert [r.error.reason for r in results] == [
        "BATCH_REFUSED",
        "BATCH_REFUSED",
        "INSUFFICIENT_FUNDS",
    ]
    assert (await balance(ops, "abe")).version == 0
    results = (await ops.BatchPost(batch(*items[:2], atomic=True))).results
    assert all(result.HasField("transaction") for result in results)
    again = (await ops.BatchPost(batch(*items[:2], atomic=True))).results
    assert list(again) == list(results)
    assert (await balance(ops, "abe")).posted == 2


async def test_a_malformed_item_refuses_its_atomic_batch(ops: Stub) -> None:
    results = (await ops.BatchPost(batch(award("bab", 5), award("bab", -1), atomic=True))).results
    assert [result.error.reason for result in results] == ["BATCH_REFUSED", "INVALID_ARGUMENT"]
    assert results[0].error.metadata["item"] == "1"


async def test_fifty_reversals_at_once_never_exceed(ops: Stub) -> None:
    booked = (await ops.Award(award("cal", 10))).transaction
    outcomes = await asyncio.gather(
        *(ops.ReverseTransaction(reverse(booked, 3)) for _ in range(50)), return_exceptions=True
    )
    assert sum(isinstance(outcome, ReversalExceeds) for outcome in outcomes) == 47
    assert (await balance(ops, "cal")).posted == 1


async def test_fifty_captures_at_once_spend_once(ops: Stub) -> None:
    await ops.Award(award("dee", 10))
    placed = (await ops.PlaceHold(hold("dee", 10))).hold
    outcomes = await asyncio.gather(
        *(ops.CaptureHold(capture(placed, 4)) for _ in range(25)),
        *(ops.ReleaseHold(release(placed)) for _ in range(25)),
        return_exceptions=True,
    )
    assert sum(isinstance(outcome, HoldClosed) for outcome in outcomes) == 49
    found = await balance(ops, "dee")
    assert (found.posted, found.held) in ((6, 0), (10, 0))


async def test_transfers_that_cross_deadlock_nobody(ops: Stub) -> None:
    await ops.BatchPost(batch(award("eli", 100), award("flo", 100)))
    pairs = [("eli", "flo"), ("flo", "eli")] * 25
    await asyncio.gather(*(ops.Transfer(transfer(a, b, 1)) for a, b in pairs))
    assert (await balance(ops, "eli")).posted == (await balance(ops, "flo")).posted == 100


async def test_what_expired_cannot_be_spent_before_that_is_booked(
    ops: Stub, ledger: Ledger
) -> None:
    await ops.Award(award("gil", 5, expire_time=seconds_from_now(0.3)))
    assert (await balance(ops, "gil")).expiring_next.amount == 5
    await asyncio.sleep(0.4)
    found = await balance(ops, "gil")
    assert (found.posted, found.expired, found.available) == (5, 5, 0)
    with pytest.raises(InsufficientFunds):
        await ops.Spend(spend("gil", 1))
    ledger.book_expiries()
    found = await balance(ops, "gil")
    assert (found.posted, found.expired) == (0, 0)
    listed = await ops.ListTransactions(points_pb2.ListTransactionsRequest(user_id="gil"))
    assert listed.transactions[0].kind == points_pb2.TRANSACTION_KIND_EXPIRY
    assert [e.account for e in listed.transactions[0].entries] == ["user:gil", "system:expiry"]


async def test_a_reversal_returns_to_the_lots_it_came_from(ops: Stub) -> None:
    await ops.Award(award("hua", 5, expire_time=seconds_from_now(3600)))
    await ops.Award(award("hua", 5))
    spent = (await ops.Spend(spend("hua", 8))).transaction
    assert [lot.remaining for lot in await lots(ops, "hua")] == [0, 2]
    await ops.ReverseTransaction(reverse(spent, 4))
    assert [lot.remaining for lot in await lots(ops, "hua")] == [1, 5]
    await ops.ReverseTransaction(reverse(spent))
    assert [lot.remaining for lot in await lots(ops, "hua")] == [5, 5]


async def test_a_reversed_award_that_was_spent_is_owed_and_repaid_first(ops: Stub) -> None:
    booked = (await ops.Award(award("ivy", 10))).transaction
    await ops.Spend(spend("ivy", 7))
    await ops.ReverseTransaction(reverse(booked))
    found = await balance(ops, "ivy")
    assert (found.posted, found.owed) == (0, 7)
    repaying = (await ops.Award(award("ivy", 9))).transaction
    assert [(e.account, e.amount) for e in repaying.entries if e.amount > 0] == [
        ("debt:ivy", 7),
        ("user:ivy", 2),
    ]
    found = await balance(ops, "ivy")
    assert (found.posted, found.owed) == (2, 0)


async def test_an_award_that_expired_is_taken_back_from_expiry(ops: Stub) -> None:
    booked = (await ops.Award(award("jan", 5, expire_time=seconds_from_now(0.2)))).transaction
    await asyncio.sleep(0.3)
    taken = (await ops.ReverseTransaction(reverse(booked))).transaction
    assert [(e.account, e.amount) for e in taken.entries] == [
        ("system:expiry", -5),
        ("system:issuance", 5),
    ]
    assert (await balance(ops, "jan")).owed == 0


async def test_a_release_that_comes_first_keeps_the_hold_from_being_placed(ops: Stub) -> None:
    await ops.Award(award("kim", 5))
    late = hold("kim", 5)
    early = points_pb2.ReleaseHoldRequest(
        request_id=request_id("release"), placed_request_id=late.request_id, user_id="kim"
    )
    assert not (await ops.ReleaseHold(early)).HasField("hold")
    assert not (await ops.PlaceHold(late)).HasField("hold")
    assert (await balance(ops, "kim")).held == 0


async def test_a_reversed_request_is_cancelled_in_a_batch_too(ops: Stub) -> None:
    late = award("lia", 5)
    request = points_pb2.ReverseTransactionRequest(request_id=request_id("reverse"), reason="late")
    request.original_request.kind = points_pb2.TRANSACTION_KIND_AWARD
    request.original_request.request_id = late.request_id
    await ops.ReverseTransaction(request)
    [result] = (await ops.BatchPost(batch(late))).results
    assert result.cancelled
    request.amount, request.request_id = 1, request_id("reverse")
    with pytest.raises(OriginalNotFound):
        await ops.ReverseTransaction(request)


async def test_balances_and_statements_of_the_past(ops: Stub) -> None:
    booked = [(await ops.Award(award("max", n))).transaction for n in (1, 2, 4, 8)]
    times = [transaction.booked_time for transaction in booked]
    assert [(await balance(ops, "max", at)).posted for at in times] == [1, 3, 7, 15]
    request = points_pb2.GetStatementRequest(
        user_id="max", unit="G2A", start_time=times[1], end_time=times[3], page_size=1
    )
    seen = []
    while True:
        page = await ops.GetStatement(request)
        assert (page.opening_balance, page.closing_balance) == (1, 7)
        seen += [line.entry.amount for line in page.lines]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == [2, 4]


async def test_what_expires_next_is_known_of_the_past_too(ops: Stub) -> None:
    soon, later = Timestamp(), Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    later.FromDatetime(datetime.now(UTC) + timedelta(days=2))
    given = (await ops.Award(award("ria", 5, expire_time=later))).transaction
    sooner = (await ops.Award(award("ria", 3, expire_time=soon))).transaction
    held = (await ops.PlaceHold(hold("ria", 1))).hold
    spent = (await ops.Spend(spend("ria", 2))).transaction
    at = {
        name: (await balance(ops, "ria", moment)).expiring_next
        for name, moment in (
            ("given", given.booked_time),
            ("sooner", sooner.booked_time),
            ("held", held.placed_time),
            ("spent", spent.booked_time),
        )
    }
    assert {name: (next_.amount, next_.expire_time) for name, next_ in at.items()} == {
        "given": (5, later),
        "sooner": (3, soon),
        "held": (2, soon),
        "spent": (5, later),
    }
    assert (await balance(ops, "ria")).expiring_next == at["spent"]


async def test_transactions_are_listed_by_receiver_reference_and_reason(ops: Stub) -> None:
    await ops.Award(award("nat", 5))
    moved = (
        await ops.Transfer(transfer("nat", "oli", 5, reason="gift", reference="card-7"))
    ).transaction
    for wanted in ({"user_id": "oli"}, {"reference": "card-7"}, {"reason": "gift"}):
        listed = await ops.ListTransactions(points_pb2.ListTransactionsRequest(**wanted))
        assert list(listed.transactions) == [moved]


async def test_seals_cover_what_is_booked_and_betray_a_change(ops: Stub, ledger: Ledger) -> None:
    booked = (await ops.Award(award("pia", 5))).transaction
    ledger.seal()
    before = await ops.VerifyLedger(points_pb2.VerifyLedgerRequest())
    assert list(before.findings) == []
    assert before.unsealed_transactions == 0
    assert len(before.checks) > 10
    ledger.execute("ALTER TABLE transactions DISABLE TRIGGER ALL")
    rename = "UPDATE transactions SET reason = %s WHERE transaction_id = %s"
    ledger.execute(rename, "forged", booked.transaction_id)
    found = await ops.VerifyLedger(points_pb2.VerifyLedgerRequest())
    assert [finding for finding in found.findings if finding.startswith("seal")]
    ledger.execute(rename, booked.reason, booked.transaction_id)
    ledger.execute("ALTER TABLE transactions ENABLE TRIGGER ALL")
    known = points_pb2.VerifyLedgerRequest(known_seal=before.last_seal)
    assert list((await ops.VerifyLedger(known)).findings) == []
    known.known_seal.hash = b"\0" * 32
    [finding] = (await ops.VerifyLedger(known)).findings
    assert "noted outside" in finding


@pytest.mark.parametrize(
    ("method", "request_", "error", "field"),
    [
        ("Transfer", transfer("x", "x", 1), SameAccount, "recipient_user_id"),
        ("Transfer", transfer("x", "y", 1, unit="DOGE"), UnknownUnit, None),
        ("Transfer", transfer("x", "y", 0), InvalidArgument, "posting.amount"),
        ("Award", award("x", 2**62), InvalidArgument, "posting.amount"),
        ("Award", award("x", 1, expire_time=Timestamp(seconds=1)), ExpireTimePassed, "expire_time"),
        ("PlaceHold", hold("x", 1), InsufficientFunds, None),
        ("PlaceHold", hold("x", 1, seconds=0), InvalidArgument, "time_to_live"),
        (
            "CaptureHold",
            capture(points_pb2.Hold(hold_id=UNKNOWN, user_id="x")),
            HoldNotFound,
            "hold_id",
        ),
        (
            "GetBalance",
            points_pb2.GetBalanceRequest(
                user_id="x", unit="G2A", as_of_time=Timestamp(seconds=4_000_000_000)
            ),
            TimeInFuture,
            "as_of_time",
        ),
        ("ListTransactions", points_pb2.ListTransactionsRequest(), FilterRequired, "user_id"),
        ("ListLots", points_pb2.ListLotsRequest(user_id="x", unit="DOGE"), UnknownUnit, None),
    ],
)
async def test_bad_input_is_refused_precisely(
    ops: Stub, method: str, request_: Any, error: type[MeshError], field: str | None
) -> None:
    with pytest.raises(error) as refused:
        await getattr(ops, method)(request_)
    assert refused.value.field == field


async def test_holds_are_their_owners_and_hold_no_more_than_they_do(ops: Stub) -> None:
    await ops.Award(award("quy", 5))
    placed = (await ops.PlaceHold(hold("quy", 5))).hold
    with pytest.raises(HoldOfAnotherAccount) as refused:
        await ops.CaptureHold(capture(placed, user_id="someone"))
    assert refused.value.field == "user_id"
    with pytest.raises(HoldExceeded):
        await ops.CaptureHold(capture(placed, 6))
    taken = await ops.CaptureHold(capture(placed, 2))
    assert taken.hold.state == points_pb2.Hold.STATE_CAPTURED
    assert (await balance(ops, "quy")).available == 3
    reversal = (await ops.ReverseTransaction(reverse(taken.transaction))).transaction
    with pytest.raises(NotReversible):
        await ops.ReverseTransaction(reverse(reversal))


async def test_an_overdraft_goes_to_its_limit(ops: Stub) -> None:
    limit = points_pb2.SetOverdraftLimitRequest(
        request_id=request_id("limit"), user_id="ray", unit="G2A", limit=5
    )
    await ops.SetOverdraftLimit(limit)
    await ops.SetOverdraftLimit(limit)
    with pytest.raises(InsufficientFunds):
        await ops.Spend(spend("ray", 6))
    await ops.Spend(spend("ray", 5))
    found = await balance(ops, "ray")
    assert (found.posted, found.owed, found.overdraft_limit) == (0, 5, 5)
