"""What the Points service refuses, one class each; reasons as in `points/v1/errors.proto`."""

from mesh.errors import Kind, MeshError

DOMAIN = "points.go2asia"


class UnknownUnit(MeshError):
    """The unit does not exist; use a unit code that the operator created, such as G2A."""

    kind = Kind.NOT_FOUND
    reason = "UNKNOWN_UNIT"
    domain = DOMAIN

    def __init__(self, unit: str) -> None:
        super().__init__(
            f"There is no unit {unit}; use a unit code that the operator created, such as G2A.",
            unit=unit,
        )


class InsufficientFunds(MeshError):
    """The available balance does not cover the amount; lower the amount or award points first."""

    kind = Kind.FAILED_PRECONDITION
    reason = "INSUFFICIENT_FUNDS"
    domain = DOMAIN

    def __init__(self, *, available: int, amount: int) -> None:
        super().__init__(
            f"Only {available} of the {amount} asked for can be spent; "
            "lower the amount or award points first.",
            available=str(available),
            amount=str(amount),
        )


class BalanceOverflow(MeshError):
    """The balance would leave the range of int64; post a smaller amount."""

    kind = Kind.FAILED_PRECONDITION
    reason = "BALANCE_OVERFLOW"
    domain = DOMAIN

    def __init__(self, account: str) -> None:
        super().__init__(
            f"The balance of {account} would leave the range of int64; post a smaller amount.",
            account=account,
        )


class EffectiveTimeInFuture(MeshError):
    """The effective time lies in the future; send a time that has passed, or none."""

    kind = Kind.INVALID_ARGUMENT
    reason = "EFFECTIVE_TIME_IN_FUTURE"
    domain = DOMAIN

    def __init__(self, effective_time: str) -> None:
        super().__init__(
            f"The effective time {effective_time} lies in the future; "
            "send a time that has passed, or none.",
            field="posting.effective_time",
            effective_time=effective_time,
        )


class TransactionNotFound(MeshError):
    """No transaction has this id; check the id that the booking returned."""

    kind = Kind.NOT_FOUND
    reason = "TRANSACTION_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, transaction_id: str) -> None:
        super().__init__(
            f"No transaction has the id {transaction_id}; check the id that the booking returned.",
            field="transaction_id",
            transaction_id=transaction_id,
        )


class SameAccount(MeshError):
    """Giver and receiver are the same user; name another receiver."""

    kind = Kind.INVALID_ARGUMENT
    reason = "SAME_ACCOUNT"
    domain = DOMAIN

    def __init__(self, account: str) -> None:
        super().__init__(
            f"A transfer from {account} to itself moves nothing; name another receiver.",
            field="recipient_user_id",
            account=account,
        )


class ExpireTimePassed(MeshError):
    """What is awarded would have expired already; send a time in the future, or none."""

    kind = Kind.INVALID_ARGUMENT
    reason = "EXPIRE_TIME_PASSED"
    domain = DOMAIN

    def __init__(self, expire_time: str) -> None:
        super().__init__(
            f"The expiry {expire_time} has passed; send a time in the future, or none.",
            field="expire_time",
            expire_time=expire_time,
        )


class BatchRefused(MeshError):
    """Another item of the same atomic batch was refused; correct that one and send all again."""

    kind = Kind.FAILED_PRECONDITION
    reason = "BATCH_REFUSED"
    domain = DOMAIN

    def __init__(self, item: int) -> None:
        super().__init__(
            f"Item {item} of the same atomic batch was refused, so nothing was booked; "
            "correct that one and send all again.",
            item=str(item),
        )


class HoldNotFound(MeshError):
    """No hold has this id; check the id that PlaceHold returned."""

    kind = Kind.NOT_FOUND
    reason = "HOLD_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, hold_id: str) -> None:
        super().__init__(
            f"No hold has the id {hold_id}; check the id that PlaceHold returned.",
            field="hold_id",
            hold_id=hold_id,
        )


class HoldOfAnotherAccount(MeshError):
    """The hold is on the account of another user; name the user it was placed for."""

    kind = Kind.INVALID_ARGUMENT
    reason = "HOLD_OF_ANOTHER_ACCOUNT"
    domain = DOMAIN

    def __init__(self, hold_id: str) -> None:
        super().__init__(
            f"The hold {hold_id} is on the account of another user; "
            "name the user it was placed for.",
            field="user_id",
            hold_id=hold_id,
        )


class HoldClosed(MeshError):
    """The hold was captured, released or has expired; place a new one."""

    kind = Kind.FAILED_PRECONDITION
    reason = "HOLD_CLOSED"
    domain = DOMAIN

    def __init__(self, hold_id: str, state: str) -> None:
        super().__init__(
            f"The hold {hold_id} is {state} and reserves nothing any more; place a new one.",
            hold_id=hold_id,
            state=state,
        )


class HoldExceeded(MeshError):
    """The hold reserves less than that; capture at most what it holds."""

    kind = Kind.FAILED_PRECONDITION
    reason = "HOLD_EXCEEDED"
    domain = DOMAIN

    def __init__(self, *, held: int, amount: int) -> None:
        super().__init__(
            f"The hold reserves {held}, not {amount}; capture at most what it holds.",
            field="amount",
            held=str(held),
            amount=str(amount),
        )


class NotReversible(MeshError):
    """Only awards, spends, transfers and captures can be reversed; book a new transaction."""

    kind = Kind.FAILED_PRECONDITION
    reason = "NOT_REVERSIBLE"
    domain = DOMAIN

    def __init__(self, transaction_id: str, kind: str) -> None:
        super().__init__(
            f"Transaction {transaction_id} is of the kind {kind}: only awards, spends, transfers "
            "and captures can be reversed; book a new transaction.",
            transaction_id=transaction_id,
            kind=kind,
        )


class ReversalExceeds(MeshError):
    """Less than that is left to reverse; lower the amount, or send none for all that is left."""

    kind = Kind.FAILED_PRECONDITION
    reason = "REVERSAL_EXCEEDS"
    domain = DOMAIN

    def __init__(self, transaction_id: str, *, left: int, amount: int) -> None:
        super().__init__(
            f"Of transaction {transaction_id} only {left} is left to reverse, not {amount}; "
            "lower the amount, or send none for all that is left.",
            field="amount",
            transaction_id=transaction_id,
            left=str(left),
            amount=str(amount),
        )


class OriginalNotFound(MeshError):
    """The request to take back in part was not booked; try later, or take back the whole of it."""

    kind = Kind.NOT_FOUND
    reason = "ORIGINAL_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, request_id: str) -> None:
        super().__init__(
            f"Nothing was booked under the request id {request_id}, so no part can be taken back; "
            "try again later, or take back the whole of it.",
            field="original_request.request_id",
            original_request_id=request_id,
        )


class TimeInFuture(MeshError):
    """The ledger knows nothing of the future; send a time that has passed, or none."""

    kind = Kind.INVALID_ARGUMENT
    reason = "TIME_IN_FUTURE"
    domain = DOMAIN

    def __init__(self, field: str, time: str) -> None:
        super().__init__(
            f"{time} lies in the future; send a time that has passed, or none.",
            field=field,
            time=time,
        )


class PeriodReversed(MeshError):
    """The period ends before it begins; exchange its start and its end."""

    kind = Kind.INVALID_ARGUMENT
    reason = "PERIOD_REVERSED"
    domain = DOMAIN

    def __init__(self, start_time: str, end_time: str) -> None:
        super().__init__(
            f"The period begins at {start_time} but ends at {end_time}; send a start that is not "
            "after the end.",
            field="start_time",
            start_time=start_time,
            end_time=end_time,
        )


class FilterRequired(MeshError):
    """The list would be of everything; name a user, a reference or a reason."""

    kind = Kind.INVALID_ARGUMENT
    reason = "FILTER_REQUIRED"
    domain = DOMAIN

    def __init__(self) -> None:
        super().__init__(field="user_id")
