"""Connect's intake and dispatcher before a real server that answers as a test says."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from go2asia.connect.v1 import rules_pb2
from go2asia.points.v1 import points_pb2, points_pb2_grpc

from connect_svc.clients import Clients
from connect_svc.config import ConnectSettings
from connect_svc.dispatcher import Dispatcher
from connect_svc.records import ActionRecord
from connect_svc.store import ActionStore
from connect_svc.targets import PointsTarget
from devstack.certificates import Authority
from mesh import status, telemetry
from mesh.errors import Internal, MeshError
from mesh.server import Registration, running
from tests.integration.connect_replica import ConnectDatabase, Replica, replica, rule

POINTS = points_pb2.DESCRIPTOR.services_by_name["PointsService"].full_name
Answer = Callable[[points_pb2.AwardRequest], Awaitable[MeshError | None]]


class TinyPoints(points_pb2_grpc.PointsServiceServicer):
    """BatchPost asks the test about each award; the transaction's id is the request's."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.calls: list[int] = []
        self.traces: list[str] = []

    async def BatchPost(self, request: Any, context: Any) -> points_pb2.BatchPostResponse:
        self.calls.append(len(request.items))
        self.traces.append((telemetry.traceparent() or "").split("-")[1])
        response = points_pb2.BatchPostResponse()
        for item in request.items:
            error = await self._answer(item.award)
            if error is None:
                response.results.add().transaction.transaction_id = item.award.request_id
            elif isinstance(error, Internal):
                raise error
            else:
                response.results.add().error.CopyFrom(status.to_item_error(error))
        return response


@asynccontextmanager
async def dispatching(
    connect: ConnectDatabase,
    authority: Authority,
    answer: Answer,
    rules: Sequence[rules_pb2.Rule] = (rule("quest-reward"),),
) -> AsyncIterator[tuple[Replica, TinyPoints]]:
    """Connect's intake and its dispatcher, with a Points that answers so and these new rules."""
    tls, points_tls = authority.issue("connect/connect"), authority.issue("points/points")
    settings = ConnectSettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "database_url": connect.app_url,
            "tls_cert": points_tls.cert,
            "tls_key": points_tls.key,
            "tls_ca": points_tls.ca,
            "points_address": "127.0.0.1:1",
            "nft_address": "127.0.0.1:1",
            "nats_url": "tls://127.0.0.1:1",
            "drain_seconds": 1,
        }
    )
    points = TinyPoints(answer)
    served = Registration(POINTS, points_pb2_grpc.add_PointsServiceServicer_to_server, points)
    async with running(settings, [served], probes={}) as port:
        own = {"tls_cert": tls.cert, "tls_key": tls.key, "points_address": f"localhost:{port}"}
        async with (
            replica(connect) as one,
            Clients(settings.model_copy(update=own)) as clients,
            Dispatcher(one.database, [PointsTarget(clients)]) as dispatcher,
            replica(connect, dispatcher.wake) as sending,
        ):
            for made in rules:
                await sending.create(made)
            yield sending, points


async def until(
    one: Replica, action_id: str, wanted: Callable[[ActionRecord], bool]
) -> ActionRecord:
    deadline = time.monotonic() + 15
    while True:
        async with one.database.transaction(read_only=True) as connection:
            record = await ActionStore(connection).get(action_id)
        assert record is not None
        if wanted(record):
            return record
        assert time.monotonic() < deadline, record
        await asyncio.sleep(0.02)
