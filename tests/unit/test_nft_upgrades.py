"""Which change of an instance's items is due next, and that the changes come to an end."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nft_svc.definitions import LevelRule, NftType, OnchainPolicy, TokenStandard, UpgradePolicy
from nft_svc.metadata import MARK
from nft_svc.mints import Mint, MintKind, MintState
from nft_svc.upgrades import Badge, Need, items, mint_of, need, repeated, stands

NOW = datetime(2026, 1, 1, tzinfo=UTC)
NFT, SBT = TokenStandard.NFT, TokenStandard.SBT
UPDATE, NEW = UpgradePolicy.UPDATE_CONTENT, UpgradePolicy.NEW_ITEM
numbers = count(1)


def a_type(policy: UpgradePolicy = UPDATE, standard: TokenStandard = NFT) -> NftType:
    """Three levels; the second and third are minted by themselves."""
    return NftType(
        code="explorer",
        display_name="Explorer",
        description="",
        counters=("quests",),
        metadata_schema=None,
        image="ipfs://x/{mint_id}",
        onchain_policy=OnchainPolicy.AUTO,
        token_standard=standard,
        levels=tuple(
            LevelRule(number, {"quests": number}, {"name": f"Explorer {number}"}, number > 1)
            for number in (1, 2, 3)
        ),
        upgrade_policy=policy,
    )


def an_id() -> str:
    return f"mint-{next(numbers)}"


def queue(nft_type: NftType, due: Need) -> Mint:
    """What a need asks for, ended well."""
    mint = mint_of(Badge("n-1", "ada", nft_type), due, NOW + timedelta(seconds=1), an_id)
    return replace(mint, state=MintState.FINALIZED)


def minted(nft_type: NftType, level: int) -> list[Mint]:
    return [queue(nft_type, Need(MintKind.MINT, level))]


def follow(nft_type: NftType, history: Sequence[Mint], level: int) -> list[Mint]:
    """The changes that lead to a level, one after the other."""
    changes: list[Mint] = []
    while due := need(nft_type, level, items([*history, *changes])):
        changes.append(queue(nft_type, due))
        assert len(changes) < 10, "changes chase each other"
    return changes


def test_an_item_is_changed_up_and_down() -> None:
    nft_type = a_type()
    first = minted(nft_type, 1)
    (up,) = follow(nft_type, first, 3)
    assert (up.kind, up.item_mint_id, up.level) == (MintKind.UPDATE, first[0].mint_id, 3)
    assert up.content.name == "Explorer 3"
    assert up.content.image == f"ipfs://x/{first[0].mint_id}", "the item keeps its mint's id"
    (down,) = follow(nft_type, [*first, up], 2)
    assert (down.kind, down.content.name) == (MintKind.UPDATE, "Explorer 2")
    assert follow(nft_type, [*first, up, down], 2) == []


def test_without_a_level_an_nft_is_marked_and_may_come_back() -> None:
    nft_type = a_type()
    first = minted(nft_type, 2)
    (over,) = follow(nft_type, first, 0)
    assert (over.kind, over.level) == (MintKind.UPDATE, 0)
    assert over.content.attributes[-1] == MARK
    assert over.content.name == "Explorer 2", "it still says what it was"
    (back,) = follow(nft_type, [*first, over], 1)
    assert (back.level, MARK in back.content.attributes) == (1, False)


def test_without_a_level_an_sbt_is_revoked_for_good_and_minted_anew() -> None:
    nft_type = a_type(standard=SBT)
    first = minted(nft_type, 2)
    (over,) = follow(nft_type, first, 0)
    assert (over.kind, over.item_mint_id) == (MintKind.REVOKE, first[0].mint_id)
    history = [*first, over]
    assert stands(nft_type, 2, items(first)) is not None
    assert stands(nft_type, 2, items(history)) is None, "nothing brings a revoked item back"
    (anew,) = follow(nft_type, history, 1)
    assert (anew.kind, anew.level, anew.item_mint_id) == (MintKind.MINT, 1, None)
    never = replace(nft_type, onchain_policy=OnchainPolicy.NONE)
    assert follow(never, history, 2) == []


def test_a_mint_called_off_is_made_up_for_and_the_first_one_is_nobodys_upgrade() -> None:
    nft_type = a_type()
    (off,) = [replace(mint, state=MintState.CANCELLED) for mint in minted(nft_type, 2)]
    assert follow(nft_type, [off], 0) == []
    (anew,) = follow(nft_type, [off], 1)
    assert (anew.kind, anew.level) == (MintKind.MINT, 1)
    assert follow(nft_type, [], 3) == []


def test_of_items_of_their_own_the_highest_that_is_due_again_is_minted_anew() -> None:
    nft_type = a_type(NEW, SBT)
    history = minted(nft_type, 1)
    history += follow(nft_type, history, 3)
    history += follow(nft_type, history, 0)
    asked_for = replace(nft_type, onchain_policy=OnchainPolicy.ON_REQUEST)
    assert [change.level for change in follow(asked_for, history, 2)] == [1]
    assert [change.level for change in follow(asked_for, history, 3)] == [3]
    assert [change.level for change in follow(nft_type, history, 2)] == [2], "minted by itself"


def test_an_item_of_its_own_for_each_level() -> None:
    nft_type = a_type(NEW)
    first = minted(nft_type, 1)
    (second,) = follow(nft_type, first, 2)
    assert (second.kind, second.level, second.item_mint_id) == (MintKind.MINT, 2, None)
    assert second.content.image == f"ipfs://x/{second.mint_id}"
    history = [*first, second]
    (over,) = follow(nft_type, history, 1)
    assert (over.item_mint_id, over.level) == (second.mint_id, 0), "the lower one stays as it is"
    (back,) = follow(nft_type, [*history, over], 2)
    assert (back.kind, back.item_mint_id, back.level) == (MintKind.UPDATE, second.mint_id, 2)
    lost = follow(nft_type, history, 0)
    assert {change.item_mint_id for change in lost} == {mint.mint_id for mint in history}


def test_what_an_item_is_was_decided_when_it_was_minted() -> None:
    first = minted(a_type(standard=NFT), 2)
    (over,) = follow(a_type(standard=SBT), first, 0)
    assert (over.kind, over.token_standard) == (MintKind.UPDATE, NFT)


def test_an_item_is_written_again_as_it_was() -> None:
    nft_type = a_type()
    history = minted(nft_type, 1)
    history += follow(nft_type, history, 3)
    (item,) = items(history)
    again = repeated(item, NOW, an_id)
    assert (again.kind, again.level, again.state) == (MintKind.UPDATE, 3, MintState.QUEUED)
    assert again.content == history[-1].content
    assert items([*history, again]) == [item]


@pytest.mark.parametrize("standard", [NFT, SBT])
@pytest.mark.parametrize("policy", [UPDATE, NEW])
@given(levels=st.lists(st.integers(0, 3), max_size=12), first=st.integers(1, 3))
def test_whatever_the_level_does_the_items_come_to_it(
    policy: UpgradePolicy, standard: TokenStandard, levels: list[int], first: int
) -> None:
    nft_type = a_type(policy, standard)
    history = minted(nft_type, first)
    for level in [first, *levels]:
        history += follow(nft_type, history, level)
        living = [item for item in items(history) if not item.revoked]
        shown = [item.level for item in living if item.level]
        assert all(each <= level for each in shown), "nothing stands for more than was earned"
        if policy is UPDATE:
            assert len(living) <= 1
            assert shown == ([level] if living and level else [])
        else:
            assert len(shown) == len(set(shown)), "a level has one item"
