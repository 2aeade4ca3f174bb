"""The gRPC edge of reconciliation: convert, call, convert."""

from typing import Any

from go2asia.nft.v1 import reconciliation_pb2, reconciliation_pb2_grpc

from mesh.idempotency import Key, fingerprint
from mesh.identity import caller
from mesh.pagination import open_page
from mesh.telemetry import traceparent
from nft_svc import convert_reconciliation as convert
from nft_svc.audit import Origin
from nft_svc.reconciliations import Reconciliations


class ReconciliationServicer(reconciliation_pb2_grpc.ReconciliationServiceServicer):
    """Where operators start and follow runs."""

    def __init__(self, reconciliations: Reconciliations) -> None:
        self._reconciliations = reconciliations

    async def StartReconciliation(
        self, request: reconciliation_pb2.StartReconciliationRequest, context: Any
    ) -> reconciliation_pb2.StartReconciliationResponse:
        operator = str(caller())
        started = await self._reconciliations.start(
            Key(f"{operator}:StartReconciliation", request.request_id, fingerprint(request)),
            request.report_only,
            Origin(operator, request.request_id, traceparent()),
        )
        return reconciliation_pb2.StartReconciliationResponse(reconciliation=started)

    async def GetReconciliation(
        self, request: reconciliation_pb2.GetReconciliationRequest, context: Any
    ) -> reconciliation_pb2.GetReconciliationResponse:
        found = await self._reconciliations.get(request.reconciliation_id)
        return reconciliation_pb2.GetReconciliationResponse(reconciliation=found)

    async def ListDiscrepancies(
        self, request: reconciliation_pb2.ListDiscrepanciesRequest, context: Any
    ) -> reconciliation_pb2.ListDiscrepanciesResponse:
        page = open_page(request)
        found = await self._reconciliations.discrepancies(
            request.reconciliation_id,
            convert.kind(request.kind),
            convert.repair(request.repair),
            page.after_number() or 0,
            page.limit,
        )
        discrepancies, token = page.fill(
            found, convert.discrepancy, lambda row: (row["discrepancy_id"],)
        )
        return reconciliation_pb2.ListDiscrepanciesResponse(
            discrepancies=discrepancies, next_page_token=token
        )
