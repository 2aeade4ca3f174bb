"""Our servicers under pytest-grpc's fixtures, called by plain blocking stubs."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from go2asia.points.v1 import points_pb2, points_pb2_grpc

from devstack.certificates import Authority
from mesh.client import open_channel
from mesh.errors import NotFound
from tests.rpc.mesh_probe import BALANCE, Points


async def answer(request: points_pb2.GetBalanceRequest) -> points_pb2.GetBalanceResponse:
    if request.user_id == "nobody":
        raise NotFound(resource_type="user", resource_id="nobody")
    return points_pb2.GetBalanceResponse(balance=points_pb2.Balance(posted=7))


@pytest.fixture(scope="module")
def grpc_add_to_server() -> Any:
    return points_pb2_grpc.add_PointsServiceServicer_to_server


@pytest.fixture(scope="module")
def grpc_servicer() -> Points:
    return Points(answer)


@pytest.fixture(scope="module")
def grpc_stub_class() -> Any:
    return points_pb2_grpc.PointsServiceStub


def test_a_blocking_stub_gets_the_answer(act_as: Callable[[str], Any]) -> None:
    assert act_as("bff/web").GetBalance(BALANCE).balance.posted == 7


def test_roles_hold_here_too(act_as: Callable[[str], Any]) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        act_as("gateway/gateway").GetBalance(BALANCE)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_our_own_client_gets_typed_errors(
    grpc_server: object, grpc_addr: str, authority: Authority
) -> None:
    async with open_channel(grpc_addr, authority.issue("bff/web")) as channel:
        with pytest.raises(NotFound) as missing:
            await points_pb2_grpc.PointsServiceStub(channel).GetBalance(
                points_pb2.GetBalanceRequest(user_id="nobody", unit="G2A")
            )
    assert missing.value.metadata == {"resource_type": "user", "resource_id": "nobody"}
