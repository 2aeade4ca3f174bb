"""Points, served; each module has a ledger of its own."""

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from go2asia.points.v1 import points_pb2_grpc

from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.client import open_channel
from mesh.testing import LoopServer
from points_svc.servicer import PointsServicer
from tests.rpc.points_service import Ledger, served_ledger


@pytest.fixture(scope="module")
def ledger(
    _grpc_server: LoopServer, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Ledger]:
    with served_ledger(_grpc_server, postgres, make_database) as ledger:
        yield ledger


@pytest.fixture(scope="module")
def grpc_add_to_server() -> Any:
    return points_pb2_grpc.add_PointsServiceServicer_to_server


@pytest.fixture(scope="module")
def grpc_servicer(ledger: Ledger) -> PointsServicer:
    return ledger.servicer


@pytest.fixture
async def ops(grpc_server: object, grpc_addr: str, authority: Authority) -> AsyncIterator[Any]:
    """The service as an operator calls it."""
    async with open_channel(grpc_addr, authority.issue("operator/ops")) as channel:
        yield points_pb2_grpc.PointsServiceStub(channel)
