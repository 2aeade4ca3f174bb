"""TON as a reward, to a real server that answers as the Gateway's contract says."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from go2asia.gateway.v1 import minting_pb2, minting_pb2_grpc

from chain_gateway.errors import OperationAlreadySent
from connect_svc.clients import Clients
from connect_svc.config import ConnectSettings
from connect_svc.dispatcher import Dispatcher
from connect_svc.records import ActionRecord, State
from connect_svc.reversal_targets import GatewayReversals
from connect_svc.reversing import reverse_event
from connect_svc.targets import GatewayTarget
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.errors import Overloaded
from mesh.idempotency import Key
from mesh.identity import Identity
from mesh.server import Registration, running
from mesh.status import to_item_error
from tests.integration.connect_replica import (
    ConnectDatabase,
    Replica,
    migrated,
    replica,
    rule,
    submission,
)

MINTING = minting_pb2.DESCRIPTOR.services_by_name["MintingService"].full_name
TON = {"key": "ton", "send_ton": {"amount": "5000000", "comment": "Well done"}}


class TinyGateway(minting_pb2_grpc.MintingServiceServicer):
    """Takes transfers; those of `sent` users go out at once, the others can be called off."""

    def __init__(self) -> None:
        self.orders: dict[str, minting_pb2.TransferOrder] = {}
        self.cancelled: list[str] = []

    async def BatchSubmitTransfers(
        self, request: minting_pb2.BatchSubmitTransfersRequest, context: Any
    ) -> minting_pb2.BatchSubmitTransfersResponse:
        response = minting_pb2.BatchSubmitTransfersResponse()
        for order in request.orders:
            if order.user_id == "limited":
                error = Overloaded("The day's transfers are used up.")
                response.results.add().error.CopyFrom(to_item_error(error))
                continue
            self.orders[order.request_id] = order
            response.results.add().operation.operation_id = f"operation-{order.request_id}"
        return response

    async def CancelOperation(
        self, request: minting_pb2.CancelOperationRequest, context: Any
    ) -> minting_pb2.CancelOperationResponse:
        order = self.orders.get(request.operation_request_id)
        if order is not None and order.user_id == "sent":
            raise OperationAlreadySent(operation_id="sent", state="SUBMITTED")
        self.cancelled.append(request.operation_request_id)
        if order is None:
            return minting_pb2.CancelOperationResponse()
        operation = minting_pb2.Operation(operation_id=f"operation-{order.request_id}")
        return minting_pb2.CancelOperationResponse(operation=operation)


@pytest.fixture
async def connect(postgres: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    return await migrated(postgres, make_database)


@asynccontextmanager
async def sending(
    connect: ConnectDatabase, authority: Authority
) -> AsyncIterator[tuple[Replica, TinyGateway]]:
    """Connect's intake and its dispatcher, with a Gateway."""
    tls, gateway_tls = authority.issue("connect/connect"), authority.issue("gateway/gateway")
    elsewhere = "127.0.0.1:1"
    settings = ConnectSettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "database_url": connect.app_url,
            "tls_cert": gateway_tls.cert,
            "tls_key": gateway_tls.key,
            "tls_ca": gateway_tls.ca,
            "points_address": elsewhere,
            "nft_address": elsewhere,
            "gateway_address": elsewhere,
            "nats_url": f"tls://{elsewhere}",
            "drain_seconds": 1,
        }
    )
    gateway = TinyGateway()
    served = Registration(MINTING, minting_pb2_grpc.add_MintingServiceServicer_to_server, gateway)
    async with running(settings, [served], probes={}) as port:
        own = {"tls_cert": tls.cert, "tls_key": tls.key, "gateway_address": f"localhost:{port}"}
        async with (
            replica(connect) as one,
            Clients(settings.model_copy(update=own)) as clients,
            Dispatcher(one.database, [GatewayTarget(clients), GatewayReversals(clients)]) as work,
            replica(connect, work.wake) as running_one,
        ):
            await running_one.create(rule("ton", actions=[TON]))
            yield running_one, gateway


async def take_back(one: Replica, event_id: str) -> None:
    key = Key("operator/ops:ReverseEvent", event_id, b"x")
    await reverse_event(one.database, key, Identity("operator", "ops"), event_id, "fraud")


async def until(one: Replica, event_id: str, wanted: Callable[[ActionRecord], bool]) -> Any:
    deadline = time.monotonic() + 15
    while True:
        [record] = await one.actions_of(event_id)
        if wanted(record):
            return record
        assert time.monotonic() < deadline, record
        await asyncio.sleep(0.02)


async def test_ton_is_ordered_once_and_called_off_while_it_waits(
    connect: ConnectDatabase, authority: Authority
) -> None:
    async with sending(connect, authority) as (one, gateway):
        receipt = await one.intake.submit(submission())
        done = await until(one, receipt.event_id, lambda r: r.state is State.COMPLETED)
        [action_id] = receipt.action_ids
        assert done.result == f"operation-{action_id}"
        order = gateway.orders[action_id]
        assert (order.user_id, order.amount_nanoton, order.comment) == (
            "ada",
            5_000_000,
            "Well done",
        )
        await take_back(one, receipt.event_id)
        back = await until(one, receipt.event_id, lambda r: r.state is State.REVERSED)
        assert back.reversal_result == f"operation-{action_id}"
        assert gateway.cancelled == [action_id]


async def test_what_went_out_stands_and_the_action_says_why(
    connect: ConnectDatabase, authority: Authority
) -> None:
    async with sending(connect, authority) as (one, _):
        receipt = await one.intake.submit(submission(actor_user_id="sent"))
        await until(one, receipt.event_id, lambda r: r.state is State.COMPLETED)
        await take_back(one, receipt.event_id)
        stands = await until(one, receipt.event_id, lambda r: r.state is State.REVERSAL_FAILED)
        assert stands.reversal_error.startswith("OPERATION_ALREADY_SENT: ")
        assert stands.result != ""


async def test_a_reward_beyond_the_day_s_limit_waits_and_can_be_taken_back(
    connect: ConnectDatabase, authority: Authority
) -> None:
    async with sending(connect, authority) as (one, gateway):
        receipt = await one.intake.submit(submission(actor_user_id="limited"))
        waiting = await until(one, receipt.event_id, lambda r: r.last_error != "")
        assert "The day's transfers are used up." in waiting.last_error
        assert waiting.state is not State.FAILED
        await take_back(one, receipt.event_id)
        back = await until(one, receipt.event_id, lambda r: r.state is State.REVERSED)
        assert back.reversal_result == "", "the Gateway never had it"
        assert gateway.cancelled == list(receipt.action_ids)
