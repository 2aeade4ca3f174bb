"""Proto ⇄ domain for reconciliation; pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from go2asia.gateway.v1 import chain_pb2
from go2asia.nft.v1 import reconciliation_pb2

from nft_svc.convert import struct
from nft_svc.reconcile import NOBODY, ChainItem, DiscrepancyKind, RepairState


def chain_item(message: chain_pb2.NftItem | None) -> ChainItem | None:
    """An item as the Gateway read it from the chain; None unless it is initialised.

    A soulbound item that its owner destroyed (TEP-85) has no owner: it is nobody's, as a burnt one.
    """
    if message is None or not message.initialised:
        return None
    # Whoever wrote the content may have put anything into it; we could not store a NUL.
    content = {key: value.replace("\0", "") for key, value in message.content.items()}
    return ChainItem(
        message.item_address,
        message.item_index,
        message.owner_address or NOBODY,
        content,
        message.HasField("revoke_time"),
    )


def reconciliation(
    row: Mapping[Any, Any], counts: Sequence[tuple[DiscrepancyKind, RepairState, int]]
) -> reconciliation_pb2.Reconciliation:
    """A run, as `store.reconciliations` returns it, on the wire."""
    run = reconciliation_pb2.Reconciliation
    message = run(
        reconciliation_id=row["reconciliation_id"],
        state=run.State.Value(f"STATE_{row['state']}"),
        phase=run.Phase.Value(f"PHASE_{row['phase']}"),
        report_only=row["report_only"],
        items_examined=row["items_examined"],
        mints_examined=row["mints_examined"],
        discrepancies=[
            reconciliation_pb2.DiscrepancyCount(
                kind=_kind_number(kind), repair=_repair_number(repair), count=count
            )
            for kind, repair, count in counts
        ],
        failure_reason=row["failure_reason"],
        last_error=row["last_error"] or "",
    )
    message.create_time.FromDatetime(row["create_time"])
    message.update_time.FromDatetime(row["update_time"])
    if row["end_time"]:
        message.end_time.FromDatetime(row["end_time"])
    return message


def discrepancy(row: Mapping[Any, Any]) -> reconciliation_pb2.Discrepancy:
    """A discrepancy, as `store.reconciliations` returns it, on the wire."""
    message = reconciliation_pb2.Discrepancy(
        discrepancy_id=row["discrepancy_id"],
        reconciliation_id=row["reconciliation_id"],
        kind=_kind_number(row["kind"]),
        item_address=row["item_address"],
        mint_id=row["mint_id"],
        nft_id=row["nft_id"] or "",
        user_id=row["user_id"] or "",
        expected=None if row["expected"] is None else struct(row["expected"]),
        found=None if row["found"] is None else struct(row["found"]),
        repair=_repair_number(row["repair"]),
        repair_detail=row["repair_detail"],
        repair_mint_id=row["repair_mint_id"] or "",
    )
    message.create_time.FromDatetime(row["create_time"])
    return message


def kind(number: reconciliation_pb2.DiscrepancyKind.ValueType) -> DiscrepancyKind | None:
    """A kind named in a request; None if unspecified."""
    name = reconciliation_pb2.DiscrepancyKind.Name(number)
    return DiscrepancyKind(name.removeprefix("DISCREPANCY_KIND_")) if number else None


def repair(number: reconciliation_pb2.RepairState.ValueType) -> RepairState | None:
    """A state of repair named in a request; None if unspecified."""
    name = reconciliation_pb2.RepairState.Name(number)
    return RepairState(name.removeprefix("REPAIR_STATE_")) if number else None


def _kind_number(known: str) -> reconciliation_pb2.DiscrepancyKind.ValueType:
    return reconciliation_pb2.DiscrepancyKind.Value(f"DISCREPANCY_KIND_{known}")


def _repair_number(known: str) -> reconciliation_pb2.RepairState.ValueType:
    return reconciliation_pb2.RepairState.Value(f"REPAIR_STATE_{known}")
