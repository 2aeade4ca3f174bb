"""What is too much for one message is not shown, and the answer says how much that is."""

from datetime import UTC, datetime

from go2asia.points.v1 import points_pb2

from points_svc import convert
from points_svc.ledger import (
    Entry,
    Hold,
    HoldState,
    Instruction,
    Kind,
    LotChange,
    Reservation,
    Transaction,
    user_account,
)

NOW = datetime(2026, 5, 4, tzinfo=UTC)
ANNA = user_account("anna", "G2A")


def spent(lots: int) -> Transaction:
    asked = Instruction(Kind.SPEND, "r-1", "anna", "G2A", lots, "gift", "", {"for": "you"}, None)
    changes = tuple(LotChange((f"lot-{n:04}", 0), ANNA.owner, -1, None) for n in range(lots))
    return Transaction("t-1", asked, NOW, NOW, (Entry(ANNA, -lots, 0, 2),), changes)


def placed(lots: int) -> Hold:
    reserved = tuple(Reservation((f"lot-{n:04}", 0), 1) for n in range(lots))
    return Hold(
        *("h-1", "r-1", "anna", "G2A", lots, 0, HoldState.ACTIVE, "gift", "", NOW, NOW, None),
        reserved,
    )


def test_lots_are_shown_up_to_a_number_and_counted_beyond() -> None:
    few, many = convert.transaction(spent(3)), convert.transaction(spent(convert.MAX_LOTS + 7))
    assert (len(few.lot_changes), few.lot_changes_left_out) == (3, 0)
    assert (len(many.lot_changes), many.lot_changes_left_out) == (convert.MAX_LOTS, 7)
    hold = convert.hold(placed(convert.MAX_LOTS + 7))
    assert hold is not None
    assert (len(hold.lots), hold.lots_left_out) == (convert.MAX_LOTS, 7)


def test_an_abridged_transaction_says_what_its_item_said() -> None:
    answer = points_pb2.BatchPostResponse()
    answer.results.add(transaction=convert.transaction(spent(3)))
    answer.results.add(cancelled=True)
    convert.abridge(answer)
    booked, cancelled = answer.results
    assert cancelled == points_pb2.PostResult(cancelled=True)
    assert (booked.transaction.amount, booked.transaction.metadata["for"]) == (3, "you")
    assert (len(booked.transaction.entries), len(booked.transaction.lot_changes)) == (0, 0)
    assert booked.transaction.lot_changes_left_out == 3
