"""Brings rules and badge types of the demo's files into the running services."""

import hashlib
from typing import TYPE_CHECKING

from go2asia.connect.v1 import rules_pb2
from go2asia.nft.v1 import catalog_pb2
from google.protobuf.message import Message

from mesh.errors import MeshError

if TYPE_CHECKING:
    from go2asia.connect.v1.rules_pb2_grpc import RuleServiceAsyncStub
    from go2asia.nft.v1.catalog_pb2_grpc import NftCatalogServiceAsyncStub


def request_id(verb: str, message: Message) -> str:
    """Return an id that is the same for the same content, so that applying twice is one change."""
    digest = hashlib.sha256(message.SerializeToString(deterministic=True)).hexdigest()
    return f"demo-{verb}-{digest[:32]}"


async def apply_badge(badge: catalog_pb2.NftType, catalogue: "NftCatalogServiceAsyncStub") -> None:
    """Create the type, or replace the definition that is there."""
    try:
        await catalogue.CreateNftType(
            catalog_pb2.CreateNftTypeRequest(request_id=request_id("create", badge), nft_type=badge)
        )
    except MeshError as error:
        if error.reason != "NFT_TYPE_EXISTS":
            raise
        known = await catalogue.GetNftType(catalog_pb2.GetNftTypeRequest(code=badge.code))
        badge.etag = known.nft_type.etag
        await catalogue.UpdateNftType(
            catalog_pb2.UpdateNftTypeRequest(request_id=request_id("update", badge), nft_type=badge)
        )


async def apply_rule(rule: rules_pb2.Rule, rules: "RuleServiceAsyncStub") -> None:
    """Create the rule, or write a new version of the one that is there."""
    try:
        await rules.CreateRule(
            rules_pb2.CreateRuleRequest(request_id=request_id("create", rule), rule=rule)
        )
    except MeshError as error:
        if error.reason != "RULE_EXISTS":
            raise
        known = await rules.GetRule(rules_pb2.GetRuleRequest(rule_id=rule.rule_id))
        rule.etag = known.rule.etag
        await rules.UpdateRule(
            rules_pb2.UpdateRuleRequest(request_id=request_id("update", rule), rule=rule)
        )
