"""Reward actions become typed commands of their target, whole batches in one call.

The action's id is the command's request id: however often an action is sent, it takes effect once.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, cast

from go2asia.connect.v1.reward_actions_pb2 import RewardAction
from go2asia.gateway.v1 import minting_pb2
from go2asia.mesh.v1.item_error_pb2 import ItemError
from go2asia.nft.v1 import rewards_pb2
from go2asia.points.v1 import points_pb2

from connect_svc.clients import Clients
from connect_svc.lanes import GATEWAY, NFT, POINTS
from mesh import status, telemetry
from mesh.errors import Kind, MeshError, Unavailable
from mesh.outbox import Claim, Dead, Done, Outcome, Retry

_OUR_OWN_FAULT = (Kind.PERMISSION_DENIED, Kind.UNAUTHENTICATED)


class Target(ABC):
    """Handles the claims of one lane; what a target made of an action is its outcome's result."""

    lane: ClassVar[str]
    batch: ClassVar[int] = 200

    async def __call__(self, claims: Sequence[Claim]) -> Sequence[Outcome]:
        """One outcome a claim. Raises a `MeshError` when the call as a whole failed."""
        actions = [RewardAction.FromString(claim.payload) for claim in claims]
        # A batch has one span, so it continues the trace of its oldest action.
        with telemetry.continue_trace(claims[0].traceparent, f"dispatch {self.lane}"):
            try:
                return await self.deliver(actions)
            except MeshError as error:
                if error.kind in _OUR_OWN_FAULT:
                    # A wrong certificate says nothing about the rewards: hold them all back.
                    raise Unavailable(f"{self.lane} refuses this service: {error}") from error
                if error.transient or len(claims) > 1:
                    raise
                return [_verdict(error)]

    @abstractmethod
    async def deliver(self, actions: Sequence[RewardAction]) -> Sequence[Outcome]:
        """Sends the actions in one call; one outcome each, in order."""


class UnaryTarget(Target):
    """A target without a batch call: one call an action, as many at once as a batch holds.

    The services commit in groups whatever arrives together. All calls of a batch fit into the
    lease, because none waits for another.
    """

    batch = 16

    async def deliver(self, actions: Sequence[RewardAction]) -> Sequence[Outcome]:
        """Sends each action in a call of its own.

        Raises a transient error when no call got through, so that the breaker hears of it.
        """
        calls = (self.send(action) for action in actions)
        answers = await asyncio.gather(*calls, return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        for error in errors:
            ours = isinstance(error, MeshError) and error.kind in _OUR_OWN_FAULT
            if ours or not isinstance(error, MeshError):
                raise error
        transient = [error for error in errors if isinstance(error, MeshError) and error.transient]
        if len(transient) == len(actions):
            raise transient[0]
        return [
            _verdict(answer) if isinstance(answer, MeshError) else cast(Outcome, answer)
            for answer in answers
        ]

    @abstractmethod
    async def send(self, action: RewardAction) -> Outcome:
        """Sends one action; raises a `MeshError` when it was refused or the call failed."""


class PointsTarget(Target):
    """Books credits and debits in Points; the result is the transaction's id."""

    lane = POINTS

    def __init__(self, clients: Clients) -> None:
        self._points = clients.points

    async def deliver(self, actions: Sequence[RewardAction]) -> Sequence[Outcome]:
        """Sends the actions in one call; one outcome each, in order."""
        request = points_pb2.BatchPostRequest(items=[post_item(action) for action in actions])
        response = await self._points.BatchPost(request)
        return [
            _refused(result.error)
            if result.HasField("error")
            else Done(result.transaction.transaction_id)
            for result in response.results
        ]


class NftTarget(Target):
    """Raises progress and gives badges in NFT; the result is the instance's id, if there is one."""

    lane = NFT

    def __init__(self, clients: Clients) -> None:
        self._rewards = clients.rewards

    async def deliver(self, actions: Sequence[RewardAction]) -> Sequence[Outcome]:
        """Sends progress in one call and badges in another; one outcome each, in order."""
        progress = [each for each in actions if each.HasField("increment_progress")]
        badges = [each for each in actions if not each.HasField("increment_progress")]
        raised, given = await self._raise(progress), await self._give(badges)
        results = dict(zip((each.action_id for each in progress), raised, strict=True))
        results |= zip((each.action_id for each in badges), given, strict=True)
        return [_rewarded(results[action.action_id]) for action in actions]

    async def _raise(
        self, actions: Sequence[RewardAction]
    ) -> Sequence[rewards_pb2.ApplyRewardResult]:
        if not actions:
            return ()
        request = rewards_pb2.BatchApplyRewardsRequest(rewards=[reward(each) for each in actions])
        return (await self._rewards.BatchApplyRewards(request)).results

    async def _give(
        self, actions: Sequence[RewardAction]
    ) -> Sequence[rewards_pb2.ApplyRewardResult]:
        if not actions:
            return ()
        request = rewards_pb2.BatchGrantNftsRequest(grants=[grant(each) for each in actions])
        return (await self._rewards.BatchGrantNfts(request)).results


class GatewayTarget(Target):
    """Orders transfers of TON at the Gateway; the result is the operation's id."""

    lane = GATEWAY

    def __init__(self, clients: Clients) -> None:
        self._minting = clients.minting

    async def deliver(self, actions: Sequence[RewardAction]) -> Sequence[Outcome]:
        """Sends the actions in one call; one outcome each, in order."""
        orders = [transfer(action) for action in actions]
        request = minting_pb2.BatchSubmitTransfersRequest(orders=orders)
        response = await self._minting.BatchSubmitTransfers(request)
        return [
            _refused(result.error)
            if result.HasField("error")
            else Done(result.operation.operation_id)
            for result in response.results
        ]


OUT = (PointsTarget, NftTarget, GatewayTarget)


def post_item(action: RewardAction) -> points_pb2.PostItem:
    """The booking that the action asks for; the rule is its reason, the event its reference."""
    debit = action.WhichOneof("command") == "debit_points"
    command = action.debit_points if debit else action.credit_points
    posting = points_pb2.PostingDetails(
        user_id=action.recipient_user_id,
        unit=command.unit,
        amount=command.amount,
        reason=action.rule_id,
        reference=action.event_id,
        metadata={"rule_version": str(action.rule_version), "action_key": action.action_key},
    )
    if debit:
        spend = points_pb2.SpendRequest(request_id=action.action_id, posting=posting)
        return points_pb2.PostItem(spend=spend)
    award = points_pb2.AwardRequest(request_id=action.action_id, posting=posting)
    return points_pb2.PostItem(award=award)


def reward(action: RewardAction) -> rewards_pb2.ApplyRewardRequest:
    """The progress that the action asks for; the event is its reference."""
    command = action.increment_progress
    return rewards_pb2.ApplyRewardRequest(
        request_id=action.action_id,
        user_id=action.recipient_user_id,
        nft_type=command.nft_type,
        counter=command.counter,
        increment=command.amount,
        reference=action.event_id,
    )


def grant(action: RewardAction) -> rewards_pb2.GrantNftRequest:
    """The badge that the action asks for, to be minted or not; the event is its reference."""
    mint = action.WhichOneof("command") == "mint_onchain"
    command = action.mint_onchain if mint else action.grant_nft
    return rewards_pb2.GrantNftRequest(
        request_id=action.action_id,
        user_id=action.recipient_user_id,
        nft_type=command.nft_type,
        reference=action.event_id,
        mint_onchain=mint,
    )


def transfer(action: RewardAction) -> minting_pb2.TransferOrder:
    """The transfer that the action asks for."""
    return minting_pb2.TransferOrder(
        request_id=action.action_id,
        user_id=action.recipient_user_id,
        amount_nanoton=action.send_ton.amount,
        comment=action.send_ton.comment,
    )


def _rewarded(result: rewards_pb2.ApplyRewardResult) -> Outcome:
    return _refused(result.error) if result.HasField("error") else Done(result.outcome.nft_id)


def _refused(error: ItemError) -> Outcome:
    return _verdict(status.from_item_error(error))


def _verdict(error: MeshError) -> Retry | Dead:
    """What the target's error means for one action.

    A defect of the target is no refusal of the reward: it is tried again until attempts run out.
    """
    said = f"{error.reason}: {error.message}"
    return Retry(said) if error.transient or error.kind is Kind.INTERNAL else Dead(said)
