"""What the RPC tests of Points share: a served ledger, requests, and errors by their class."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

from go2asia.points.v1 import points_pb2

from devstack.postgres import Cluster
from mesh.db import Database
from mesh.migrate import migrate
from mesh.testing import LoopServer
from points_svc.posting import Desk
from points_svc.seal import seal_next
from points_svc.servicer import PointsServicer
from points_svc.upkeep import Expiry

_numbers = count(1)


@dataclass(frozen=True)
class Ledger:
    """A servicer, and the hands of whoever may act behind it."""

    servicer: PointsServicer
    server: LoopServer
    database: Database
    cluster: Cluster
    name: str

    def execute(self, statement: str, *values: Any) -> None:
        """As the superuser, behind the service's back."""
        with self.cluster.connect(self.name) as connection:
            connection.execute(statement, values)

    def book_expiries(self) -> None:
        """What the upkeep does every second."""
        expiry = Expiry(self.database)
        while self.server.run(expiry.settle_due()):
            pass

    def seal(self) -> None:
        """What the upkeep does every second, too."""
        while self.server.run(seal_next(self.database)):
            pass


@contextmanager
def served_ledger(
    server: LoopServer, cluster: Cluster, make_database: Callable[[], str]
) -> Iterator[Ledger]:
    """A new ledger and its servicer on the server's loop."""
    name = make_database()
    asyncio.run(migrate("points_svc", cluster.url(name)))
    running = AsyncExitStack()

    async def start() -> Ledger:
        url = cluster.url(name, "points_app")
        database = await running.enter_async_context(Database(url, application_name="points"))
        desk = await running.enter_async_context(Desk(database))
        return Ledger(PointsServicer(desk, database), server, database, cluster, name)

    yield server.run(start())
    server.run(running.aclose())


def request_id(operation: str) -> str:
    """A request id never used before."""
    return f"{operation}-{next(_numbers)}"


def posting(user_id: str, amount: int, **rest: Any) -> points_pb2.PostingDetails:
    fields = {"unit": "G2A", "reason": "quest-completed", "reference": "action-1", **rest}
    return points_pb2.PostingDetails(user_id=user_id, amount=amount, **fields)


def award(user_id: str, amount: int, name: str = "", **rest: Any) -> points_pb2.AwardRequest:
    expire_time = rest.pop("expire_time", None)
    return points_pb2.AwardRequest(
        request_id=name or request_id("award"),
        posting=posting(user_id, amount, **rest),
        expire_time=expire_time,
    )


def spend(user_id: str, amount: int, name: str = "", **rest: Any) -> points_pb2.SpendRequest:
    return points_pb2.SpendRequest(
        request_id=name or request_id("spend"), posting=posting(user_id, amount, **rest)
    )


def transfer(
    user_id: str, recipient: str, amount: int, name: str = "", **rest: Any
) -> points_pb2.TransferRequest:
    return points_pb2.TransferRequest(
        request_id=name or request_id("transfer"),
        posting=posting(user_id, amount, **rest),
        recipient_user_id=recipient,
    )


def batch(
    *items: points_pb2.AwardRequest | points_pb2.SpendRequest | points_pb2.TransferRequest,
    atomic: bool = False,
) -> points_pb2.BatchPostRequest:
    request = points_pb2.BatchPostRequest(atomic=atomic)
    for item in items:
        if isinstance(item, points_pb2.AwardRequest):
            request.items.add(award=item)
        elif isinstance(item, points_pb2.SpendRequest):
            request.items.add(spend=item)
        else:
            request.items.add(transfer=item)
    return request


def hold(
    user_id: str, amount: int, name: str = "", seconds: int = 3600
) -> points_pb2.PlaceHoldRequest:
    request = points_pb2.PlaceHoldRequest(
        request_id=name or request_id("hold"),
        user_id=user_id,
        unit="G2A",
        amount=amount,
        reason="booking",
    )
    request.time_to_live.seconds = seconds
    return request


def capture(
    placed: points_pb2.Hold, amount: int = 0, name: str = "", user_id: str = ""
) -> points_pb2.CaptureHoldRequest:
    return points_pb2.CaptureHoldRequest(
        request_id=name or request_id("capture"),
        hold_id=placed.hold_id,
        user_id=user_id or placed.user_id,
        amount=amount,
    )


def release(placed: points_pb2.Hold, name: str = "") -> points_pb2.ReleaseHoldRequest:
    return points_pb2.ReleaseHoldRequest(
        request_id=name or request_id("release"), hold_id=placed.hold_id, user_id=placed.user_id
    )


def reverse(
    transaction: points_pb2.Transaction, amount: int = 0, name: str = ""
) -> points_pb2.ReverseTransactionRequest:
    return points_pb2.ReverseTransactionRequest(
        request_id=name or request_id("reverse"),
        transaction_id=transaction.transaction_id,
        amount=amount,
        reason="clawback",
    )
