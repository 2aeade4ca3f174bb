"""Failures of the Chain Gateway; reasons as in `go2asia.gateway.v1.ErrorReason`."""

from typing import ClassVar

from mesh.errors import Kind, MeshError

DOMAIN = "gateway.go2asia"


class OperationNotFound(MeshError):
    """No operation has this id; check the id."""

    kind = Kind.NOT_FOUND
    reason = "OPERATION_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, operation_id: str) -> None:
        super().__init__(operation_id=operation_id)


class ContentTooLarge(MeshError):
    """The content does not fit on chain; shorten its texts."""

    kind = Kind.INVALID_ARGUMENT
    reason = "CONTENT_TOO_LARGE"
    domain = DOMAIN

    def __init__(self, *, limit: int, actual: int) -> None:
        super().__init__(
            f"The content takes {actual} bytes on chain, {limit} are allowed; shorten its texts.",
            field="content",
            limit=str(limit),
            actual=str(actual),
        )


class InvalidAddress(MeshError):
    """Not an address of this network; give it raw (0:<64 hex digits>) or user-friendly."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_ADDRESS"
    domain = DOMAIN

    def __init__(self, address: str, field: str) -> None:
        super().__init__(field=field, address=address)


class ItemNotFound(MeshError):
    """Nothing is deployed at this address, or it is not an NFT item; check the address."""

    kind = Kind.NOT_FOUND
    reason = "ITEM_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, address: str) -> None:
        super().__init__(address=address)


class WalletNotLinked(MeshError):
    """The user has no linked wallet; link one with LinkWallet first."""

    kind = Kind.NOT_FOUND
    reason = "WALLET_NOT_LINKED"
    domain = DOMAIN

    def __init__(self, user_id: str) -> None:
        super().__init__(user_id=user_id)


class ChallengeInvalid(MeshError):
    """The challenge is unknown, expired, used, or another user's; create a new one."""

    kind = Kind.FAILED_PRECONDITION
    reason = "CHALLENGE_INVALID"
    domain = DOMAIN


class ProofInvalid(MeshError):
    """The proof of ownership does not hold; let the wallet sign a new challenge."""

    kind = Kind.INVALID_ARGUMENT
    reason = "PROOF_INVALID"
    domain = DOMAIN

    PARTS: ClassVar[dict[str, str]] = {
        "domain": "The wallet signed for another domain; sign in from the app's own domain.",
        "time": "The wallet's signature is too old or from the future; sign a new challenge.",
        "state_init": "The state-init is no known wallet's, or not this address's; send the one "
        "that TON Connect's account item carries.",
        "signature": "The signature does not fit the address, domain, time and payload; sign anew.",
    }

    def __init__(self, part: str) -> None:
        super().__init__(self.PARTS[part], part=part)


class ChainUnavailable(MeshError):
    """No lite-server answers, or the chain's head is too old; try again later."""

    kind = Kind.UNAVAILABLE
    reason = "CHAIN_UNAVAILABLE"
    domain = DOMAIN


class MintAlreadyOrdered(MeshError):
    """This mint id was ordered under another request id; read that operation instead."""

    kind = Kind.ALREADY_EXISTS
    reason = "MINT_ALREADY_ORDERED"
    domain = DOMAIN

    def __init__(self, *, mint_id: str, operation_id: str) -> None:
        super().__init__(field="mint_id", mint_id=mint_id, operation_id=operation_id)


class OperationAlreadySent(MeshError):
    """The operation was or may have been sent, or has ended; it cannot be called off any more."""

    kind = Kind.FAILED_PRECONDITION
    reason = "OPERATION_ALREADY_SENT"
    domain = DOMAIN

    def __init__(self, *, operation_id: str, state: str) -> None:
        super().__init__(operation_id=operation_id, state=state)


class MintNotFound(MeshError):
    """No mint with this id was ordered; order the mint first."""

    kind = Kind.NOT_FOUND
    reason = "MINT_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, mint_id: str) -> None:
        super().__init__(field="item_mint_id", mint_id=mint_id)


class ItemNotRevocable(MeshError):
    """The item is not soulbound: only its owner can give it away."""

    kind = Kind.FAILED_PRECONDITION
    reason = "ITEM_NOT_REVOCABLE"
    domain = DOMAIN

    def __init__(self, mint_id: str) -> None:
        super().__init__(field="item_mint_id", mint_id=mint_id)


class TransferLimitReached(MeshError):
    """What this user may get a day (UTC) is used up; send less, or again tomorrow."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "TRANSFER_LIMIT_REACHED"
    domain = DOMAIN
    transient = False  # not before midnight

    def __init__(self, *, limit: int, left: int) -> None:
        super().__init__(
            f"A user may get {limit} nanoton a day (UTC), and {left} are left today; send less, or "
            "again tomorrow.",
            field="amount_nanoton",
            limit_nanoton=str(limit),
            left_nanoton=str(left),
        )
