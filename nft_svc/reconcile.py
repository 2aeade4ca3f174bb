"""Reconciliation: how record and chain differ, and what may be done about it. Pure.

What moved within the grace is `moving` and never judged: a report may be on its way. A finalised
mint must have its item; a mint under way is held against the Gateway's operation instead, which
alone knows what the chain still may do.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nft_svc.metadata import ItemContent
from nft_svc.mints import STEPS, Mint, MintState, Report, Verdict, judge


class DiscrepancyKind(StrEnum):
    """How record and chain may differ, as documented in the contract."""

    MISSING_ON_CHAIN = "MISSING_ON_CHAIN"
    UNKNOWN_ON_CHAIN = "UNKNOWN_ON_CHAIN"
    WRONG_OWNER = "WRONG_OWNER"
    WRONG_CONTENT = "WRONG_CONTENT"
    STATE_BEHIND = "STATE_BEHIND"


class RepairState(StrEnum):
    """What was done about a discrepancy; NONE is only reported, PENDING is to be repaired."""

    NONE = "NONE"
    PENDING = "PENDING"
    DONE = "DONE"
    ORDERED = "ORDERED"
    FAILED = "FAILED"


NOBODY = "0:" + "0" * 64
"""Owner of an item that has none any more: the zero address, where burnt items are sent."""


@dataclass(frozen=True, slots=True)
class ChainItem:
    """An initialised item as the chain has it; `content` holds TEP-64 keys and values."""

    item_address: str
    item_index: int
    owner_address: str
    content: Mapping[str, str]
    revoked: bool = False

    @property
    def mint_id(self) -> str:
        """The mint that the item names; empty if it names none."""
        return self.content.get("mint_id", "").lower()


@dataclass(frozen=True, slots=True)
class Record:
    """A mint as we believe it to be.

    `content` is what its item should say, and `revoked` whether it should be revoked; `moving` is
    true within the grace after a change, and while a change of the item is under way.
    """

    mint: Mint
    content: ItemContent
    moving: bool
    revoked: bool = False

    @property
    def item_address(self) -> str:
        """Where its item should be; empty if it has no place yet."""
        return self.mint.location.item_address if self.mint.location else ""

    @property
    def owner_address(self) -> str:
        """Who should own its item: who was last seen to, or whom it was minted to."""
        minted_to = self.mint.location.owner_address if self.mint.location else ""
        return self.mint.present_owner_address or minted_to


@dataclass(frozen=True, slots=True)
class Finding:
    """A discrepancy; `expected` and `found` hold what differs, None where there is nothing."""

    kind: DiscrepancyKind
    item_address: str
    mint: Mint | None = None
    mint_id: str = ""
    expected: Mapping[str, Any] | None = None
    found: Mapping[str, Any] | None = None
    repair: RepairState = RepairState.NONE


@dataclass(slots=True)
class Comparison:
    """What a page of items shows: `missing` are mints whose items were not among them."""

    findings: list[Finding] = field(default_factory=list)
    missing: list[Record] = field(default_factory=list)


def compare(items: Sequence[ChainItem], records: Iterable[Record]) -> Comparison:
    """Holds items against the mints at their addresses, and those against the items.

    `records` are the mints that should be among the items, and those that the items name.
    """
    by_id = {record.mint.mint_id: record for record in records}
    placed = {
        record.item_address: record
        for record in by_id.values()
        if record.mint.state not in (MintState.FAILED, MintState.CANCELLED) and record.item_address
    }
    result = Comparison()
    for item in items:
        record = placed.pop(item.item_address, None)
        if record is None:
            result.findings += _stranger(item, by_id.get(item.mint_id))
        else:
            result.findings += differences(record, item)
    result.missing = [record for record in placed.values() if is_due(record)]
    return result


def is_due(record: Record) -> bool:
    """Whether the mint's item must be on chain."""
    return record.mint.state is MintState.FINALIZED and not record.moving


def differences(record: Record, item: ChainItem) -> list[Finding]:
    """How an item differs from what we believe of it."""
    if not is_due(record):
        return []
    findings = []
    if item.owner_address != record.owner_address:
        findings.append(
            Finding(
                DiscrepancyKind.WRONG_OWNER,
                item.item_address,
                record.mint,
                record.mint.mint_id,
                {"owner_address": record.owner_address},
                {"owner_address": item.owner_address},
                RepairState.PENDING,
            )
        )
    expected: Mapping[str, Any] = entries(record.content, record.mint.mint_id)
    found: Mapping[str, Any] = item.content
    if record.revoked or item.revoked:
        # Nothing more is written on a revoked item; what counts is that both say so.
        expected, found = {"revoked": record.revoked}, {"revoked": item.revoked}
    if wrong := _differing(expected, found):
        findings.append(
            Finding(
                DiscrepancyKind.WRONG_CONTENT,
                item.item_address,
                record.mint,
                record.mint.mint_id,
                {key: expected[key] for key in wrong if key in expected},
                {key: found[key] for key in wrong if key in found},
                RepairState.NONE if "revoked" in wrong else RepairState.PENDING,
            )
        )
    return findings


def missing(record: Record) -> Finding:
    """The finding of a finalised mint without an item."""
    mint = record.mint
    expected = {"state": mint.state.value, "owner_address": record.owner_address}
    return Finding(
        DiscrepancyKind.MISSING_ON_CHAIN, record.item_address, mint, mint.mint_id, expected
    )


def behind(mint: Mint, report: Report) -> Finding | None:
    """The finding of a mint that is not where the Gateway's operation is; None if it is."""
    if report.version < mint.operation_version:
        return None  # a newer report has come meanwhile
    if report.version == mint.operation_version and report.state is mint.state:
        return None
    repairable = judge(mint, report) is Verdict.NEWS
    return Finding(
        DiscrepancyKind.STATE_BEHIND,
        report.location.item_address if report.location else "",
        mint,
        mint.mint_id,
        {"state": mint.state.value, "operation_version": mint.operation_version},
        {"state": report.state.value, "operation_version": report.version},
        RepairState.PENDING if repairable else RepairState.NONE,
    )


def astray(mint: Mint, repair: RepairState) -> Finding:
    """The finding of a mint that nobody has: it is not in our queue, nor at the Gateway."""
    expected = {"state": mint.state.value, "operation_id": mint.operation_id or ""}
    return Finding(DiscrepancyKind.STATE_BEHIND, "", mint, mint.mint_id, expected, repair=repair)


def entries(content: ItemContent, mint_id: str) -> Mapping[str, str]:
    """What an item with this content says on chain (TEP-64), as the Gateway writes and reads it."""
    if content.uri:
        return {"uri": content.uri, "mint_id": mint_id}
    traits = [{"trait_type": trait, "value": value} for trait, value in content.attributes]
    said = {
        "name": content.name,
        "description": content.description,
        "image": content.image,
        "attributes": json.dumps(traits) if traits else "",
        "mint_id": mint_id,
    }
    return {key: value for key, value in said.items() if value}


def _stranger(item: ChainItem, named: Record | None) -> list[Finding]:
    """What to make of an item at an address where we know of none."""
    if named is not None and (named.moving or _under_way(named.mint)):
        return []  # its place is not reported yet; the Gateway is asked about it later
    mint = None if named is None else named.mint
    found = {"owner_address": item.owner_address, "name": item.content.get("name", "")}
    if mint is not None and mint.state is not MintState.FINALIZED:
        return [
            Finding(
                DiscrepancyKind.STATE_BEHIND,
                item.item_address,
                mint,
                mint.mint_id,
                {"state": mint.state.value},
                found,
            )
        ]
    believed = {"item_address": named.item_address} if named else None
    return [
        Finding(
            DiscrepancyKind.UNKNOWN_ON_CHAIN, item.item_address, mint, item.mint_id, believed, found
        )
    ]


def _under_way(mint: Mint) -> bool:
    return bool(STEPS[mint.state])


def _differing(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The keys under which the two do not say the same."""
    left, right = _readable(expected), _readable(found)
    return sorted(key for key in left | right if left.get(key) != right.get(key))


def _readable(said: Mapping[str, Any]) -> dict[str, Any]:
    """Content with its attributes parsed, so that spaces and escapes make no difference.

    Only to compare by: what parsed may be nothing that a database or a Struct can hold.
    """
    readable = dict(said)
    if "attributes" in readable:
        # What is no JSON is somebody else's, and differs as it is.
        with suppress(ValueError, RecursionError):
            readable["attributes"] = json.loads(said["attributes"])
    return readable
