"""Badge types as their authors define them: counters, and levels at thresholds over them. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nft_svc.errors import InvalidLevels


class TypeState(StrEnum):
    """Life of a type; only an ACTIVE one takes rewards."""

    ACTIVE = "ACTIVE"
    ARCHIVED = "ARCHIVED"


class OnchainPolicy(StrEnum):
    """When instances go on chain: never, when the owner asks, or at an auto-mint level."""

    NONE = "NONE"
    ON_REQUEST = "ON_REQUEST"
    AUTO = "AUTO"


class TokenStandard(StrEnum):
    """What an instance becomes on chain: NFT is transferable (TEP-62), SBT soulbound (TEP-85)."""

    NFT = "NFT"
    SBT = "SBT"


class UpgradePolicy(StrEnum):
    """How an instance that is on chain follows its level, as documented in the contract."""

    UPDATE_CONTENT = "UPDATE_CONTENT"
    NEW_ITEM = "NEW_ITEM"


@dataclass(frozen=True, slots=True)
class LevelRule:
    """A level and the least value that each counter must have for it."""

    level: int
    thresholds: Mapping[str, int]
    metadata: Mapping[str, Any]
    auto_mint_onchain: bool

    def reached(self, counters: Mapping[str, int]) -> bool:
        """Whether all thresholds are met; a counter never raised is 0."""
        return all(counters.get(name, 0) >= least for name, least in self.thresholds.items())


@dataclass(frozen=True, slots=True)
class NftType:
    """One version of a badge type; `levels[n]` is the rule of level n + 1.

    `image`, `item_uri` and the values of `attributes`, which are (trait, value), are templates.
    """

    code: str
    display_name: str
    description: str
    counters: tuple[str, ...]
    metadata_schema: Mapping[str, Any] | None
    image: str
    onchain_policy: OnchainPolicy
    token_standard: TokenStandard
    levels: tuple[LevelRule, ...]
    version: int = 1
    state: TypeState = TypeState.ACTIVE
    item_uri: str = ""
    attributes: tuple[tuple[str, str], ...] = ()
    upgrade_policy: UpgradePolicy = UpgradePolicy.UPDATE_CONTENT

    @property
    def etag(self) -> str:
        """Changes with every version; opaque to clients."""
        return f'"{self.version}"'

    def rule(self, level: int) -> LevelRule:
        """What a holder at `level` has; the highest there is, if the type has fewer levels now."""
        return self.levels[min(level, len(self.levels)) - 1]

    def auto_mints(self, *, above: int, upto: int) -> bool:
        """Whether a rise from level `above` to `upto` reaches or passes an auto-mint level."""
        return self.onchain_policy is OnchainPolicy.AUTO and any(
            rule.auto_mint_onchain for rule in self.levels[above:upto]
        )


def check_levels(counters: Sequence[str], levels: Sequence[LevelRule]) -> None:
    """Raises `InvalidLevels` unless levels count 1, 2, 3, … and each includes the one before.

    Inclusion makes "the highest level all of whose thresholds are reached" the end of a climb, one
    rule at a time.
    """
    before: Mapping[str, int] = {}
    for number, rule in enumerate(levels, start=1):
        if rule.level != number:
            raise _invalid(number, f"Level {rule.level} stands where level {number} belongs")
        for counter in rule.thresholds:
            if counter not in counters:
                raise _invalid(number, f"Level {number} names {counter}, which is no counter")
        for counter, least in before.items():
            if rule.thresholds.get(counter, 0) < least:
                raise _invalid(
                    number,
                    f"Level {number} needs less of {counter} than the level before ({least})",
                )
        before = rule.thresholds


def _invalid(level: int, wrong: str) -> InvalidLevels:
    return InvalidLevels(
        f"{wrong}; number levels without a gap, by declared counters, each at least as demanding "
        "as the one before.",
        field=f"nft_type.levels[{level - 1}]",
        level=str(level),
    )
