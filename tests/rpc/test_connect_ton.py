"""TON as a reward: from an event that Connect takes in to the recipient's wallet on the devnet.

Connect and the Gateway are processes, so that Connect knows of the Gateway's refusals only what
the wire carries.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from go2asia.connect.v1 import events_pb2
from go2asia.gateway.v1 import minting_pb2

from devstack.postgres import Cluster
from tests.integration.connect_replica import event, rule
from tests.integration.gateway_inside import received_by
from tests.integration.gateway_stage import Callers, Stage, UserWallet, calling, playing, serving
from tests.rpc.connect_callers import MANAGER, QUEST, Caller, callers
from tests.rpc.reward_processes import RewardAction, Services, eventually

MILLI_TON = 1_000_000
DAILY_LIMIT = 100 * MILLI_TON
GIFTS = {
    "quest.completed": 5 * MILLI_TON,
    "race.won": 60 * MILLI_TON,
    "lottery.won": DAILY_LIMIT + 1,
}
LIMIT_REACHED = "TRANSFER_LIMIT_REACHED: "


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    limit = {"GATEWAY_TRANSFER_DAILY_LIMIT_NANOTON": str(DAILY_LIMIT)}
    folder = tmp_path_factory.mktemp("ton")
    with playing(folder, postgres, make_database(), settings=limit) as stage:
        yield stage


@dataclass(frozen=True)
class Mesh:
    """Connect with its rules, and the Gateway it orders from."""

    stage: Stage
    gateway: Callers
    quest: Caller

    async def submit(self, sent: list[events_pb2.Event]) -> list[str]:
        """The ids of the events, in order."""
        request = events_pb2.BatchSubmitEventsRequest(events=sent)
        response = await self.quest.events.BatchSubmitEvents(request)
        return [result.receipt.event_id for result in response.results]

    async def take_back(self, event_id: str) -> None:
        request = events_pb2.ReverseEventRequest(
            request_id=str(uuid4()), event_id=event_id, reason="fraud"
        )
        await self.quest.events.ReverseEvent(request)

    async def action(self, event_id: str) -> Any:
        request = events_pb2.GetEventRequest(event_id=event_id)
        [action] = (await self.quest.events.GetEvent(request)).actions
        return action

    async def action_in(self, state: str, event_id: str) -> Any:
        """The event's action, once it is in this state."""
        wanted = RewardAction.State.Value(f"STATE_{state}")
        return await eventually(lambda: self.action(event_id), lambda a: a.state == wanted)

    async def operation_in(self, state: str, operation_id: str) -> minting_pb2.Operation:
        """The Gateway's operation, once it is in this state."""
        wanted = minting_pb2.OperationState.Value(f"OPERATION_STATE_{state}")
        operation: minting_pb2.Operation = await eventually(
            lambda: self.gateway.operation(operation_id), lambda o: o.state == wanted
        )
        return operation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def mesh(
    stage: Stage, postgres: Cluster, make_database: Callable[[], str]
) -> AsyncIterator[Mesh]:
    services = Services(postgres, make_database, stage.authority, gateway_port=stage.port)
    stage.environment["GATEWAY_NFT_ADDRESS"] = services.address("nft")  # hears of no transfer
    services.start("connect")
    try:
        async with (
            calling(stage) as gateway,
            callers(services.address("connect"), stage.authority) as act,
        ):
            for event_type, amount in GIFTS.items():
                ton = {"key": "ton", "send_ton": {"amount": str(amount), "comment": "Well done"}}
                made = rule(event_type.replace(".", "-"), event_type, actions=[ton])
                await eventually(partial(act(MANAGER).create, made), bool)
            yield Mesh(stage, gateway, act(QUEST))
    finally:
        services.end_all()


pytestmark = pytest.mark.asyncio(loop_scope="module")


def happened(event_type: str, user_id: str) -> events_pb2.Event:
    return event(event_type=event_type, actor_user_id=user_id)


async def test_ton_reaches_a_linked_wallet_once(stage: Stage, mesh: Mesh) -> None:
    """Though the Gateway dies with orders on their way and the events come twice."""
    wallet = UserWallet()
    await mesh.gateway.link("anh", wallet)
    sent = [happened("quest.completed", "anh") for _ in range(8)]
    event_ids = await mesh.submit(sent)
    stage.kill()
    stage.start()
    await serving(mesh.gateway, stage)
    assert await mesh.submit(sent) == event_ids
    for event_id in event_ids:
        action = await mesh.action_in("COMPLETED", event_id)
        operation = await mesh.operation_in("FINALIZED", action.result)
        assert operation.request_id == action.action_id
        assert operation.owner_address == wallet.address
    assert await received_by(stage, wallet) == [(5 * MILLI_TON, "Well done")] * 8


async def test_what_was_sent_stands_and_the_action_says_why(stage: Stage, mesh: Mesh) -> None:
    wallet = UserWallet()
    await mesh.gateway.link("bao", wallet)
    [event_id] = await mesh.submit([happened("quest.completed", "bao")])
    action = await mesh.action_in("COMPLETED", event_id)
    await mesh.operation_in("FINALIZED", action.result)
    await mesh.take_back(event_id)
    stands = await mesh.action_in("REVERSAL_FAILED", event_id)
    assert stands.reversal_error.startswith("OPERATION_ALREADY_SENT: ")
    assert (stands.result, stands.reversal_result) == (action.result, "")
    assert await received_by(stage, wallet) == [(5 * MILLI_TON, "Well done")]


async def test_what_waits_for_a_wallet_is_called_off(stage: Stage, mesh: Mesh) -> None:
    taken_back, kept = await mesh.submit([happened("quest.completed", "chau") for _ in range(2)])
    waits = await mesh.action_in("COMPLETED", taken_back)
    await mesh.action_in("COMPLETED", kept)
    await mesh.operation_in("AWAITING_WALLET", waits.result)
    await mesh.take_back(taken_back)
    back = await mesh.action_in("REVERSED", taken_back)
    assert back.reversal_result == waits.result
    await mesh.operation_in("CANCELLED", waits.result)
    wallet = UserWallet()
    assert (await mesh.gateway.link("chau", wallet)).released_operations == 1
    await mesh.operation_in("FINALIZED", (await mesh.action(kept)).result)
    assert await received_by(stage, wallet) == [(5 * MILLI_TON, "Well done")]


async def test_beyond_the_day_s_limit_a_reward_waits_and_says_so(stage: Stage, mesh: Mesh) -> None:
    """It goes out when there is room again: here, because another one is called off."""
    [first] = await mesh.submit([happened("race.won", "dao")])
    await mesh.action_in("COMPLETED", first)
    [second] = await mesh.submit([happened("race.won", "dao")])
    waits = await eventually(lambda: mesh.action(second), lambda a: a.last_error)
    assert waits.last_error.startswith(LIMIT_REACHED)
    assert f"{40 * MILLI_TON} are left today" in waits.last_error
    assert waits.state == RewardAction.STATE_PENDING
    await mesh.take_back(first)
    await mesh.action_in("REVERSED", first)
    went = await mesh.action_in("COMPLETED", second)
    assert went.last_error == ""
    wallet = UserWallet()
    assert (await mesh.gateway.link("dao", wallet)).released_operations == 1
    await mesh.operation_in("FINALIZED", went.result)
    assert await received_by(stage, wallet) == [(60 * MILLI_TON, "Well done")]


async def test_one_refused_reward_of_a_batch_waits_alone_and_can_be_taken_back(mesh: Mesh) -> None:
    won = ["quest.completed"] * 3 + ["lottery.won"] + ["quest.completed"] * 3
    event_ids = await mesh.submit([happened(event_type, "giang") for event_type in won])
    refused = event_ids.pop(3)
    given = [await mesh.action_in("COMPLETED", event_id) for event_id in event_ids]
    assert {action.attempts for action in given} == {1}
    waits = await eventually(lambda: mesh.action(refused), lambda a: a.last_error)
    assert waits.last_error.startswith(LIMIT_REACHED)
    assert waits.state == RewardAction.STATE_PENDING
    await mesh.take_back(refused)
    back = await mesh.action_in("REVERSED", refused)
    assert (back.result, back.reversal_result) == ("", ""), "the Gateway never had it"
