"""PointsService over mutual TLS on a real Postgres, called by our own client."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from go2asia.points.v1 import points_pb2, points_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp

from devstack.certificates import Authority
from mesh.client import open_channel
from mesh.errors import InvalidArgument, PageTokenInvalid, PermissionDenied, RequestIdReused
from mesh.pagination import next_token
from points_svc.errors import (
    EffectiveTimeInFuture,
    InsufficientFunds,
    TransactionNotFound,
    UnknownUnit,
)
from points_svc.servicer import MAX_BATCH_BYTES
from tests.rpc.points_service import award, batch, spend

Stub = Any  # the generated async stub is known to type checkers only


@pytest.fixture
async def connect(grpc_server: object, grpc_addr: str, authority: Authority) -> AsyncIterator[Stub]:
    """The service as Connect calls it."""
    async with open_channel(grpc_addr, authority.issue("connect/connect")) as channel:
        yield points_pb2_grpc.PointsServiceStub(channel)


async def balance(stub: Stub, user_id: str) -> points_pb2.Balance:
    request = points_pb2.GetBalanceRequest(user_id=user_id, unit="G2A")
    return (await stub.GetBalance(request)).balance


async def test_an_award_is_booked_and_can_be_read_again(connect: Stub) -> None:
    happened = Timestamp()
    happened.FromDatetime(datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC))
    request = award("ada", 25, metadata={"quest": "temple"}, effective_time=happened)
    booked = (await connect.Award(request)).transaction

    assert booked.request_id == request.request_id
    assert booked.kind == points_pb2.TRANSACTION_KIND_AWARD
    assert (booked.user_id, booked.unit, booked.amount) == ("ada", "G2A", 25)
    assert (booked.reason, booked.reference) == ("quest-completed", "action-1")
    assert dict(booked.metadata) == {"quest": "temple"}
    assert booked.effective_time == happened
    issued, received = booked.entries
    assert (issued.account, issued.amount) == ("system:issuance", -25)
    assert received == points_pb2.Entry(
        account="user:ada", amount=25, balance_after=25, account_version=1
    )
    [change] = booked.lot_changes
    assert (change.account, change.amount) == ("user:ada", 25)
    again = await connect.GetTransaction(
        points_pb2.GetTransactionRequest(transaction_id=booked.transaction_id)
    )
    assert again.transaction == booked


async def test_balances_follow(connect: Stub) -> None:
    assert await balance(connect, "bea") == points_pb2.Balance(user_id="bea", unit="G2A")
    await connect.Award(award("bea", 10))
    await connect.Spend(spend("bea", 4))
    assert await balance(connect, "bea") == points_pb2.Balance(
        user_id="bea", unit="G2A", posted=6, available=6, version=2
    )


async def test_a_request_id_used_by_award_is_known_in_a_batch_and_back(connect: Stub) -> None:
    first, second = award("cy", 5), award("cy", 6)
    unary = await connect.Award(first)
    results = (await connect.BatchPost(batch(first, second))).results
    assert results[0].transaction == unary.transaction
    assert (await connect.Award(second)).transaction == results[1].transaction
    assert (await balance(connect, "cy")).posted == 11


async def test_fifty_identical_awards_at_once_are_one(connect: Stub) -> None:
    request = award("dan", 5)
    answers = await asyncio.gather(*(connect.Award(request) for _ in range(50)))
    assert len({answer.transaction.transaction_id for answer in answers}) == 1
    assert (await balance(connect, "dan")).posted == 5


async def test_a_reused_request_id_is_refused_in_both_forms(connect: Stub) -> None:
    await connect.Award(award("eve", 5, "eve-1"))
    with pytest.raises(RequestIdReused):
        await connect.Award(award("eve", 6, "eve-1"))
    [result] = (await connect.BatchPost(batch(award("eve", 7, "eve-1")))).results
    assert result.error.reason == "REQUEST_ID_REUSED"


async def test_request_ids_of_different_callers_do_not_meet(connect: Stub, ops: Stub) -> None:
    await connect.Award(award("fay", 5, "fay-1"))
    await ops.Award(award("fay", 6, "fay-1"))
    assert (await balance(connect, "fay")).posted == 11


async def test_one_malformed_item_of_256_fails_alone(connect: Stub) -> None:
    items = [award("gus", 1) for _ in range(256)]
    items[77].posting.amount = -5
    results = (await connect.BatchPost(batch(*items))).results
    assert [n for n, result in enumerate(results) if result.HasField("error")] == [77]
    error = results[77].error
    assert (error.reason, error.field) == (
        "INVALID_ARGUMENT",
        "items[77].award.posting.amount",
    )
    assert (await balance(connect, "gus")).posted == 255


async def test_items_of_a_batch_are_decided_in_order_and_refused_one_by_one(
    connect: Stub,
) -> None:
    request = batch(award("hal", 5), spend("hal", 9), spend("hal", 5), award("hal", 1, unit="DOGE"))
    request.items.add()
    results = (await connect.BatchPost(request)).results
    assert [result.error.reason for result in results] == [
        "",
        "INSUFFICIENT_FUNDS",
        "",
        "UNKNOWN_UNIT",
        "INVALID_ARGUMENT",
    ]
    assert dict(results[1].error.metadata) == {"available": "5", "amount": "9"}
    assert (await balance(connect, "hal")).posted == 0


async def test_a_batch_whose_answer_could_not_be_sent_is_refused_whole(connect: Stub) -> None:
    metadata = {f"key-{number}": "x" * 500 for number in range(8)}
    items = [award("ida", 1, metadata=metadata) for _ in range(MAX_BATCH_BYTES // 4_000)]
    with pytest.raises(InvalidArgument, match="split"):
        await connect.BatchPost(batch(*items))
    results = (await connect.BatchPost(batch(*items[: len(items) * 3 // 4]))).results
    assert all(result.HasField("transaction") for result in results)


async def test_a_batch_that_touched_very_many_lots_is_answered_in_short(connect: Stub) -> None:
    user_id = 128 * "\N{WHALE}"  # as long as can be, and so is every mention of its account
    for _ in range(3):
        await connect.BatchPost(batch(*(award(user_id, 1) for _ in range(1000))))
    metadata = {f"key-{number}": "x" * 500 for number in range(20)}
    others = [award("jon", 1, metadata=metadata) for _ in range(280)]
    request = batch(*(spend(user_id, 1000) for _ in range(3)), *others)
    [first, *_, last] = (await connect.BatchPost(request)).results
    assert (first.transaction.amount, first.transaction.lot_changes_left_out) == (1000, 1000)
    assert not last.transaction.entries
    whole = await connect.GetTransaction(
        points_pb2.GetTransactionRequest(transaction_id=first.transaction.transaction_id)
    )
    assert len(whole.transaction.lot_changes) == 1000


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"user_id": "never-awarded"}, InsufficientFunds),
        ({"unit": "DOGE"}, UnknownUnit),
        ({"effective_time": Timestamp(seconds=4_000_000_000)}, EffectiveTimeInFuture),
        ({"effective_time": Timestamp(seconds=2**62)}, InvalidArgument),
        ({"amount": 0}, InvalidArgument),
        ({"unit": "g2a"}, InvalidArgument),
        ({"user_id": "nul\0"}, InvalidArgument),
        ({"metadata": {"nul": "\0"}}, InvalidArgument),
    ],
)
async def test_refusals_arrive_as_the_class_that_was_raised(
    connect: Stub, fields: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await connect.Spend(spend(**{"user_id": "jo", "amount": 1, **fields}))


async def test_a_transaction_that_does_not_exist_is_not_found(connect: Stub) -> None:
    unknown = "01939d5e-0000-7000-8000-000000000000"
    with pytest.raises(TransactionNotFound) as missing:
        await connect.GetTransaction(points_pb2.GetTransactionRequest(transaction_id=unknown))
    assert missing.value.metadata == {"transaction_id": unknown}


async def test_a_transaction_id_may_be_written_in_capitals(connect: Stub) -> None:
    booked = (await connect.Award(award("kay", 1))).transaction
    request = points_pb2.GetTransactionRequest(transaction_id=booked.transaction_id.upper())
    assert (await connect.GetTransaction(request)).transaction == booked


async def test_lists_are_newest_first_and_page_without_gap(connect: Stub, ops: Stub) -> None:
    booked = []
    for number in range(7):
        unit = "XP" if number == 3 else "G2A"
        answer = await connect.Award(award("lee", number + 1, unit=unit))
        booked.insert(0, answer.transaction)

    request = points_pb2.ListTransactionsRequest(user_id="lee", page_size=3)
    seen = []
    while True:
        page = await ops.ListTransactions(request)
        assert len(page.transactions) <= 3
        seen += page.transactions
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert seen == booked

    of_unit = points_pb2.ListTransactionsRequest(user_id="lee", unit="XP")
    assert list((await ops.ListTransactions(of_unit)).transactions) == [booked[3]]


async def test_lists_show_one_batch_in_the_order_it_was_decided(connect: Stub, ops: Stub) -> None:
    items = [award("moe", 5), *(spend("moe", 1) for _ in range(5))]
    await connect.BatchPost(batch(*items))
    page = await ops.ListTransactions(points_pb2.ListTransactionsRequest(user_id="moe"))
    assert [booked.request_id for booked in page.transactions] == [
        item.request_id for item in reversed(items)
    ]


async def test_a_page_token_with_a_lot_that_cannot_be_is_refused(ops: Stub) -> None:
    lots = points_pb2.ListLotsRequest(user_id="mia", unit="G2A")
    lots.page_token = next_token(lots, ("0190b7f4-7b1e-7cc3-98c4-dc0c0c07398f", 2**15))
    with pytest.raises(PageTokenInvalid):
        await ops.ListLots(lots)


async def test_a_page_token_of_another_query_is_refused(connect: Stub, ops: Stub) -> None:
    await connect.BatchPost(batch(award("mia", 1), award("mia", 2)))
    request = points_pb2.ListTransactionsRequest(user_id="mia", page_size=1)
    request.page_token = (await ops.ListTransactions(request)).next_page_token
    request.user_id = "lee"
    with pytest.raises(PageTokenInvalid):
        await ops.ListTransactions(request)


async def test_only_operators_verify_and_find_it_sound(connect: Stub, ops: Stub) -> None:
    await connect.BatchPost(batch(award("ned", 8), spend("ned", 3)))
    with pytest.raises(PermissionDenied):
        await connect.VerifyLedger(points_pb2.VerifyLedgerRequest())
    report = await ops.VerifyLedger(points_pb2.VerifyLedgerRequest())
    assert list(report.findings) == []
    assert report.sums["G2A"] == 0
    assert report.awarded["G2A"] >= 8
    assert report.entries == 2 * report.transactions
