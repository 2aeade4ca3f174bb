"""The mint state machine: what the Gateway's reports do to a mint. Pure.

Reports carry whole states with a version, so they may come late, repeatedly, in any order, and with
gaps: the highest version wins. What must never happen, such as leaving FINALIZED, is refused here
even if a report claims it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, StrEnum, auto

from nft_svc.definitions import TokenStandard
from nft_svc.errors import ChangeNotCancellable, MintEnded, MintHandedOver, MintNotRetryable
from nft_svc.metadata import ItemContent


class MintState(StrEnum):
    """Life of a mint, as documented in the contract."""

    QUEUED = "QUEUED"
    AWAITING_WALLET = "AWAITING_WALLET"
    SUBMITTED = "SUBMITTED"
    ACCEPTED = "ACCEPTED"
    MINTED = "MINTED"
    FINALIZED = "FINALIZED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class MintKind(StrEnum):
    """What a mint does: bring an item on chain, or change the item of an earlier mint."""

    MINT = "MINT"
    UPDATE = "UPDATE"
    REVOKE = "REVOKE"


_S = MintState
STEPS: Mapping[MintState, frozenset[MintState]] = {
    _S.QUEUED: frozenset({_S.AWAITING_WALLET, _S.SUBMITTED, _S.FAILED, _S.CANCELLED}),
    _S.AWAITING_WALLET: frozenset({_S.QUEUED, _S.FAILED, _S.CANCELLED}),
    _S.SUBMITTED: frozenset({_S.ACCEPTED, _S.FAILED}),
    _S.ACCEPTED: frozenset({_S.MINTED, _S.SUBMITTED, _S.FAILED}),
    _S.MINTED: frozenset({_S.FINALIZED, _S.SUBMITTED}),
    _S.FINALIZED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}
# An instance may be minted anew once its mint ended in one of these.
ENDED_WITHOUT_ITEM = frozenset({_S.FAILED, _S.CANCELLED})
_ON_CHAIN = (_S.SUBMITTED, _S.ACCEPTED, _S.MINTED, _S.FINALIZED)


def _reachable(start: MintState) -> frozenset[MintState]:
    found: set[MintState] = set()
    frontier = set(STEPS[start])
    while frontier:
        state = frontier.pop()
        found.add(state)
        frontier |= STEPS[state] - found
    # A report may also bring new details of the same state, unless the mint is at its end.
    return frozenset(found | {start}) if STEPS[start] else frozenset()


# Reports may be missing, so a state follows when any chain of steps leads to it.
MAY_FOLLOW: Mapping[MintState, frozenset[MintState]] = {
    state: _reachable(state) for state in MintState
}


@dataclass(frozen=True, slots=True)
class Location:
    """Where an item is on chain; addresses in raw form, item address computed as in TEP-62."""

    collection_address: str
    item_index: int
    item_address: str
    owner_address: str


@dataclass(frozen=True, slots=True)
class Mint:
    """One minting of one instance, or one change of its item.

    `version` counts the changes of this record; `operation_version` is the version of the
    Gateway's operation that it reflects, 0 before the first report. `retry_of` is the failed mint
    of the same instance that this one retries. `present_owner_address` is set once a reconciliation
    has seen the item with another owner than the one that it was minted to. A change names the mint
    of its item as `item_mint_id`. `level` is what the item stands for afterwards, 0 if it was taken
    back. `outdated` says that the record has moved on, so that another change follows this one.
    """

    mint_id: str
    nft_id: str
    user_id: str
    nft_type: str
    content: ItemContent
    create_time: datetime
    update_time: datetime
    state: MintState = MintState.QUEUED
    version: int = 1
    operation_id: str | None = None
    operation_version: int = 0
    location: Location | None = None
    failure_reason: str = ""
    retryable: bool = False
    retry_of: str | None = None
    present_owner_address: str | None = None
    kind: MintKind = MintKind.MINT
    item_mint_id: str | None = None
    token_standard: TokenStandard = TokenStandard.NFT
    level: int = 1
    outdated: bool = False

    @property
    def under_way(self) -> bool:
        """Whether it may still change by itself."""
        return bool(STEPS[self.state])


@dataclass(frozen=True, slots=True)
class Report:
    """The whole state of the Gateway's operation for a mint, at one version of it."""

    mint_id: str
    operation_id: str
    version: int
    state: MintState
    location: Location | None = None
    failure_reason: str = ""
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A mint after a change; `previous` is None for a new one.

    `rollback` is true if the chain took a step back before finality.
    """

    mint: Mint
    previous: MintState | None = None
    rollback: bool = False


class Verdict(Enum):
    """What a report is to a mint: news, nothing new, or something that must not happen."""

    NEWS = auto()
    STALE = auto()
    FORBIDDEN = auto()


def judge(mint: Mint, report: Report) -> Verdict:
    """Whether the report changes the mint.

    FORBIDDEN also stands for a report of another operation than the one that took the mint: one
    mint has one operation, since its id is the operation's idempotency key.
    """
    if mint.operation_id not in (None, report.operation_id):
        return Verdict.FORBIDDEN
    if report.version <= mint.operation_version:
        return Verdict.STALE
    return Verdict.NEWS if report.state in MAY_FOLLOW[mint.state] else Verdict.FORBIDDEN


def follow(mint: Mint, report: Report, now: datetime) -> Change:
    """The mint after a report that is NEWS to it."""
    after = replace(
        mint,
        state=report.state,
        version=mint.version + 1,
        operation_id=report.operation_id,
        operation_version=report.version,
        location=report.location or mint.location,
        failure_reason=report.failure_reason,
        retryable=report.retryable,
        update_time=now,
    )
    return Change(after, mint.state, stepped_back(mint.state, report.state))


def refuse(mint: Mint, reason: str, now: datetime) -> Change | None:
    """The mint after the Gateway refused it for good; None if it took the mint nevertheless.

    `reason` is the UPPER_SNAKE reason of the refusal. The same order would be refused again, so it
    is not retryable.
    """
    if mint.state is not MintState.QUEUED or mint.operation_id is not None:
        return None
    after = replace(
        mint,
        state=MintState.FAILED,
        version=mint.version + 1,
        failure_reason=reason,
        retryable=False,
        update_time=now,
    )
    return Change(after, mint.state)


def check_retryable(mint: Mint) -> None:
    """Raises `MintNotRetryable` unless the mint failed for a reason that may pass."""
    if mint.state is not MintState.FAILED or not mint.retryable:
        raise MintNotRetryable(
            field="mint_id",
            mint_id=mint.mint_id,
            state=mint.state,
            failure_reason=mint.failure_reason,
        )


def check_unsent(mint: Mint) -> None:
    """Raises `MintEnded` or `MintHandedOver` for a mint that cannot be called off any more.

    Raises `ChangeNotCancellable` for what changes an item.
    """
    if mint.kind is not MintKind.MINT:
        raise ChangeNotCancellable(field="mint_id", mint_id=mint.mint_id, kind=mint.kind)
    if not STEPS[mint.state]:
        raise MintEnded(field="mint_id", mint_id=mint.mint_id, state=mint.state)
    if mint.state in _ON_CHAIN:
        raise MintHandedOver(field="mint_id", mint_id=mint.mint_id, state=mint.state)


def cancel(mint: Mint, now: datetime) -> Change:
    """The mint called off that nobody tried to hand over yet: that the caller has made sure of."""
    after = replace(mint, state=MintState.CANCELLED, version=mint.version + 1, update_time=now)
    return Change(after, mint.state)


def change_owner(mint: Mint, owner_address: str, now: datetime) -> Change:
    """The mint after its item was seen with another owner; its state stays."""
    after = replace(
        mint, present_owner_address=owner_address, version=mint.version + 1, update_time=now
    )
    return Change(after, mint.state)


def stepped_back(before: MintState, after: MintState) -> bool:
    """Whether the chain undid something: only then can MINTED be followed by FAILED."""
    if before not in _ON_CHAIN:
        return False
    if after not in _ON_CHAIN:
        return before is MintState.MINTED
    return _ON_CHAIN.index(after) < _ON_CHAIN.index(before)
