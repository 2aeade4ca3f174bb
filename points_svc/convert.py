"""Between the contract's messages and the ledger's terms; pure."""

import re
from datetime import UTC, datetime
from functools import lru_cache

from go2asia.points.v1 import points_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from mesh.errors import InvalidArgument, PageTokenInvalid
from mesh.pagination import Page
from points_svc import ledger

_KINDS = {
    ledger.Kind.AWARD: points_pb2.TRANSACTION_KIND_AWARD,
    ledger.Kind.SPEND: points_pb2.TRANSACTION_KIND_SPEND,
}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def award(request: points_pb2.AwardRequest) -> ledger.Instruction:
    """What an award asks for; errors as `instruction`."""
    return instruction(ledger.Kind.AWARD, request.request_id, request.posting)


def spend(request: points_pb2.SpendRequest) -> ledger.Instruction:
    """What a spend asks for; errors as `instruction`."""
    return instruction(ledger.Kind.SPEND, request.request_id, request.posting)


def instruction(
    kind: ledger.Kind, request_id: str, posting: points_pb2.PostingDetails
) -> ledger.Instruction:
    """What is asked for. Raises `InvalidArgument` for a time outside the years 1 to 9999."""
    return ledger.Instruction(
        kind,
        request_id,
        posting.user_id,
        posting.unit,
        posting.amount,
        posting.reason,
        posting.reference,
        dict(posting.metadata),
        _effective_time(posting) if posting.HasField("effective_time") else None,
    )


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
        effective_time=_timestamp(booked.effective_time),
        booked_time=_timestamp(booked.booked_time),
    )
    for entry in booked.entries:
        message.entries.add(
            account=entry.account.owner,
            amount=entry.amount,
            balance_after=entry.balance_after,
            account_version=entry.account_version,
        )
    return message


def balance(user_id: str, account: ledger.Account) -> points_pb2.Balance:
    """A user's balance as the contract shows it."""
    return points_pb2.Balance(
        user_id=user_id,
        unit=account.key.unit,
        posted=account.posted,
        held=account.held,
        available=account.available,
        version=account.version,
    )


def report(found: ledger.Report) -> points_pb2.VerifyLedgerResponse:
    """What the audit found as the contract shows it."""
    return points_pb2.VerifyLedgerResponse(
        transactions=found.transactions,
        entries=found.entries,
        accounts=found.accounts,
        sums=found.sums,
        awarded=found.awarded,
        findings=found.findings,
    )


def seen_up_to(page: Page) -> str | None:
    """The id of the last transaction that earlier pages showed; raises `PageTokenInvalid`."""
    match page.after:
        case None:
            return None
        case (str(transaction_id),) if _UUID.fullmatch(transaction_id):
            return transaction_id
    raise PageTokenInvalid(field="page_token")


def _effective_time(posting: points_pb2.PostingDetails) -> datetime:
    try:
        return posting.effective_time.ToDatetime(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(
            "The effective time is out of range; send a time in the years 1 to 9999.",
            field="posting.effective_time",
        ) from error


# All transactions of a batch share their booking time, and most have it as effective time too.
@lru_cache(maxsize=256)
def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
