"""What a batch of rewards does to the people it rewards: the decision, apart from I/O. Pure.

Rewards are applied one after another to standings that the caller has locked; the result is that
of applying each in a transaction of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from nft_svc.audit import AuditEntry, Origin
from nft_svc.definitions import NftType, OnchainPolicy, TypeState
from nft_svc.errors import MintingNotOffered, NftTypeArchived, UnknownCounter, UnknownNftType
from nft_svc.mints import Mint, MintKind
from nft_svc.progress import Progress, advance, give, retreat, take_away
from nft_svc.upgrades import Badge, Need, mint_of

Holder = tuple[str, str]
"""A user and the code of a type: what progress belongs to."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A validated reward; `increment` is above zero."""

    user_id: str
    nft_type: str
    counter: str
    increment: int
    reference: str
    origin: Origin

    @property
    def holder(self) -> Holder:
        """Whose progress towards what it raises."""
        return self.user_id, self.nft_type


@dataclass(frozen=True, slots=True)
class Grant:
    """A badge given without progress; with `mint`, its way on to the chain too."""

    user_id: str
    nft_type: str
    reference: str
    origin: Origin
    mint: bool = False

    @property
    def holder(self) -> Holder:
        """Who gets a badge of which type."""
        return self.user_id, self.nft_type


@dataclass(frozen=True, slots=True)
class RewardOutcome:
    """What one reward changed, as in the contract."""

    counter_value: int
    nft_id: str | None
    level: int
    level_raised: bool
    mint_id: str | None = None


@dataclass(frozen=True, slots=True)
class RevertOutcome:
    """What taking one reward back changed, as in the contract."""

    counter_value: int
    nft_id: str | None
    level: int
    level_lowered: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """A holder's progress, instance, and whether that has an item or a mint on its way."""

    progress: Progress
    nft_id: str | None = None
    minted: bool = False


@dataclass(frozen=True, slots=True)
class Instance:
    """An instance to create or to bring to a level of its type; level 0 has nothing left."""

    nft_id: str
    user_id: str
    nft_type: NftType
    level: int


def admit(types: Mapping[str, NftType], reward: Reward | Grant) -> None:
    """Raises for a reward without aim.

    `UnknownNftType`, `NftTypeArchived`, `UnknownCounter` or `MintingNotOffered`.
    """
    nft_type = types.get(reward.nft_type)
    if nft_type is None:
        raise UnknownNftType(field="nft_type", nft_type=reward.nft_type)
    if nft_type.state is TypeState.ARCHIVED:
        raise NftTypeArchived(field="nft_type", nft_type=nft_type.code)
    if isinstance(reward, Reward) and reward.counter not in nft_type.counters:
        raise UnknownCounter(
            f"Type {nft_type.code} has no counter {reward.counter}; "
            f"it has {', '.join(nft_type.counters)}.",
            field="counter",
            nft_type=nft_type.code,
            counter=reward.counter,
        )
    if isinstance(reward, Grant) and reward.mint and nft_type.onchain_policy is OnchainPolicy.NONE:
        raise MintingNotOffered(field="nft_type", nft_type=nft_type.code)


class Accrual:
    """Applies admitted rewards to locked standings and gathers what is to be written.

    `changed` holds the new standings, `created` and `moved` the instances by id, `mints` the mints
    to queue, each with the origin of the reward that queued it, and `audit` a line per reward.
    """

    def __init__(
        self,
        types: Mapping[str, NftType],
        standings: Mapping[Holder, Standing],
        now: datetime,
        new_id: Callable[[], str],
    ) -> None:
        self._types = types
        self._standings = standings
        self._now = now
        self._new_id = new_id
        self.changed: dict[Holder, Standing] = {}
        self.created: dict[str, Instance] = {}
        self.moved: dict[str, Instance] = {}
        self.mints: list[tuple[Mint, Origin]] = []
        self.audit: list[AuditEntry] = []

    def apply(self, reward: Reward | Grant) -> RewardOutcome:
        """Applies one reward; raises `CounterOverflow`, and then changes nothing."""
        before, nft_type = self._standing(reward), self._types[reward.nft_type]
        if isinstance(reward, Grant):
            progress = give(before.progress)
        else:
            progress = advance(before.progress, nft_type, reward.counter, reward.increment)
        after = Standing(progress, before.nft_id, before.minted)
        mint, wanted = None, isinstance(reward, Grant) and reward.mint
        if raised := progress.level > before.progress.level:
            after = self._bring_to_level(after, nft_type, reward)
            wanted |= nft_type.auto_mints(above=before.progress.level, upto=progress.level)
        if wanted and not after.minted:
            mint = self._queue_mint(after, nft_type, reward)
            after = replace(after, minted=True)
        self.changed[reward.holder] = after
        outcome = RewardOutcome(
            counter_value=_value(progress, reward),
            nft_id=after.nft_id,
            level=progress.level,
            level_raised=raised,
            mint_id=mint.mint_id if mint else None,
        )
        self.audit.append(_entry("apply", reward, before, after, outcome.mint_id))
        return outcome

    def revert(self, reward: Reward | Grant) -> RevertOutcome:
        """Takes back a reward that was applied."""
        before, nft_type = self._standing(reward), self._types[reward.nft_type]
        if isinstance(reward, Grant):
            progress = take_away(before.progress, nft_type)
        else:
            progress = retreat(before.progress, nft_type, reward.counter, reward.increment)
        after = replace(before, progress=progress)
        if lowered := progress.level < before.progress.level:
            after = self._bring_to_level(after, nft_type, reward)
        self.changed[reward.holder] = after
        self.audit.append(_entry("revert", reward, before, after, None))
        return RevertOutcome(_value(progress, reward), after.nft_id, progress.level, lowered)

    @property
    def passed_by(self) -> set[str]:
        """Instances whose level left behind what was known of them, or queued for them, before."""
        queued = {mint.nft_id: mint.level for mint, _ in self.mints}
        left = {
            nft_id
            for nft_id, instance in self.created.items()
            if queued.get(nft_id, instance.level) != instance.level
        }
        return left | self.moved.keys()

    @property
    def minted(self) -> set[str]:
        """Instances that were found on chain or on their way, or are queued now."""
        return {each.nft_id for each in self.changed.values() if each.nft_id and each.minted}

    def _standing(self, reward: Reward | Grant) -> Standing:
        return self.changed.get(reward.holder) or self._standings[reward.holder]

    def _bring_to_level(
        self, standing: Standing, nft_type: NftType, reward: Reward | Grant
    ) -> Standing:
        nft_id = standing.nft_id or self._new_id()
        instance = Instance(nft_id, reward.user_id, nft_type, standing.progress.level)
        is_new = standing.nft_id is None or nft_id in self.created
        (self.created if is_new else self.moved)[nft_id] = instance
        return replace(standing, nft_id=nft_id)

    def _queue_mint(self, standing: Standing, nft_type: NftType, reward: Reward | Grant) -> Mint:
        badge = Badge(standing.nft_id or "", reward.user_id, nft_type)
        due = Need(MintKind.MINT, standing.progress.level)
        mint = mint_of(badge, due, self._now, self._new_id)
        self.mints.append((mint, reward.origin))
        return mint


def _value(progress: Progress, reward: Reward | Grant) -> int:
    return progress.counters.get(reward.counter, 0) if isinstance(reward, Reward) else 0


def _entry(
    verb: str, reward: Reward | Grant, before: Standing, after: Standing, mint_id: str | None
) -> AuditEntry:
    told = _told(after, reward)
    return AuditEntry(
        origin=reward.origin,
        action=f"{'reward' if isinstance(reward, Reward) else 'grant'}.{verb}",
        subject=f"progress/{reward.nft_type}",
        user_id=reward.user_id,
        before=_told(before, reward),
        after={**told, "mint_id": mint_id} if mint_id else told,
        reference=reward.reference,
        nft_id=after.nft_id,
    )


def _told(standing: Standing, reward: Reward | Grant) -> dict[str, str | int]:
    progress = standing.progress
    if isinstance(reward, Grant):
        return {"grants": progress.grants, "level": progress.level}
    value = _value(progress, reward)
    return {"counter": reward.counter, "value": value, "level": progress.level}
