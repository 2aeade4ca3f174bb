"""What a page of the chain and our mints say of each other."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from go2asia.gateway.v1 import chain_pb2

from mesh.clock import new_id
from nft_svc.convert_reconciliation import chain_item
from nft_svc.metadata import ItemContent
from nft_svc.mints import Location, Mint, MintState, Report
from nft_svc.reconcile import (
    NOBODY,
    ChainItem,
    DiscrepancyKind,
    Record,
    RepairState,
    behind,
    compare,
    entries,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADA, BOB = "0:" + "aa" * 32, "0:" + "bb" * 32
CONTENT = ItemContent("Explorer I", "", "ipfs://x/1.png", (("level", "1"), ("city", "Huế")))


def record(index: int = 0, state: MintState = MintState.FINALIZED, **changes: Any) -> Record:
    place = Location("0:" + "cc" * 32, index, f"0:{index:064x}", ADA)
    mint = Mint(
        new_id(), new_id(), "ada", "explorer", CONTENT, NOW, NOW, state,
        operation_id=new_id(), operation_version=5, location=place,
    )  # fmt: skip
    return replace(Record(mint, CONTENT, moving=False), **changes)


def item(of: Record, **changes: Any) -> ChainItem:
    """The item just as its mint wants it."""
    assert of.mint.location
    content = entries(of.content, of.mint.mint_id)
    return replace(ChainItem(of.item_address, of.mint.location.item_index, ADA, content), **changes)


def kinds(items: list[ChainItem], records: list[Record]) -> list[DiscrepancyKind]:
    return [finding.kind for finding in compare(items, records).findings]


def test_what_agrees_is_no_discrepancy() -> None:
    records = [record(0), record(1)]
    result = compare([item(one) for one in records], records)
    assert (result.findings, result.missing) == ([], [])


def test_spelling_of_attributes_makes_no_difference() -> None:
    one = record()
    said = {
        **entries(CONTENT, one.mint.mint_id),
        "attributes": '[{"value":"1", "trait_type":"level"},'
        '{"trait_type":"city","value":"Hu\\u1ebf"}]',
    }
    assert kinds([item(one, content=said)], [one]) == []


def test_an_item_that_is_not_there_is_missing_once_its_mint_is_final() -> None:
    due, under_way, moving = record(0), record(1, MintState.MINTED), record(2, moving=True)
    assert compare([], [due, under_way, moving]).missing == [due]


def test_a_new_owner_is_recorded_and_then_expected() -> None:
    one = record()
    (finding,) = compare([item(one, owner_address=BOB)], [one]).findings
    assert (finding.kind, finding.repair) == (DiscrepancyKind.WRONG_OWNER, RepairState.PENDING)
    assert (finding.expected, finding.found) == ({"owner_address": ADA}, {"owner_address": BOB})
    known = replace(one, mint=replace(one.mint, present_owner_address=BOB))
    assert kinds([item(one, owner_address=BOB)], [known]) == []
    assert kinds([item(one)], [known]) == [DiscrepancyKind.WRONG_OWNER], "it was given back"


def test_an_item_destroyed_by_its_owner_is_recorded_as_nobodys() -> None:
    one = record()
    destroyed = chain_item(
        chain_pb2.NftItem(
            item_address=one.item_address, initialised=True, content=item(one).content
        )
    )
    assert destroyed
    (finding,) = compare([destroyed], [one]).findings
    assert (finding.kind, finding.found) == (
        DiscrepancyKind.WRONG_OWNER, {"owner_address": "0:" + "0" * 64},
    )  # fmt: skip
    known = replace(one, mint=replace(one.mint, present_owner_address=NOBODY))
    assert kinds([destroyed], [known]) == [], "and then expected"


def test_wrong_content_names_what_differs() -> None:
    one = record()
    said = {**entries(CONTENT, one.mint.mint_id), "name": "Emperor", "extra": "?"}
    (finding,) = compare([item(one, content=said)], [one]).findings
    assert finding.kind is DiscrepancyKind.WRONG_CONTENT
    assert finding.expected == {"name": "Explorer I"}
    assert finding.found == {"extra": "?", "name": "Emperor"}
    assert kinds([item(one, content={"attributes": "[not json"})], [one]) == [finding.kind]


def test_items_of_nobody_are_unknown() -> None:
    one = record()
    nameless = ChainItem("0:" + "ee" * 32, 9, BOB, {})
    forged = ChainItem("0:" + "ff" * 32, 10, BOB, {"mint_id": "not a uuid"})
    double = item(one, item_address="0:" + "dd" * 32, item_index=11)
    result = compare([item(one), nameless, forged, double], [one])
    assert [finding.kind for finding in result.findings] == [DiscrepancyKind.UNKNOWN_ON_CHAIN] * 3
    assert result.findings[2].expected == {"item_address": one.item_address}
    assert {finding.repair for finding in result.findings} == {RepairState.NONE}


@pytest.mark.parametrize("state", [MintState.FAILED, MintState.CANCELLED])
def test_an_item_of_a_mint_that_ended_without_one_is_a_state_behind(state: MintState) -> None:
    one = record(state=state)
    (finding,) = compare([item(one)], [one]).findings
    assert (finding.kind, finding.repair) == (DiscrepancyKind.STATE_BEHIND, RepairState.NONE)


def test_an_item_whose_mint_is_under_way_is_left_to_the_gateway() -> None:
    queued = record(state=MintState.QUEUED)
    unplaced = replace(queued, mint=replace(queued.mint, location=None))
    assert kinds([item(queued)], [unplaced]) == []


@pytest.mark.parametrize(
    ("state", "version", "reported", "repair"),
    [
        (MintState.SUBMITTED, 7, MintState.FINALIZED, RepairState.PENDING),
        (MintState.MINTED, 7, MintState.SUBMITTED, RepairState.PENDING),
        (MintState.SUBMITTED, 5, MintState.FINALIZED, RepairState.NONE),
        (MintState.SUBMITTED, 7, MintState.QUEUED, RepairState.NONE),
    ],
)
def test_a_mint_is_held_against_its_operation(
    state: MintState, version: int, reported: MintState, repair: RepairState
) -> None:
    mint = record(state=state).mint
    assert mint.operation_id
    finding = behind(mint, Report(mint.mint_id, mint.operation_id, version, reported))
    assert finding is not None
    assert (finding.kind, finding.repair) == (DiscrepancyKind.STATE_BEHIND, repair)
    assert behind(mint, Report(mint.mint_id, mint.operation_id, 5, state)) is None
