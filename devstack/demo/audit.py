"""Compares what the services and the chain hold with what the input files say they must."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
from go2asia.gateway.v1 import chain_pb2
from go2asia.gateway.v1.chain_pb2_grpc import ChainServiceStub
from go2asia.nft.v1 import nft_pb2
from go2asia.nft.v1.nft_pb2_grpc import NftServiceStub
from go2asia.points.v1 import points_pb2
from go2asia.points.v1.points_pb2_grpc import PointsServiceStub

if TYPE_CHECKING:
    from go2asia.gateway.v1.chain_pb2_grpc import ChainServiceAsyncStub
    from go2asia.nft.v1.nft_pb2_grpc import NftServiceAsyncStub
    from go2asia.points.v1.points_pb2_grpc import PointsServiceAsyncStub

PAGE = 500
AT_ONCE = 16


@dataclass
class Findings:
    """What was counted and every difference found, each a sentence."""

    nfts: int = 0
    mints_finalized: int = 0
    upgrades_finalized: int = 0
    onchain_verified: int = 0
    points_awarded: int = 0
    ledger_sum: int = 0
    differences: list[str] = field(default_factory=list)

    def compare(self, what: str, found: Any, expected: Any) -> None:
        """Note a difference unless the two are equal."""
        if found != expected:
            self.differences.append(f"{what}: found {found}, expected {expected}")


async def audit(
    expected: dict[str, Any],
    points: grpc.aio.Channel,
    nft: grpc.aio.Channel,
    gateway: grpc.aio.Channel,
) -> Findings:
    """Read everything back and compare it with the expectation."""
    findings = Findings()
    await _audit_points(expected, PointsServiceStub(points), findings)
    await _audit_badges(expected, NftServiceStub(nft), ChainServiceStub(gateway), findings)
    return findings


async def _audit_points(
    expected: dict[str, Any], points: "PointsServiceAsyncStub", findings: Findings
) -> None:
    for user_id, units in expected["points"].items():
        for unit, amount in units.items():
            request = points_pb2.GetBalanceRequest(user_id=user_id, unit=unit)
            balance = (await points.GetBalance(request)).balance
            findings.compare(f"{unit} of {user_id}", balance.posted, amount)
    ledger = await points.VerifyLedger(points_pb2.VerifyLedgerRequest())
    findings.differences += [f"ledger: {finding}" for finding in ledger.findings]
    findings.ledger_sum = sum(abs(total) for total in ledger.sums.values())
    findings.points_awarded = sum(ledger.awarded.values())
    findings.compare("sum of the ledger's entries", findings.ledger_sum, 0)


async def _audit_badges(
    expected: dict[str, Any],
    nft: "NftServiceAsyncStub",
    chain: "ChainServiceAsyncStub",
    findings: Findings,
) -> None:
    levels: dict[str, dict[str, int]] = {}
    token = ""
    while True:
        badges = await nft.ListNfts(nft_pb2.ListNftsRequest(page_size=PAGE, page_token=token))
        for badge in badges.nfts:
            findings.nfts += 1
            levels.setdefault(badge.user_id, {})[badge.nft_type] = badge.level
        if not (token := badges.next_page_token):
            break
    for user_id in sorted(levels.keys() | expected["levels"].keys()):
        found, wanted = levels.get(user_id, {}), expected["levels"].get(user_id, {})
        findings.compare(f"badges of {user_id}", found, wanted)

    await _audit_mints(expected, nft, chain, findings)


async def _audit_mints(
    expected: dict[str, Any],
    nft: "NftServiceAsyncStub",
    chain: "ChainServiceAsyncStub",
    findings: Findings,
) -> None:
    changes: list[nft_pb2.Mint] = []
    token = ""
    while True:
        page = await nft.ListMints(nft_pb2.ListMintsRequest(page_size=PAGE, page_token=token))
        changes += page.mints
        if not (token := page.next_page_token):
            break
    mints = [change for change in changes if change.kind == nft_pb2.MINT_KIND_MINT]
    owners = sorted([mint.user_id, mint.nft_type] for mint in mints)
    findings.compare("mints", owners, expected["mints"])
    final = [change for change in changes if change.state == nft_pb2.MINT_STATE_FINALIZED]
    findings.mints_finalized = sum(change.kind == nft_pb2.MINT_KIND_MINT for change in final)
    findings.upgrades_finalized = len(final) - findings.mints_finalized
    last = latest(final)
    for mint in mints:
        level = expected["levels"].get(mint.user_id, {}).get(mint.nft_type, 0)
        found = last.get(mint.nft_id, mint).level
        findings.compare(f"level on chain of {mint.user_id}'s {mint.nft_type}", found, level)
    for start in range(0, len(mints), AT_ONCE):
        some = mints[start : start + AT_ONCE]
        await asyncio.gather(
            *(
                _audit_item(mint, last.get(mint.nft_id, mint).content, chain, findings)
                for mint in some
            )
        )


def latest(changes: Iterable[nft_pb2.Mint]) -> dict[str, nft_pb2.Mint]:
    """The last of these mints and upgrades of each instance; ids rise with time."""
    ordered = sorted(changes, key=lambda change: change.mint_id)
    return {change.nft_id: change for change in ordered}


async def _audit_item(
    mint: nft_pb2.Mint,
    content: nft_pb2.ItemContent,
    chain: "ChainServiceAsyncStub",
    findings: Findings,
) -> None:
    """Read the item back by its address and compare it with NFT's record."""
    where = mint.location
    if not where.item_address:
        findings.differences.append(f"mint {mint.mint_id} of {mint.user_id} has no item yet")
        return
    request = chain_pb2.GetNftItemRequest(item_address=where.item_address)
    item = (await chain.GetNftItem(request)).item
    before = len(findings.differences)
    name = f"item {where.item_index} of {mint.user_id}"
    findings.compare(f"{name}, initialised", item.initialised, True)
    findings.compare(f"{name}, index", item.item_index, where.item_index)
    findings.compare(f"{name}, collection", item.collection_address, where.collection_address)
    findings.compare(f"{name}, owner", item.owner_address, where.owner_address)
    for key in ("name", "description", "image"):
        findings.compare(f"{name}, {key}", item.content.get(key, ""), getattr(content, key))
    attributes = [[one.trait_type, one.value] for one in content.attributes]
    on_chain = json.loads(item.content.get("attributes", "[]"))
    found = [[one["trait_type"], one["value"]] for one in on_chain]
    findings.compare(f"{name}, attributes", found, attributes)
    findings.compare(f"{name}, mint id", item.content.get("mint_id"), mint.mint_id)
    findings.onchain_verified += len(findings.differences) == before
