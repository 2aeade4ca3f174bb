"""Request ids over RPC: what was asked before is answered as before, and nothing else is."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from go2asia.points.v1 import points_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import RequestIdReused
from tests.rpc.points_service import (
    award,
    batch,
    hold,
    release,
    request_id,
    reverse,
    spend,
)

Stub = Any  # the generated async stub is known to type checkers only


async def balance(stub: Stub, user_id: str) -> points_pb2.Balance:
    request = points_pb2.GetBalanceRequest(user_id=user_id, unit="G2A")
    return (await stub.GetBalance(request)).balance


def reverse_request(of: str, name: str = "") -> points_pb2.ReverseTransactionRequest:
    """To take back the award that came, or will come, under a request id."""
    request = points_pb2.ReverseTransactionRequest(
        request_id=name or request_id("reverse"), reason="clawback"
    )
    request.original_request.kind = points_pb2.TRANSACTION_KIND_AWARD
    request.original_request.request_id = of
    return request


async def test_the_request_id_that_left_a_tombstone_reverses_nothing_else(ops: Stub) -> None:
    first = reverse_request(request_id("award"))
    assert not (await ops.ReverseTransaction(first)).HasField("transaction")
    given = (await ops.Award(award("ada", 5))).transaction
    for other in (
        reverse_request(given.request_id, first.request_id),
        reverse_request(request_id("award"), first.request_id),
        reverse(given, name=first.request_id),
    ):
        with pytest.raises(RequestIdReused):
            await ops.ReverseTransaction(other)
    assert (await balance(ops, "ada")).posted == 5
    assert not (await ops.ReverseTransaction(first)).HasField("transaction")


async def test_the_request_id_that_left_a_tombstone_releases_nothing_else(ops: Stub) -> None:
    await ops.Award(award("ben", 5))
    placed = (await ops.PlaceHold(hold("ben", 5))).hold
    early = points_pb2.ReleaseHoldRequest(
        request_id=request_id("release"), placed_request_id=request_id("hold"), user_id="ben"
    )
    assert not (await ops.ReleaseHold(early)).HasField("hold")
    with pytest.raises(RequestIdReused):
        await ops.ReleaseHold(release(placed, early.request_id))
    assert (await balance(ops, "ben")).held == 5


async def test_a_reversal_of_what_is_buried_already_is_answered_alike(ops: Stub) -> None:
    name = request_id("award")
    for _ in range(2):
        assert not (await ops.ReverseTransaction(reverse_request(name))).HasField("transaction")
    assert not (await ops.Award(award("col", 5, name))).HasField("transaction")


@pytest.mark.parametrize("bad", [spend("dot", 100), spend("dot", -1)], ids=["refused", "malformed"])
async def test_a_refused_atomic_batch_leaves_earlier_items_what_they_are(
    ops: Stub, bad: points_pb2.SpendRequest
) -> None:
    booked, buried, used, new = (award("dot", 5) for _ in range(4))
    transaction = (await ops.Award(booked)).transaction
    await ops.ReverseTransaction(reverse_request(buried.request_id))
    await ops.Award(award("dot", 6, used.request_id))
    request = batch(booked, buried, new, bad, used, atomic=True)
    kept, cancelled, unbooked, wrong, reused = (await ops.BatchPost(request)).results
    assert kept.transaction == transaction
    assert cancelled.cancelled
    assert (unbooked.error.reason, unbooked.error.metadata["item"]) == ("BATCH_REFUSED", "3")
    assert wrong.error.reason in ("INSUFFICIENT_FUNDS", "INVALID_ARGUMENT")
    assert reused.error.reason == "REQUEST_ID_REUSED"


async def test_a_replay_shows_lots_in_the_order_of_the_first_answer(ops: Stub) -> None:
    soon, later = Timestamp(), Timestamp()
    soon.FromDatetime(datetime.now(UTC) + timedelta(days=1))
    later.FromDatetime(datetime.now(UTC) + timedelta(days=2))
    await ops.Award(award("eli", 5, expire_time=later))
    await ops.Award(award("eli", 5, expire_time=soon))
    request = spend("eli", 7)
    first = await ops.Spend(request)
    assert [change.amount for change in first.transaction.lot_changes] == [-2, -5]
    assert await ops.Spend(request) == first
