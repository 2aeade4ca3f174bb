"""What the Gateway's failures mean for the mints that were to be handed over."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from go2asia.gateway.v1 import minting_pb2

from mesh.db import Database
from mesh.errors import Internal, MeshError, PermissionDenied, Unavailable
from mesh.outbox import Claim, Retry
from nft_svc.convert_orders import Order
from nft_svc.orchestrator import Orchestrator
from nft_svc.reports import Reports
from nft_svc.submissions import submission_queue

CLAIMS = [
    Claim(f"m{n}", "mint", b"", 1, "token", None, datetime(2026, 1, 1, tzinfo=UTC))
    for n in range(3)
]


class FailingGateway:
    """Every call fails as a whole."""

    def __init__(self, error: MeshError) -> None:
        self._error = error

    async def submit_mints(
        self, orders: Sequence[minting_pb2.MintOrder]
    ) -> Sequence[minting_pb2.Operation | MeshError]:
        raise self._error

    async def submit(self, order: Order) -> minting_pb2.Operation:
        raise self._error


def orchestrator(error: MeshError) -> Orchestrator:
    untouched = Database("postgresql+psycopg://nobody@localhost/nothing", application_name="test")
    return Orchestrator(FailingGateway(error), Reports(untouched, submission_queue(), lambda: None))


@pytest.mark.parametrize("error", [PermissionDenied(), Internal()])
async def test_a_refused_call_condemns_no_mint(error: MeshError) -> None:
    outcomes = await orchestrator(error).submit(CLAIMS)
    assert [type(outcome) for outcome in outcomes] == [Retry] * 3
    assert isinstance(outcomes[0], Retry)
    assert outcomes[0].error.startswith(error.reason)


async def test_an_outage_is_the_workers_to_judge() -> None:
    with pytest.raises(Unavailable):
        await orchestrator(Unavailable()).submit(CLAIMS)
