"""The reward story over real processes: Connect, Points and NFT, some late, some killed."""

import signal
from collections.abc import Callable
from typing import Any

from go2asia.connect.v1 import events_pb2, events_pb2_grpc, reward_actions_pb2_grpc
from go2asia.nft.v1 import nft_pb2, nft_pb2_grpc
from go2asia.points.v1 import points_pb2, points_pb2_grpc

from tests.integration.connect_replica import POINTS, event, rule
from tests.rpc.reward_processes import (
    RewardAction,
    Services,
    balance,
    count,
    create_badge,
    create_rule,
    eventually,
    get,
    pending,
)


async def test_rewards_outlive_outages_and_kills(
    services: Services, channel: Callable[..., Any]
) -> None:
    for name in ("connect", "nft"):
        services.start(name)
    manager = await channel("connect", "economy-manager/ann")
    quest = events_pb2_grpc.EventServiceStub(await channel("connect", "domain-service/quest"))
    actions = reward_actions_pb2_grpc.RewardActionServiceStub(
        await channel("connect", "operator/ops")
    )
    points = points_pb2_grpc.PointsServiceStub(await channel("points", "operator/ops"))
    nft = await channel("nft", "economy-manager/ann")

    badge = {"key": "badge", "increment_progress": {"nft_type": "explorer", "counter": "quests"}}
    fee = {"key": "fee", "debit_points": {"unit": "XP", "amount": "5"}}
    await create_rule(manager, rule("quest-reward", actions=[POINTS, badge]))
    await create_rule(manager, rule("entry-fee", event_type="arena.entered", actions=[fee]))
    await create_badge(nft)

    # Points is not there: the event is taken in all the same, and only its points wait.
    sent = [event(external_id=f"quest-{number}") for number in range(30)]
    request = events_pb2.BatchSubmitEventsRequest(events=sent)
    results = (await quest.BatchSubmitEvents(request)).results
    assert all(result.HasField("receipt") for result in results)
    await eventually(lambda: count(actions), lambda c: (c.completed, c.failed) == (30, 0))
    [waiting] = await eventually(
        lambda: pending(actions, 1), lambda found: [a for a in found if a.last_error]
    )
    assert waiting.attempts >= 1
    assert "UNAVAILABLE" in waiting.last_error

    # Points comes up, and dies with rewards on their way.
    services.start("points")
    more = [event(external_id=f"more-{number}") for number in range(200)]
    await quest.BatchSubmitEvents(events_pb2.BatchSubmitEventsRequest(events=more))
    await eventually(lambda: count(actions), lambda c: c.completed > 240)
    services.end("points", signal.SIGKILL)
    services.start("points")
    await eventually(lambda: count(actions), lambda c: (c.completed, c.failed) == (460, 0))
    assert (await balance(points, "G2A")).posted == 2300

    # Connect dies too, and still knows what it did.
    services.end("connect", signal.SIGKILL)
    services.start("connect")
    repeated = await eventually(lambda: quest.BatchSubmitEvents(request), bool)
    assert all(result.receipt.duplicate for result in repeated.results)
    told = await quest.GetEvent(events_pb2.GetEventRequest(event_id=results[0].receipt.event_id))
    booked, progressed = told.actions
    transaction = await points.GetTransaction(
        points_pb2.GetTransactionRequest(transaction_id=booked.result)
    )
    assert transaction.transaction.request_id == booked.action_id
    reader = nft_pb2_grpc.NftServiceStub(await channel("nft", "bff/web"))
    instance = (await reader.GetNft(nft_pb2.GetNftRequest(nft_id=progressed.result))).nft
    assert (instance.user_id, instance.level) == ("ada", 1)

    # What the target refuses is given up, with the reason.
    receipt = (
        await quest.SubmitEvent(
            events_pb2.SubmitEventRequest(event=event(event_type="arena.entered"))
        )
    ).receipt
    refused = await eventually(
        lambda: get(actions, receipt.action_ids[0]),
        lambda action: action.state == RewardAction.STATE_FAILED,
    )
    assert refused.last_error.startswith("INSUFFICIENT_FUNDS: ")
    assert (await balance(points, "XP")).posted == 0

    assert services.end("connect", signal.SIGTERM) == 0
