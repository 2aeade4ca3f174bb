"""The real service against a small model, driven by a hypothesis state machine.

POINTS_EXAMPLES sets how many examples run (2,000 for a thorough night), POINTS_SEED repeats a run.
"""

import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import grpc
import pytest
from go2asia.points.v1 import points_pb2, points_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from mesh.status import from_grpc
from tests.rpc import points_service as requests
from tests.rpc.points_model import Booked, Hold, Model, Refused
from tests.rpc.points_service import Ledger

EXAMPLES = int(os.environ.get("POINTS_EXAMPLES", "25"))
SEED = int(os.environ.get("POINTS_SEED", "0")) or random.SystemRandom().randrange(2**32)
USERS = ("anna", "boris")
TIERS = (1, 2, 3)
_FUTURE, _PAST = 4_000_000_000, 1_000_000_000

users = st.sampled_from(USERS)
small = st.integers(1, 12)
amounts = st.integers(1, 20)
_examples = count(1)


@pytest.fixture(scope="module")
def grpc_stub_class() -> Any:
    return points_pb2_grpc.PointsServiceStub


def outcome(call: Callable[[Any], Any], request: Any) -> Any:
    """The response, or the reason of the refusal."""
    try:
        return call(request)
    except grpc.RpcError as error:
        return from_grpc(error).reason


class LedgerMachine(RuleBasedStateMachine):
    """Every rule does one thing to the service and to the model, and compares what they say."""

    booked = Bundle("booked")
    holds = Bundle("holds")

    def __init__(self, ledger: Ledger, clients: tuple[Any, Any], pool: ThreadPoolExecutor) -> None:
        super().__init__()
        self.ledger = ledger
        self.clients = clients
        self.pool = pool
        self.model = Model()
        self.prefix = f"e{next(_examples)}-"

    def user(self, name: str) -> str:
        return self.prefix + name

    def agree(self, call: Any, request: Any, decide: Callable[[], Any]) -> tuple[Any, Any]:
        """The response and the model's answer, which must both refuse for one reason, or not."""
        reason = wanted = None
        try:
            wanted = decide()
        except Refused as refused:
            reason = refused.reason
        response = outcome(call, request)
        assert (response if isinstance(response, str) else None) == reason
        return (None, None) if reason else (response, wanted)

    def keep(self, response: Any, wanted: Booked | None) -> Any:
        return multiple() if response is None else (response.transaction, wanted)

    @rule(target=booked, user=users, amount=small, tier=st.sampled_from((None, *TIERS)))
    def award(self, user: str, amount: int, tier: int | None) -> Any:
        if tier in self.model.past:
            tier = None
        expire_time = Timestamp(seconds=_FUTURE + tier) if tier else None
        request = requests.award(self.user(user), amount, expire_time=expire_time)
        decide = lambda: self.model.award(user, amount, tier)  # noqa: E731
        response, wanted = self.agree(self.clients[0].Award, request, decide)
        assert self.clients[0].Award(request) == response, "a repetition answers the same"
        return self.keep(response, wanted)

    @rule(target=booked, user=users, amount=amounts)
    def spend(self, user: str, amount: int) -> Any:
        request = requests.spend(self.user(user), amount)
        decide = lambda: self.model.spend(user, amount)  # noqa: E731
        response, wanted = self.agree(self.clients[1].Spend, request, decide)
        if response is not None:
            taken = sorted(-c.amount for c in response.transaction.lot_changes)
            assert taken == sorted(wanted.taken.values())
        return self.keep(response, wanted)

    @rule(target=booked, user=users, recipient=users, amount=amounts)
    def transfer(self, user: str, recipient: str, amount: int) -> Any:
        request = requests.transfer(self.user(user), self.user(recipient), amount)
        if user == recipient:
            assert outcome(self.clients[0].Transfer, request) == "SAME_ACCOUNT"
            return multiple()
        decide = lambda: self.model.transfer(user, recipient, amount)  # noqa: E731
        return self.keep(*self.agree(self.clients[0].Transfer, request, decide))

    @rule(user=users, first=amounts, second=amounts)
    def spend_at_once(self, user: str, first: int, second: int) -> None:
        """Two clients at once: what happened must have happened in one order or the other."""
        asked = [requests.spend(self.user(user), amount) for amount in (first, second)]
        calls = [
            self.pool.submit(outcome, client.Spend, request)
            for client, request in zip(self.clients, asked, strict=True)
        ]
        refused = [isinstance(call.result(), str) for call in calls]
        spendable = self.model.available(user) + max(
            0, self.model.limits.get(user, 0) - self.model.owed(user)
        )
        possible = {
            (first > spendable, second > spendable - (first if first <= spendable else 0)),
            (first > spendable - (second if second <= spendable else 0), second > spendable),
        }
        assert tuple(refused) in possible
        for amount, failed in zip((first, second), refused, strict=True):
            if not failed:
                self.model.spend(user, amount)

    @rule(user=users, amounts_=st.lists(amounts, min_size=2, max_size=4))
    def spend_together(self, user: str, amounts_: list[int]) -> None:
        request = requests.batch(
            *(requests.spend(self.user(user), amount) for amount in amounts_), atomic=True
        )
        results = self.clients[0].BatchPost(request).results
        spendable = self.model.available(user) + max(
            0, self.model.limits.get(user, 0) - self.model.owed(user)
        )
        done = {result.HasField("transaction") for result in results}
        assert done == {sum(amounts_) <= spendable}
        for amount in amounts_ if done == {True} else ():
            self.model.spend(user, amount)

    @rule(target=holds, user=users, amount=amounts)
    def place(self, user: str, amount: int) -> Any:
        request = requests.hold(self.user(user), amount)
        decide = lambda: self.model.place(user, amount)  # noqa: E731
        response, wanted = self.agree(self.clients[0].PlaceHold, request, decide)
        return multiple() if response is None else (response.hold, wanted)

    @rule(target=booked, placed=holds, amount=st.integers(0, 15))
    def capture(self, placed: tuple[points_pb2.Hold, Hold], amount: int) -> Any:
        hold, wanted = placed
        decide = lambda: self.model.capture(wanted, amount)  # noqa: E731
        return self.keep(
            *self.agree(self.clients[1].CaptureHold, requests.capture(hold, amount), decide)
        )

    @rule(placed=holds)
    def release(self, placed: tuple[points_pb2.Hold, Hold]) -> None:
        hold, wanted = placed
        request = requests.release(hold)
        self.agree(self.clients[0].ReleaseHold, request, lambda: self.model.release(wanted))

    @rule(placed=consumes(holds))
    def hold_times_out(self, placed: tuple[points_pb2.Hold, Hold]) -> None:
        hold, wanted = placed
        if not wanted.active:
            return
        self.ledger.execute(
            "UPDATE holds SET expire_time = placed_time WHERE hold_id = %s", hold.hold_id
        )
        self.model.release(wanted)
        assert outcome(self.clients[0].CaptureHold, requests.capture(hold)) == "HOLD_CLOSED"

    @rule(of=booked, amount=st.integers(0, 15))
    def reverse(self, of: tuple[points_pb2.Transaction, Booked], amount: int) -> None:
        transaction, wanted = of
        request = requests.reverse(transaction, amount)
        decide = lambda: self.model.reverse(wanted, amount)  # noqa: E731
        response, _ = self.agree(self.clients[1].ReverseTransaction, request, decide)
        if response is not None:
            assert self.clients[1].ReverseTransaction(request) == response

    @rule(user=users, amount=amounts)
    def reverse_before_arrival(self, user: str, amount: int) -> None:
        late = requests.award(self.user(user), amount)
        request = points_pb2.ReverseTransactionRequest(
            request_id=requests.request_id("reverse"), reason="clawback"
        )
        request.original_request.kind = points_pb2.TRANSACTION_KIND_AWARD
        request.original_request.request_id = late.request_id
        assert not self.clients[0].ReverseTransaction(request).HasField("transaction")
        assert not self.clients[0].Award(late).HasField("transaction")

    @rule(user=users, limit=st.integers(0, 20))
    def limit_overdraft(self, user: str, limit: int) -> None:
        self.model.limits[user] = limit
        self.clients[1].SetOverdraftLimit(
            points_pb2.SetOverdraftLimitRequest(
                request_id=requests.request_id("limit"),
                user_id=self.user(user),
                unit="G2A",
                limit=limit,
            )
        )

    @precondition(lambda self: len(self.model.past) < len(TIERS))
    @rule(tier=st.sampled_from(TIERS))
    def time_passes(self, tier: int) -> None:
        self.model.pass_tier(tier)
        self.ledger.execute(
            "UPDATE lots SET expire_time = to_timestamp(%s) FROM accounts"
            " WHERE lots.account_id = accounts.account_id AND owner LIKE %s"
            " AND expire_time = to_timestamp(%s)",
            _PAST + tier,
            f"user:{self.prefix}%",
            _FUTURE + tier,
        )

    @rule()
    def upkeep(self) -> None:
        self.ledger.book_expiries()

    @invariant()
    def balances_agree(self) -> None:
        request = points_pb2.BatchGetBalancesRequest(
            user_ids=[self.user(user) for user in USERS], unit="G2A"
        )
        for user, found in zip(
            USERS, self.clients[0].BatchGetBalances(request).balances, strict=True
        ):
            available, held = self.model.available(user), self.model.held(user)
            assert (found.available, found.held, found.owed, found.posted) == (
                available,
                held,
                self.model.owed(user),
                available + held + found.expired,
            ), user
            expected = [lot for lot in self.model.lots(user) if lot.free and lot.tier]
            if found.HasField("expiring_next"):
                tier = min(lot.tier for lot in expected if lot.tier)
                assert found.expiring_next.expire_time.seconds == _FUTURE + tier
                assert found.expiring_next.amount == sum(
                    lot.free for lot in expected if lot.tier == tier
                )
            else:
                assert not expected

    @invariant()
    def lots_agree(self) -> None:
        for user in USERS:
            request = points_pb2.ListLotsRequest(user_id=self.user(user), unit="G2A")
            found = [
                (
                    lot.expire_time.seconds and lot.expire_time.seconds - _FUTURE,
                    lot.remaining,
                    lot.held,
                )
                for lot in self.clients[1].ListLots(request).lots
            ]
            wanted = [
                (lot.tier or 0, lot.remaining, lot.held)
                for lot in self.model.lots(user)
                if lot.remaining and lot.tier not in self.model.past
            ]
            assert sorted(lot for lot in found if lot[0] >= 0) == sorted(wanted), user

    def teardown(self) -> None:
        number = int(self.prefix[1:-1])
        if EXAMPLES <= 100 or number % 200 == 0:
            found = self.clients[1].VerifyLedger(points_pb2.VerifyLedgerRequest())
            assert list(found.findings) == []


@pytest.mark.timeout(7200)
def test_the_service_does_what_the_model_does(ledger: Ledger, act_as: Callable[[str], Any]) -> None:
    print(f"POINTS_SEED={SEED} POINTS_EXAMPLES={EXAMPLES}")
    clients = (act_as("connect/connect"), act_as("operator/ops"))
    with ThreadPoolExecutor(2) as pool:
        machine = seed(SEED)(lambda: LedgerMachine(ledger, clients, pool))
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=30,
                deadline=None,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
    ledger.seal()
    found = clients[1].VerifyLedger(points_pb2.VerifyLedgerRequest())
    assert list(found.findings) == []
    assert found.unsealed_transactions == 0
    assert found.seals > 0
