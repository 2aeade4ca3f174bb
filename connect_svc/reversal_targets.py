"""Reward actions taken back at their targets, also before they arrive there.

The reversal's request id is derived from the action's: however often it is sent, it takes effect
once. Each target leaves a tombstone for an action that it does not have.
"""

from typing import Final

from go2asia.connect.v1.reward_actions_pb2 import RewardAction
from go2asia.gateway.v1 import minting_pb2
from go2asia.nft.v1 import rewards_pb2
from go2asia.points.v1 import points_pb2

from connect_svc.clients import Clients
from connect_svc.lanes import GATEWAY_REVERSALS, NFT_REVERSALS, POINTS_REVERSALS
from connect_svc.targets import UnaryTarget
from mesh.errors import MeshError
from mesh.outbox import Done, Outcome

REASON: Final = "event-reversed"


class PointsReversals(UnaryTarget):
    """Reverses bookings in Points; the result is the reversal's transaction id."""

    lane = POINTS_REVERSALS

    def __init__(self, clients: Clients) -> None:
        self._points = clients.points

    async def send(self, action: RewardAction) -> Outcome:
        """Takes one action back; raises a `MeshError` when that was refused or the call failed."""
        try:
            response = await self._points.ReverseTransaction(points_reversal(action))
        except MeshError as error:
            if error.reason == "REVERSAL_EXCEEDS" and error.metadata.get("left") == "0":
                return Done("")  # an operator of Points reversed all of it before
            raise
        return Done(response.transaction.transaction_id)


class NftReversals(UnaryTarget):
    """Takes progress and badges back in NFT; the result is the instance's id.

    What is on chain, or on its way there, follows the badge: that is NFT's own work.
    """

    lane = NFT_REVERSALS

    def __init__(self, clients: Clients) -> None:
        self._rewards = clients.rewards

    async def send(self, action: RewardAction) -> Outcome:
        """Takes one action back; raises a `MeshError` when that was refused or the call failed."""
        outcome = (await self._rewards.RevertReward(nft_reversal(action))).outcome
        return Done(outcome.nft_id)


class GatewayReversals(UnaryTarget):
    """Calls transfers off that were not sent yet; the result is the operation's id.

    One that was sent, or may have been, is refused: OPERATION_ALREADY_SENT.
    """

    lane = GATEWAY_REVERSALS

    def __init__(self, clients: Clients) -> None:
        self._minting = clients.minting

    async def send(self, action: RewardAction) -> Outcome:
        """Takes one action back; raises a `MeshError` when that was refused or the call failed."""
        response = await self._minting.CancelOperation(cancellation(action))
        return Done(response.operation.operation_id)


BACK = (PointsReversals, NftReversals, GatewayReversals)


def points_reversal(action: RewardAction) -> points_pb2.ReverseTransactionRequest:
    """The whole of the booking that the action asked for, booked or not."""
    debit = action.HasField("debit_points")
    kind = points_pb2.TRANSACTION_KIND_SPEND if debit else points_pb2.TRANSACTION_KIND_AWARD
    return points_pb2.ReverseTransactionRequest(
        request_id=_request_id(action),
        original_request=points_pb2.OriginalRequest(kind=kind, request_id=action.action_id),
        reason=REASON,
    )


def nft_reversal(action: RewardAction) -> rewards_pb2.RevertRewardRequest:
    """What the action asked for in NFT, applied or not; the event is the reference."""
    return rewards_pb2.RevertRewardRequest(
        request_id=_request_id(action),
        original_request_id=action.action_id,
        reference=action.event_id,
    )


def cancellation(action: RewardAction) -> minting_pb2.CancelOperationRequest:
    """The transfer that the action asked for, ordered or not."""
    return minting_pb2.CancelOperationRequest(
        request_id=_request_id(action), operation_request_id=action.action_id
    )


def _request_id(action: RewardAction) -> str:
    return f"reverse-{action.action_id}"
