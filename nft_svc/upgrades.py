"""Upgrades: what an instance's items must come to stand for, and by which change next. Pure.

One change of an instance is under way at a time. So this names the next one only; when it ends, the
question is asked again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from nft_svc.definitions import NftType, OnchainPolicy, TokenStandard, UpgradePolicy
from nft_svc.metadata import ItemContent, item_content, marked
from nft_svc.mints import Mint, MintKind, MintState
from nft_svc.templates import Subject


@dataclass(frozen=True, slots=True)
class Item:
    """An item on chain as its mints left it, or will.

    `origin` is the mint that brought it there, for its level; `level` is what it stands for now, 0
    if that was taken back.
    """

    origin: Mint
    level: int
    content: ItemContent
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Need:
    """A change that is due: an item is minted, or brought to a level, or revoked."""

    kind: MintKind
    level: int
    item: Item | None = None


def items(history: Sequence[Mint]) -> list[Item]:
    """The items of an instance once what is under way has ended well, the oldest first.

    `history` holds its mints in the order in which they were queued, without those that failed or
    were cancelled. One that was called off with the last level may be among them: it counts as an
    item that was revoked.
    """
    found: dict[str, Item] = {}
    for mint in history:
        of = mint.item_mint_id or ""
        match mint.kind:
            case MintKind.MINT:
                off = mint.state is MintState.CANCELLED
                found[mint.mint_id] = Item(mint, mint.level * (not off), mint.content, revoked=off)
            case MintKind.UPDATE:
                found[of] = replace(found[of], level=mint.level, content=mint.content)
            case MintKind.REVOKE:
                found[of] = replace(found[of], level=0, revoked=True)
    return list(found.values())


def stands(nft_type: NftType, level: int, present: Sequence[Item]) -> Item | None:
    """The item that stands for a level, or will by changes: none may be minted beside it."""
    living = [item for item in present if not item.revoked]
    if nft_type.upgrade_policy is UpgradePolicy.NEW_ITEM:
        living = [item for item in living if item.origin.level == level]
    return living[-1] if living else None


def need(nft_type: NftType, level: int, present: Sequence[Item]) -> Need | None:
    """The next change that brings the items to an instance's level; None if they are there.

    A new item is minted beside others, of lower levels, or in the place of those that are revoked
    for good and due again; the first one is nobody's upgrade.
    """
    living = [item for item in present if not item.revoked]
    if present and not living:
        anew = _anew(nft_type, level, present)
        return Need(MintKind.MINT, anew) if anew else None
    for item in living:
        follows = nft_type.upgrade_policy is UpgradePolicy.UPDATE_CONTENT and item is living[-1]
        own = item.origin.level
        due = level if follows else own * (own <= level)
        if item.level == due:
            continue
        soulbound = item.origin.token_standard is TokenStandard.SBT
        kind = MintKind.REVOKE if soulbound and not due else MintKind.UPDATE
        return Need(kind, due, item)
    top = max((item.level for item in living), default=level)
    if top < level and nft_type.auto_mints(above=top, upto=level):
        return Need(MintKind.MINT, level)
    return None


def _anew(nft_type: NftType, level: int, revoked: Sequence[Item]) -> int:
    """The level to mint for a badge all of whose items were revoked; 0 if none is due again."""
    if nft_type.onchain_policy is OnchainPolicy.NONE:
        return 0
    if nft_type.upgrade_policy is UpgradePolicy.UPDATE_CONTENT:
        return level
    regained = max((own for item in revoked if (own := item.origin.level) <= level), default=0)
    return level if nft_type.auto_mints(above=regained, upto=level) else regained


@dataclass(frozen=True, slots=True)
class Badge:
    """The instance whose face on chain is to change."""

    nft_id: str
    user_id: str
    nft_type: NftType


def mint_of(badge: Badge, due: Need, now: datetime, new_id: Callable[[], str]) -> Mint:
    """The mint that a need asks for, frozen as of now."""
    mint_id, nft_type, item = new_id(), badge.nft_type, due.item
    subject = Subject(
        item.origin.mint_id if item else mint_id, badge.nft_id, nft_type.code, due.level
    )
    if due.level:
        content = item_content(nft_type, nft_type.rule(due.level), subject)
    else:
        assert item is not None, "only an item that is there is taken back"
        content = item.content if due.kind is MintKind.REVOKE else marked(item.content)
    return Mint(
        mint_id=mint_id,
        nft_id=badge.nft_id,
        user_id=badge.user_id,
        nft_type=nft_type.code,
        content=content,
        create_time=now,
        update_time=now,
        kind=due.kind,
        item_mint_id=item.origin.mint_id if item else None,
        token_standard=item.origin.token_standard if item else nft_type.token_standard,
        level=due.level,
    )


def repeated(item: Item, now: datetime, new_id: Callable[[], str]) -> Mint:
    """The change that writes on an item again what it says by the record."""
    return replace(
        item.origin,
        mint_id=new_id(),
        content=item.content,
        create_time=now,
        update_time=now,
        kind=MintKind.UPDATE,
        item_mint_id=item.origin.mint_id,
        level=item.level,
        state=MintState.QUEUED,
        version=1,
        operation_id=None,
        operation_version=0,
        location=None,
        retry_of=None,
        present_owner_address=None,
        outdated=False,
    )
