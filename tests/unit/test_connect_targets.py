"""Actions as commands, errors as verdicts; and the forms a message on the bus may have."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from go2asia.connect.v1 import events_pb2, reward_actions_pb2
from go2asia.points.v1 import points_pb2
from google.protobuf.json_format import MessageToJson, ParseDict

from connect_svc.bus import parse
from connect_svc.records import State
from connect_svc.reversal_targets import cancellation, nft_reversal, points_reversal
from connect_svc.reversing import way_back
from connect_svc.targets import Target, UnaryTarget, grant, post_item, reward, transfer
from mesh import validation
from mesh.errors import (
    Internal,
    InvalidArgument,
    MeshError,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unavailable,
)
from mesh.outbox import Claim, Dead, Done, Outcome, Retry

ACTION = {
    "action_id": "0c8e8f4e-8f5c-8a3a-9d3f-0a1b2c3d4e5f",
    "event_id": "01890a5d-ac96-774b-bcce-b302099a8057",
    "rule_id": "quest-reward",
    "rule_version": 3,
    "action_key": "points",
    "recipient_user_id": "ada",
}


def action(**command: object) -> reward_actions_pb2.RewardAction:
    return ParseDict(ACTION | command, reward_actions_pb2.RewardAction())


class Failing(Target):
    """A target whose every call fails."""

    lane = "test"

    def __init__(self, error: MeshError) -> None:
        self._error = error

    async def deliver(
        self, actions: Sequence[reward_actions_pb2.RewardAction]
    ) -> Sequence[Outcome]:
        raise self._error


class OneByOne(UnaryTarget):
    """A target whose calls end so, one after the other."""

    lane = "test"

    def __init__(self, ends: Sequence[MeshError | None]) -> None:
        self._ends = iter(ends)

    async def send(self, action: reward_actions_pb2.RewardAction) -> Outcome:
        if error := next(self._ends):
            raise error
        return Done("sent")


def claims(count: int) -> list[Claim]:
    now = datetime.now(UTC)
    payload = action().SerializeToString()
    return [Claim(str(n), "test", payload, 1, "token", None, now) for n in range(count)]


def test_a_credit_is_an_award_under_the_action_s_id() -> None:
    item = post_item(action(credit_points={"unit": "G2A", "amount": 150}))
    validation.check(item)
    assert item.award.request_id == ACTION["action_id"]
    assert item.award.posting == points_pb2.PostingDetails(
        user_id="ada",
        unit="G2A",
        amount=150,
        reason="quest-reward",
        reference=str(ACTION["event_id"]),
        metadata={"rule_version": "3", "action_key": "points"},
    )


def test_a_debit_is_a_spend() -> None:
    item = post_item(action(debit_points={"unit": "XP", "amount": 5}))
    assert (item.spend.posting.unit, item.spend.posting.amount) == ("XP", 5)


def test_progress_is_a_reward() -> None:
    command = {"nft_type": "explorer", "counter": "quests", "amount": 2}
    found = reward(action(increment_progress=command))
    validation.check(found)
    assert (found.request_id, found.user_id) == (ACTION["action_id"], "ada")
    assert (found.nft_type, found.counter, found.increment) == ("explorer", "quests", 2)


@pytest.mark.parametrize("kind", ["grant_nft", "mint_onchain"])
def test_a_badge_is_a_grant_that_may_ask_for_its_mint(kind: str) -> None:
    found = grant(action(**{kind: {"nft_type": "explorer"}}))
    validation.check(found)
    assert (found.request_id, found.user_id) == (ACTION["action_id"], "ada")
    assert (found.nft_type, found.mint_onchain) == ("explorer", kind == "mint_onchain")


@pytest.mark.parametrize(
    ("command", "kind"),
    [("credit_points", "AWARD"), ("debit_points", "SPEND")],
)
def test_a_booking_is_reversed_by_the_request_that_asked_for_it(command: str, kind: str) -> None:
    made = points_reversal(action(**{command: {"unit": "G2A", "amount": 150}}))
    validation.check(made)
    assert made.request_id == f"reverse-{ACTION['action_id']}"
    assert made.original_request.request_id == ACTION["action_id"]
    assert made.original_request.kind == points_pb2.TransactionKind.Value(
        f"TRANSACTION_KIND_{kind}"
    )
    assert made.amount == 0, "all of it"


def test_a_badge_is_reverted_by_the_request_that_asked_for_it() -> None:
    made = nft_reversal(action(grant_nft={"nft_type": "explorer"}))
    validation.check(made)
    assert (made.original_request_id, made.reference) == (ACTION["action_id"], ACTION["event_id"])


def test_ton_is_a_transfer_that_can_be_called_off_by_the_same_request() -> None:
    sent = action(send_ton={"amount": 5_000_000, "comment": "Well done"})
    order, cancelled = transfer(sent), cancellation(sent)
    validation.check(order)
    validation.check(cancelled)
    assert (order.user_id, order.amount_nanoton, order.comment) == ("ada", 5_000_000, "Well done")
    assert order.request_id == cancelled.operation_request_id == ACTION["action_id"]
    assert cancelled.request_id != order.request_id


@pytest.mark.parametrize("attempts", [0, 1, 7])
@pytest.mark.parametrize("state", ["PENDING", "COMPLETED", "FAILED", "CANCELLED"])
def test_only_what_was_never_claimed_is_cancelled(state: str, attempts: int) -> None:
    gone = state == "CANCELLED" or not attempts
    expected = State.CANCELLED if gone else State.REVERSING
    assert way_back(State(state), attempts) is expected


async def test_calls_of_their_own_have_verdicts_of_their_own() -> None:
    target = OneByOne([None, Unavailable("Later."), NotFound("No such type.")])
    done, later, refused = await target(claims(3))
    assert done == Done("sent")
    assert later == Retry("UNAVAILABLE: Later.")
    assert refused == Dead("NOT_FOUND: No such type.")


async def test_the_breaker_hears_when_no_call_gets_through() -> None:
    with pytest.raises(Unavailable):
        await OneByOne([Unavailable(), Overloaded()])(claims(2))
    with pytest.raises(Unavailable, match="test refuses this service"):
        await OneByOne([None, PermissionDenied()])(claims(2))


@pytest.mark.parametrize("error", [Unavailable(), Overloaded()])
async def test_what_may_pass_is_left_to_the_worker(error: MeshError) -> None:
    with pytest.raises(type(error)):
        await Failing(error)(claims(3))


async def test_a_wrong_certificate_holds_the_rewards_back() -> None:
    with pytest.raises(Unavailable, match="test refuses this service"):
        await Failing(PermissionDenied())(claims(3))


async def test_a_batch_that_breaks_is_left_to_be_bisected() -> None:
    with pytest.raises(Internal):
        await Failing(Internal())(claims(2))


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(NotFound("No such unit."), Dead("NOT_FOUND: No such unit.")), (Internal(), Retry)],
)
async def test_a_single_action_gets_its_verdict(error: MeshError, verdict: object) -> None:
    [outcome] = await Failing(error)(claims(1))
    assert outcome == verdict if isinstance(verdict, Dead) else isinstance(outcome, Retry)


def test_both_forms_of_a_message_are_read() -> None:
    event = events_pb2.Event(source="quest", external_id="1", event_type="a.b")
    event.context.update({"x": [1, 2]})
    assert parse(event.SerializeToString()) == event
    assert parse(MessageToJson(event).encode()) == event
    assert parse(b"\n " + MessageToJson(event).encode()) == event


@pytest.mark.parametrize(
    "payload",
    [
        b"{",
        b'{"sourze": "x"}',
        b"[]",
        b"\xff\xff",
        b'{"a": "\xff"}',
        b"{" * 5_000,
        b'{"source": 1}',
    ],
)
def test_anything_else_is_refused(payload: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"no go2asia\.connect\.v1\.Event"):
        parse(payload)
