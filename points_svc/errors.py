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
    """No transaction has this id; check the id that Award or Spend returned."""

    kind = Kind.NOT_FOUND
    reason = "TRANSACTION_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, transaction_id: str) -> None:
        super().__init__(
            f"No transaction has the id {transaction_id}; check the id that the booking returned.",
            field="transaction_id",
            transaction_id=transaction_id,
        )
