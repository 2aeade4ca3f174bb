"""Between the contract's messages and the ledger's terms; pure."""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeAlias

from go2asia.points.v1 import points_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import InvalidArgument, PageTokenInvalid
from mesh.pagination import Page
from points_svc import ledger
from points_svc.ledger import HoldState, Kind, LotId

Posted: TypeAlias = points_pb2.AwardRequest | points_pb2.SpendRequest | points_pb2.TransferRequest
"""The requests that a batch may hold."""

_KINDS = {
    Kind.AWARD: points_pb2.TRANSACTION_KIND_AWARD,
    Kind.SPEND: points_pb2.TRANSACTION_KIND_SPEND,
    Kind.TRANSFER: points_pb2.TRANSACTION_KIND_TRANSFER,
    Kind.CAPTURE: points_pb2.TRANSACTION_KIND_CAPTURE,
    Kind.EXPIRY: points_pb2.TRANSACTION_KIND_EXPIRY,
    Kind.REVERSAL: points_pb2.TRANSACTION_KIND_REVERSAL,
}
_KINDS_BY_NUMBER = {number: kind for kind, number in _KINDS.items()}
_STATES = {
    HoldState.ACTIVE: points_pb2.Hold.STATE_ACTIVE,
    HoldState.CAPTURED: points_pb2.Hold.STATE_CAPTURED,
    HoldState.RELEASED: points_pb2.Hold.STATE_RELEASED,
    HoldState.EXPIRED: points_pb2.Hold.STATE_EXPIRED,
}
# What happened to more lots than this is not shown lot by lot: an answer must fit into a message.
MAX_LOTS = 1000
SMALLEST_STEP = timedelta(microseconds=1)
"""What the database's time can tell apart."""
_EPOCH = datetime.fromtimestamp(0, UTC)
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LAST_ORDINAL = 2**15 - 1  # smallint


def instruction(request: Posted) -> ledger.Instruction:
    """What an award, spend or transfer asks for.

    Raises `InvalidArgument` for a time outside the years 1 to 9999.
    """
    posting, recipient, expire_time = request.posting, "", None
    if isinstance(request, points_pb2.AwardRequest):
        kind = Kind.AWARD
        if request.HasField("expire_time"):
            expire_time = moment(request.expire_time, "expire_time")
    elif isinstance(request, points_pb2.SpendRequest):
        kind = Kind.SPEND
    else:
        kind, recipient = Kind.TRANSFER, request.recipient_user_id
    effective_time = (
        moment(posting.effective_time, "posting.effective_time")
        if posting.HasField("effective_time")
        else None
    )
    return ledger.Instruction(
        kind,
        request.request_id,
        posting.user_id,
        posting.unit,
        posting.amount,
        posting.reason,
        posting.reference,
        dict(posting.metadata),
        effective_time,
        recipient,
        expire_time,
    )


def operation(item: points_pb2.PostItem) -> Posted:
    """The request that an item of a batch stands for."""
    if item.HasField("award"):
        return item.award
    return item.spend if item.HasField("spend") else item.transfer


def kind(number: int) -> Kind:
    """The kind that the contract's enum value names."""
    return _KINDS_BY_NUMBER[points_pb2.TransactionKind.ValueType(number)]


def answer(booked: ledger.Transaction | None) -> points_pb2.Transaction | None:
    """What a request booked, if anything, as the contract shows it."""
    return None if booked is None else transaction(booked)


def transaction(booked: ledger.Transaction) -> points_pb2.Transaction:
    """A booked transaction as the contract shows it."""
    asked = booked.instruction
    message = points_pb2.Transaction(
        transaction_id=booked.transaction_id,
        request_id=asked.request_id,
        kind=_KINDS[asked.kind],
        user_id=asked.user_id,
        unit=asked.unit,
        amount=asked.amount,
        reason=asked.reason,
        reference=asked.reference,
        metadata=asked.metadata,
        effective_time=timestamp(booked.effective_time),
        booked_time=timestamp(booked.booked_time),
        recipient_user_id=asked.recipient,
        reversed_transaction_id=asked.reverses or "",
        hold_id=asked.hold_id or "",
        lot_changes_left_out=max(0, len(booked.lot_changes) - MAX_LOTS),
    )
    for one in booked.entries:
        message.entries.append(entry(one))
    for change in booked.lot_changes[:MAX_LOTS]:
        message.lot_changes.add(
            lot_id=lot_id(change.lot_id),
            account=change.owner,
            amount=change.amount,
            expire_time=timestamp(change.expire_time) if change.expire_time else None,
        )
    return message


def abridge(answer: points_pb2.BatchPostResponse) -> None:
    """Leaves out of each transaction the bulk of what its item did not say itself."""
    for result in answer.results:
        if result.HasField("transaction"):
            booked = result.transaction
            booked.lot_changes_left_out += len(booked.lot_changes)
            booked.ClearField("lot_changes")
            booked.ClearField("entries")


def entry(one: ledger.Entry) -> points_pb2.Entry:
    """An entry as the contract shows it."""
    account, amount, balance_after, version = one
    return points_pb2.Entry(
        account=account.owner, amount=amount, balance_after=balance_after, account_version=version
    )


def hold(placed: ledger.Hold | None) -> points_pb2.Hold | None:
    """A hold as the contract shows it."""
    if placed is None:
        return None
    return points_pb2.Hold(
        hold_id=placed.hold_id,
        request_id=placed.request_id,
        user_id=placed.user_id,
        unit=placed.unit,
        amount=placed.amount,
        captured_amount=placed.captured,
        state=_STATES[placed.state],
        reason=placed.reason,
        reference=placed.reference,
        placed_time=timestamp(placed.placed_time),
        expire_time=timestamp(placed.expire_time),
        closed_time=timestamp(placed.closed_time) if placed.closed_time else None,
        lots=[
            points_pb2.LotReservation(lot_id=lot_id(lot), amount=amount)
            for lot, amount in placed.lots[:MAX_LOTS]
        ],
        lots_left_out=max(0, len(placed.lots) - MAX_LOTS),
    )


def lot(found: ledger.Lot) -> points_pb2.Lot:
    """A lot as the contract shows it."""
    return points_pb2.Lot(
        lot_id=lot_id(found.lot_id),
        transaction_id=found.lot_id[0],
        amount=found.amount,
        remaining=found.remaining,
        held=found.held,
        expire_time=timestamp(found.expire_time) if found.expire_time else None,
    )


def lot_id(name: LotId) -> str:
    """A lot's id as the contract writes it."""
    return f"{name[0]}:{name[1]}"


def report(found: ledger.Report) -> points_pb2.VerifyLedgerResponse:
    """What the audit found as the contract shows it."""
    last = found.last_seal
    return points_pb2.VerifyLedgerResponse(
        transactions=found.transactions,
        entries=found.entries,
        accounts=found.accounts,
        sums=found.sums,
        awarded=found.awarded,
        findings=found.findings,
        lots=found.lots,
        holds=found.holds,
        seals=found.seals,
        unsealed_transactions=found.unsealed_transactions,
        checks=found.checks,
        last_seal=points_pb2.Seal(number=last.number, hash=last.hash) if last else None,
    )


def lots_up_to(page: Page) -> LotId | None:
    """The last lot that earlier pages showed; raises `PageTokenInvalid`."""
    match page.after:
        case None:
            return None
        case (str(transaction_id), int(ordinal)) if (
            _UUID.fullmatch(transaction_id) and ordinal <= _LAST_ORDINAL
        ):
            return transaction_id, ordinal
    raise PageTokenInvalid(field="page_token")


def lines_up_to(page: Page) -> tuple[int, datetime | None]:
    """The version of the last line that earlier pages showed, and where their period ended.

    Raises `PageTokenInvalid`.
    """
    match page.after:
        case None:
            return 0, None
        case (int(version), int(end)):
            with suppress(OverflowError):
                return version, _EPOCH + end * SMALLEST_STEP
    raise PageTokenInvalid(field="page_token")


def line_key(version: int, end: datetime) -> tuple[int, int]:
    """What a page token says of the last line shown, and of where the period ended."""
    return version, (end - _EPOCH) // SMALLEST_STEP


def moment(message: Timestamp, field: str) -> datetime:
    """A time of the contract; raises `InvalidArgument` outside the years 1 to 9999."""
    try:
        return message.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"{field} is out of range; send a time in the years 1 to 9999.", field=field
        ) from error


# All transactions of a batch share their booking time, and most have it as effective time too.
@lru_cache(maxsize=256)
def timestamp(moment: datetime) -> Timestamp:
    """A time as the contract shows it."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message
