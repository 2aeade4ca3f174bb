"""What the chassis tests serve: a tiny Points, a tiny feed, and a contract with odd policies.

Run as a program, with the folder of the test's certificates, it serves Points in a process that a
test may end, on a port that its log tells.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
from go2asia.mesh.v1 import policy_pb2
from go2asia.nft.v1 import nft_pb2, nft_pb2_grpc
from go2asia.points.v1 import points_pb2, points_pb2_grpc
from google.protobuf import descriptor_pb2, descriptor_pool, empty_pb2

from devstack.certificates import Authority
from mesh import telemetry
from mesh.config import ServiceSettings
from mesh.server import Registration, run, running, serve

POINTS = "go2asia.points.v1.PointsService"
NFT = "go2asia.nft.v1.NftService"
PROBE = "go2asia.test.v1.ProbeService"
BARE = "go2asia.test.v1.BareService"

BALANCE = points_pb2.GetBalanceRequest(user_id="ada", unit="G2A")

Answer = Callable[[points_pb2.GetBalanceRequest], Awaitable[points_pb2.GetBalanceResponse]]


class Points(points_pb2_grpc.PointsServiceServicer):
    """GetBalance does what the test says."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def GetBalance(self, request: Any, context: Any) -> points_pb2.GetBalanceResponse:
        return await self._answer(request)


class Feed(nft_pb2_grpc.NftServiceServicer):
    """WatchMintStatus streams what the test says."""

    def __init__(self, updates: Callable[[], AsyncIterator[Any]]) -> None:
        self._updates = updates

    async def WatchMintStatus(self, request: Any, context: Any) -> AsyncIterator[Any]:
        async for update in self._updates():
            yield update


def points(answer: Answer) -> Registration:
    return Registration(POINTS, points_pb2_grpc.add_PointsServiceServicer_to_server, Points(answer))


def feed(updates: Callable[[], AsyncIterator[Any]]) -> Registration:
    return Registration(NFT, nft_pb2_grpc.add_NftServiceServicer_to_server, Feed(updates))


def probe(once: Callable[[], Awaitable[None]]) -> Registration:
    """ProbeService: Once may never be repeated; Brief works at most 0.2 s."""

    async def serve(request: Any, context: Any) -> empty_pb2.Empty:
        await once()
        return empty_pb2.Empty()

    handler = grpc.unary_unary_rpc_method_handler(
        serve, empty_pb2.Empty.FromString, empty_pb2.Empty.SerializeToString
    )
    handlers = grpc.method_handlers_generic_handler(PROBE, {"Once": handler, "Brief": handler})
    return Registration(PROBE, lambda _, server: server.add_generic_rpc_handlers([handlers]), None)


async def call_probe(channel: grpc.aio.Channel, method: str, timeout: float | None = None) -> None:
    call = channel.unary_unary(
        f"/{PROBE}/{method}", empty_pb2.Empty.SerializeToString, empty_pb2.Empty.FromString
    )
    await call(empty_pb2.Empty(), timeout=timeout)


def settings(authority: Authority, **overrides: Any) -> ServiceSettings:
    tls = authority.issue("points/points")
    values: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "database_url": "postgresql+psycopg://nobody@localhost/nothing",
        "drain_seconds": 5,
        "tls_cert": tls.cert,
        "tls_key": tls.key,
        "tls_ca": tls.ca,
    }
    return ServiceSettings(**values | overrides)


def serving(
    authority: Authority,
    *registrations: Registration,
    probes: Mapping[str, Callable[[], Awaitable[None]]] | None = None,
    **overrides: Any,
) -> AbstractAsyncContextManager[str]:
    """Serves during the block, which receives the address."""

    @asynccontextmanager
    async def address() -> AsyncIterator[str]:
        chosen = settings(authority, **overrides)
        async with running(chosen, registrations, probes=probes or {}) as port:
            yield f"localhost:{port}"

    return address()


def _declare(name: str, policies: Sequence[tuple[str, policy_pb2.MethodPolicy | None]]) -> None:
    package, _, service_name = name.rpartition(".")
    file = descriptor_pb2.FileDescriptorProto(
        name=f"test/{service_name}.proto",
        package=package,
        syntax="proto3",
        dependency=["google/protobuf/empty.proto", "go2asia/mesh/v1/policy.proto"],
    )
    service = file.service.add(name=service_name)
    for method_name, policy in policies:
        method = service.method.add(
            name=method_name,
            input_type=".google.protobuf.Empty",
            output_type=".google.protobuf.Empty",
        )
        if policy is not None:
            method.options.Extensions[policy_pb2.policy].CopyFrom(policy)
    descriptor_pool.Default().Add(file)


def _policy(retry: policy_pb2.RetryClass.ValueType, largest: float) -> policy_pb2.MethodPolicy:
    policy = policy_pb2.MethodPolicy(roles=[policy_pb2.ROLE_OPERATOR], retry=retry)
    policy.default_deadline.nanos = int(0.15 * 1e9)
    policy.max_deadline.nanos = int(largest * 1e9)
    return policy


_declare(
    PROBE,
    [
        ("Once", _policy(policy_pb2.RETRY_CLASS_NEVER, 0.9)),
        ("Brief", _policy(policy_pb2.RETRY_CLASS_SAFE, 0.2)),
    ],
)
_declare(BARE, [("Anything", None)])

WATCH = nft_pb2.WatchMintStatusRequest(user_id="ada")


async def _serve(certificates: Path) -> None:
    async def answer(request: Any) -> points_pb2.GetBalanceResponse:
        return points_pb2.GetBalanceResponse()

    chosen = settings(Authority(certificates))
    telemetry.start("points", chosen)
    await serve(chosen, [points(answer)], probes={})


if __name__ == "__main__":
    run(_serve(Path(sys.argv[1])))
