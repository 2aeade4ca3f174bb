"""Clawbacks over real processes: racing the dispatch, through kills, after the spending.

A run prints its seed; `SEED=…` repeats its choices.
"""

import asyncio
import os
import random
import signal
from collections.abc import Callable
from typing import Any

import pytest
from go2asia.connect.v1 import events_pb2, events_pb2_grpc, reward_actions_pb2_grpc
from go2asia.nft.v1 import nft_pb2, nft_pb2_grpc
from go2asia.points.v1 import points_pb2, points_pb2_grpc

from connect_svc.lanes import LEASE
from tests.integration.connect_replica import POINTS, event, rule
from tests.rpc.reward_processes import (
    PATIENCE_SECONDS,
    RewardAction,
    Services,
    balance,
    count,
    create_badge,
    create_rule,
    eventually,
)

BADGE = {"key": "badge", "increment_progress": {"nft_type": "explorer", "counter": "quests"}}
MEDAL = {"key": "medal", "grant_nft": {"nft_type": "explorer"}}


@pytest.fixture
def chance() -> random.Random:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    return random.Random(seed)


class Mesh:
    """The stubs of those who take part."""

    @classmethod
    async def start(cls, services: Services, channel: Callable[..., Any]) -> "Mesh":
        mesh = cls()
        for name in ("connect", "points", "nft"):
            services.start(name)
        mesh.manager = await channel("connect", "economy-manager/ann")
        mesh.quest = events_pb2_grpc.EventServiceStub(
            await channel("connect", "domain-service/quest")
        )
        operator = await channel("connect", "operator/ops")
        mesh.events = events_pb2_grpc.EventServiceStub(operator)
        mesh.actions = reward_actions_pb2_grpc.RewardActionServiceStub(operator)
        mesh.points = points_pb2_grpc.PointsServiceStub(await channel("points", "operator/ops"))
        nft = await channel("nft", "operator/ops")
        mesh.nft = nft_pb2_grpc.NftServiceStub(nft)
        mesh.badges = await channel("nft", "economy-manager/ann")
        await create_badge(mesh.badges)
        await eventually(lambda: balance(mesh.points, "G2A"), lambda _: True)
        return mesh

    manager: Any
    quest: Any
    events: Any
    actions: Any
    points: Any
    nft: Any
    badges: Any

    async def submit(self, sent: events_pb2.Event) -> events_pb2.EventReceipt:
        request = events_pb2.SubmitEventRequest(event=sent)
        response = await eventually(lambda: self.quest.SubmitEvent(request), bool)
        receipt: events_pb2.EventReceipt = response.receipt
        return receipt

    async def reverse(self, sent: events_pb2.Event) -> events_pb2.ReverseEventResponse:
        key = events_pb2.ExternalKey(source=sent.source, external_id=sent.external_id)
        request = events_pb2.ReverseEventRequest(
            request_id=f"back-{sent.external_id}", external_key=key, reason="fraud"
        )
        answer: events_pb2.ReverseEventResponse = await eventually(
            lambda: self.quest.ReverseEvent(request), bool
        )
        return answer

    async def story(self, event_id: str) -> events_pb2.GetEventResponse:
        request = events_pb2.GetEventRequest(event_id=event_id)
        story: events_pb2.GetEventResponse = await self.quest.GetEvent(request)
        return story

    async def at_rest(self) -> Any:
        """The counts of actions, when none is under way; what a kill left comes with its lease."""
        return await eventually(
            lambda: count(self.actions),
            lambda c: not (c.pending + c.dispatched + c.reversing),
            patience=LEASE.total_seconds() + PATIENCE_SECONDS,
        )

    async def check_nothing_left(self, users: list[str]) -> None:
        """All balances are zero by at most one award and its reversal, all progress is gone."""
        for user in users:
            left = await balance(self.points, "G2A", user)
            assert (left.posted, left.held, left.owed) == (0, 0, 0), user
            listed = await self.points.ListTransactions(
                points_pb2.ListTransactionsRequest(user_id=user)
            )
            assert len(listed.transactions) in (0, 2), user
            asked = nft_pb2.GetProgressRequest(user_id=user, nft_type="explorer")
            progress = (await self.nft.GetProgress(asked)).progress
            assert (progress.counters["quests"], progress.level, progress.grants) == (0, 0, 0), user


async def test_a_clawback_racing_a_dispatch_leaves_the_user_at_zero_once(
    services: Services, channel: Callable[..., Any], chance: random.Random
) -> None:
    mesh = await Mesh.start(services, channel)
    await create_rule(mesh.manager, rule("quest-reward", actions=[POINTS, BADGE, MEDAL]))
    users = [f"user-{number}" for number in range(80)]
    sent = [event(external_id=user, actor_user_id=user) for user in users]

    async def race(one: events_pb2.Event, before: float, between: float) -> None:
        async def late(work: Callable[..., Any], delay: float) -> None:
            await asyncio.sleep(delay)
            await work(one)

        # The reversal is up to 20 ms early, and up to 150 ms late.
        await asyncio.gather(late(mesh.submit, before), late(mesh.reverse, before + between))

    for start in range(0, len(sent), 20):
        await asyncio.gather(
            *(
                race(one, chance.uniform(0.02, 0.2), chance.uniform(-0.02, 0.15))
                for one in sent[start : start + 20]
            )
        )
    counts = await mesh.at_rest()
    assert (counts.completed, counts.failed, counts.reversal_failed) == (0, 0, 0)
    print(f"reversed {counts.reversed}, cancelled {counts.cancelled}")
    assert counts.reversed > 0
    await mesh.check_nothing_left(users)


async def test_kills_amid_reversals_heal(
    services: Services, channel: Callable[..., Any], chance: random.Random
) -> None:
    mesh = await Mesh.start(services, channel)
    await create_rule(mesh.manager, rule("quest-reward", actions=[POINTS, BADGE, MEDAL]))
    users = [f"user-{number}" for number in range(60)]
    sent = [event(external_id=user, actor_user_id=user) for user in users]
    first = events_pb2.BatchSubmitEventsRequest(events=sent[:40])
    await eventually(lambda: mesh.quest.BatchSubmitEvents(first), bool)
    assert (await mesh.at_rest()).completed == 120

    # Points dies with awards and reversals on their way, and Connect twice amid all that.
    services.end("points", signal.SIGKILL)
    second = events_pb2.BatchSubmitEventsRequest(events=sent[40:])
    await eventually(lambda: mesh.quest.BatchSubmitEvents(second), bool)
    taking = asyncio.gather(*(mesh.reverse(one) for one in sent))
    await asyncio.sleep(chance.uniform(0, 0.3))
    services.end("connect", signal.SIGKILL)
    services.start("points")
    services.start("connect")
    answers = await taking
    await asyncio.sleep(chance.uniform(0, 0.5))
    services.end("connect", signal.SIGKILL)
    services.start("connect")
    counts = await mesh.at_rest()
    assert (counts.completed, counts.failed, counts.reversal_failed) == (0, 0, 0)
    assert counts.reversed + counts.cancelled == 180
    assert await asyncio.gather(*(mesh.reverse(one) for one in sent)) == answers
    await mesh.check_nothing_left(users)


async def test_what_was_spent_is_owed_and_a_mint_goes_with_its_badge(
    services: Services, channel: Callable[..., Any]
) -> None:
    mesh = await Mesh.start(services, channel)
    await create_badge(mesh.badges, "token", "ON_REQUEST")
    token = {"key": "token", "mint_onchain": {"nft_type": "token"}}
    fee = {"key": "fee", "debit_points": {"unit": "XP", "amount": "5"}}
    await create_rule(mesh.manager, rule("all-kinds", actions=[POINTS, fee, MEDAL, token]))
    sent = event(external_id="all-kinds")
    receipt = await mesh.submit(sent)
    counts = await mesh.at_rest()
    assert (counts.completed, counts.failed) == (3, 1)
    minted = (await mesh.story(receipt.event_id)).actions[3]
    request = nft_pb2.GetNftRequest(nft_id=minted.result)
    badge = (await mesh.nft.GetNft(request)).nft
    assert (badge.nft_type, badge.level, bool(badge.mint_id)) == ("token", 1, True)

    spent = points_pb2.PostingDetails(user_id="ada", unit="G2A", amount=6, reason="shop")
    await mesh.points.Spend(points_pb2.SpendRequest(request_id="shop", posting=spent))
    await mesh.reverse(sent)
    await mesh.at_rest()
    points, refused, medal, minted = (await mesh.story(receipt.event_id)).actions
    states = {points.state, refused.state, medal.state, minted.state}
    assert states == {RewardAction.STATE_REVERSED}
    assert points.result != points.reversal_result != ""
    assert refused.last_error.startswith("INSUFFICIENT_FUNDS: ")
    assert refused.reversal_result == "", "the target never had it"
    owed = await balance(mesh.points, "G2A")
    assert (owed.posted, owed.owed) == (0, 6)
    assert (await mesh.nft.GetNft(request)).nft.level == 0

    funded = points_pb2.PostingDetails(user_id="ada", unit="XP", amount=50, reason="gift")
    await mesh.points.Award(points_pb2.AwardRequest(request_id="gift", posting=funded))
    other = await mesh.submit(event(external_id="all-kinds-2"))
    await mesh.at_rest()
    assert (await mesh.story(other.event_id)).actions[1].state == RewardAction.STATE_COMPLETED
    left = await balance(mesh.points, "G2A")
    assert (left.posted, left.owed) == (4, 0), "the next award repaid the debt"
