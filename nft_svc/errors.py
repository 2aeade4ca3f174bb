"""The NFT service's failures; reasons as in `go2asia.nft.v1.ErrorReason`."""

from typing import ClassVar

from mesh.errors import Kind, MeshError


class NftError(MeshError):
    """The NFT service refused the request; see the reason.

    Base of this service's failures.
    """

    domain: ClassVar[str] = "nft.go2asia"


class UnknownNftType(NftError):
    """No type has this code; create it, or correct the code."""

    kind = Kind.NOT_FOUND
    reason = "UNKNOWN_NFT_TYPE"


class UnknownCounter(NftError):
    """The type has no such counter; add it to the type, or correct its name."""

    kind = Kind.INVALID_ARGUMENT
    reason = "UNKNOWN_COUNTER"


class NftTypeExists(NftError):
    """A type of this code exists; update it, or choose another code."""

    kind = Kind.ALREADY_EXISTS
    reason = "NFT_TYPE_EXISTS"


class NftTypeArchived(NftError):
    """The type is archived and takes no more rewards; name an active one."""

    kind = Kind.FAILED_PRECONDITION
    reason = "NFT_TYPE_ARCHIVED"


class EtagMismatch(NftError):
    """The etag is not the current one; read the type again and repeat your change on it."""

    kind = Kind.ABORTED
    reason = "ETAG_MISMATCH"


class InvalidLevels(NftError):
    """Levels have gaps, fall, or name unknown counters; correct the level."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_LEVELS"


class InvalidMetadataSchema(NftError):
    """The metadata schema is no valid JSON Schema (2020-12); correct it at the path."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_METADATA_SCHEMA"


class MetadataMismatch(NftError):
    """A level's metadata breaks the type's schema or the limits of item content; correct it."""

    kind = Kind.INVALID_ARGUMENT
    reason = "METADATA_MISMATCH"


class CounterOverflow(NftError):
    """The counter would leave the range of int64; nothing more can be added to it."""

    kind = Kind.FAILED_PRECONDITION
    reason = "COUNTER_OVERFLOW"


class NftNotFound(NftError):
    """No instance has this id; check the id."""

    kind = Kind.NOT_FOUND
    reason = "NFT_NOT_FOUND"


class MintNotFound(NftError):
    """No mint has this id; check the id."""

    kind = Kind.NOT_FOUND
    reason = "MINT_NOT_FOUND"


class MintingNotOffered(NftError):
    """Badges of this type never go on chain (policy NONE); ask for one of another type."""

    kind = Kind.FAILED_PRECONDITION
    reason = "MINTING_NOT_OFFERED"


class NotTheOwner(NftError):
    """It belongs to another user; name one of the user's own."""

    kind = Kind.PERMISSION_DENIED
    reason = "NOT_THE_OWNER"


class MintExists(NftError):
    """The instance has a mint that is alive or finalised; follow that one."""

    kind = Kind.ALREADY_EXISTS
    reason = "MINT_EXISTS"


class MintNotRetryable(NftError):
    """Only a mint that failed for a passing reason is retried; see its state and failure_reason."""

    kind = Kind.FAILED_PRECONDITION
    reason = "MINT_NOT_RETRYABLE"


class MintHandedOver(NftError):
    """The mint was sent to the chain, or may have been; follow it to its end instead."""

    kind = Kind.FAILED_PRECONDITION
    reason = "MINT_HANDED_OVER"


class MintEnded(NftError):
    """The mint has ended and cannot be called off any more; see its state."""

    kind = Kind.FAILED_PRECONDITION
    reason = "MINT_ENDED"


class ChangeNotCancellable(NftError):
    """It changes an item as the record demands; change the record, and the item follows."""

    kind = Kind.FAILED_PRECONDITION
    reason = "CHANGE_NOT_CANCELLABLE"


class UnknownPlaceholder(NftError):
    """A word in braces stands for nothing; use {mint_id}, {nft_id}, {nft_type} or {level}."""

    kind = Kind.INVALID_ARGUMENT
    reason = "UNKNOWN_PLACEHOLDER"


class LevelTakenBack(NftError):
    """What the instance was earned with was taken back; it can be minted once earned again."""

    kind = Kind.FAILED_PRECONDITION
    reason = "LEVEL_TAKEN_BACK"


class ReconciliationNotFound(NftError):
    """No reconciliation has this id, or none was started yet; start one."""

    kind = Kind.NOT_FOUND
    reason = "RECONCILIATION_NOT_FOUND"


class ReconciliationRunning(NftError):
    """A reconciliation is at work; follow that one, or wait for its end."""

    kind = Kind.FAILED_PRECONDITION
    reason = "RECONCILIATION_RUNNING"


class ResumeTokenInvalid(NftError):
    """The resume token is malformed or belongs to another target; open a stream without one."""

    kind = Kind.INVALID_ARGUMENT
    reason = "RESUME_TOKEN_INVALID"


class ResumeTokenExpired(NftError):
    """The resume token is older than the feed reaches; open a stream without one."""

    kind = Kind.OUT_OF_RANGE
    reason = "RESUME_TOKEN_EXPIRED"


class StreamEvicted(NftError):
    """A newer stream took this one's place; do not reopen it, or the two will chase each other."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "STREAM_EVICTED"


class ReaderTooSlow(NftError):
    """This reader is too slow for the feed; resume with the last token."""

    kind = Kind.RESOURCE_EXHAUSTED
    reason = "READER_TOO_SLOW"


class Draining(NftError):
    """This replica is shutting down; resume on another one with the last token."""

    kind = Kind.UNAVAILABLE
    reason = "DRAINING"
