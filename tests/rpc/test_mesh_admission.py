"""Who gets in, with what request, and what a refusal tells."""

from collections.abc import AsyncIterator

import grpc
import pytest
from go2asia.points.v1 import points_pb2, points_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from devstack.certificates import Authority
from mesh.client import open_channel
from mesh.errors import InvalidArgument, PermissionDenied, Unauthenticated, Unavailable
from mesh.identity import caller
from mesh.policy import PolicyError
from mesh.validation import MAX_VIOLATIONS, InvalidFields
from tests.rpc import mesh_probe
from tests.rpc.mesh_probe import BALANCE, points, serving


async def name_the_caller(request: points_pb2.GetBalanceRequest) -> points_pb2.GetBalanceResponse:
    return points_pb2.GetBalanceResponse(balance=points_pb2.Balance(user_id=str(caller())))


@pytest.fixture
async def address(authority: Authority) -> AsyncIterator[str]:
    async with serving(authority, points(name_the_caller)) as address:
        yield address


async def test_the_servicer_sees_who_calls(authority: Authority, address: str) -> None:
    async with open_channel(address, authority.issue("bff/web")) as channel:
        response = await points_pb2_grpc.PointsServiceStub(channel).GetBalance(BALANCE)
    assert response.balance.user_id == "bff/web"


async def test_without_a_certificate_nobody_connects(authority: Authority, address: str) -> None:
    trust_only = grpc.ssl_channel_credentials(authority.issue("bff/web").ca.read_bytes())
    async with grpc.aio.secure_channel(address, trust_only) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await points_pb2_grpc.PointsServiceStub(channel).GetBalance(BALANCE)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_another_authority_is_not_believed(authority: Authority, address: str) -> None:
    stranger = Authority(authority.folder.parent / "stranger").issue("operator/ops")
    mixed = stranger.model_copy(update={"ca": authority.issue("bff/web").ca})
    async with open_channel(address, mixed) as channel:
        with pytest.raises(Unavailable):
            await points_pb2_grpc.PointsServiceStub(channel).GetBalance(BALANCE, timeout=0.5)


async def test_a_wrong_role_is_told_which_are_right(authority: Authority, address: str) -> None:
    async with open_channel(address, authority.issue("gateway/gateway")) as channel:
        with pytest.raises(PermissionDenied) as refused:
            await points_pb2_grpc.PointsServiceStub(channel).GetBalance(BALANCE)
    assert refused.value.metadata == {
        "role": "gateway",
        "method": f"/{mesh_probe.POINTS}/GetBalance",
        "allowed_roles": "bff,connect,domain-service,operator",
    }


async def test_every_broken_field_is_named(authority: Authority, address: str) -> None:
    request = points_pb2.AwardRequest(
        request_id="a", posting=points_pb2.PostingDetails(user_id="ada", unit="g2a", reason="x")
    )
    async with open_channel(address, authority.issue("connect/connect")) as channel:
        with pytest.raises(InvalidFields) as refused:
            await points_pb2_grpc.PointsServiceStub(channel).Award(request)
    assert [field for field, _ in refused.value.violations] == ["posting.unit", "posting.amount"]


async def test_refusing_a_monstrous_request_fits_the_trailers(
    authority: Authority, address: str
) -> None:
    posting = points_pb2.PostingDetails(metadata={f"{n}" * 50_000: "x" * 600 for n in range(19)})
    async with open_channel(address, authority.issue("connect/connect")) as channel:
        with pytest.raises(InvalidArgument) as refused:
            await points_pb2_grpc.PointsServiceStub(channel).Award(
                points_pb2.AwardRequest(posting=posting)
            )
    assert isinstance(refused.value, InvalidFields)
    assert len(refused.value.violations) == MAX_VIOLATIONS


async def test_a_contract_without_policy_is_not_served(authority: Authority) -> None:
    bare = mesh_probe.Registration(mesh_probe.BARE, lambda servicer, server: None, None)
    with pytest.raises(PolicyError, match=r"BareService.Anything has no policy"):
        async with serving(authority, bare):
            pass


async def test_health_and_reflection_are_open_to_every_member(
    authority: Authority, address: str
) -> None:
    async with open_channel(address, authority.issue("gateway/gateway")) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(health_pb2.HealthCheckRequest(service=mesh_probe.POINTS))
        listed = await health.List(health_pb2.HealthListRequest())
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        services = [
            service.name
            async for response in call
            for service in response.list_services_response.service
        ]
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    assert set(listed.statuses) == {"", mesh_probe.POINTS}
    assert mesh_probe.POINTS in services
    assert "grpc.health.v1.Health" in services


async def test_no_plaintext(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await points_pb2_grpc.PointsServiceStub(channel).GetBalance(BALANCE, timeout=1)


def test_outside_of_a_call_there_is_no_caller() -> None:
    with pytest.raises(Unauthenticated, match="No RPC is being served"):
        caller()
