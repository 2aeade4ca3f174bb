"""What the NFT tests share: a migrated database, replicas on it, and rewards for them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import count
from typing import Any

from go2asia.gateway.v1 import minting_pb2
from go2asia.nft.v1 import nft_pb2

from devstack.postgres import Cluster
from mesh.clock import new_id
from mesh.db import Database
from mesh.errors import MeshError
from mesh.idempotency import Key
from mesh.migrate import migrate
from nft_svc.accrual import Grant, Reward
from nft_svc.audit import Origin
from nft_svc.cancelling import Cancelling
from nft_svc.catalog import Catalog
from nft_svc.convert_orders import Order
from nft_svc.definitions import LevelRule, NftType, OnchainPolicy, TokenStandard
from nft_svc.errors import MintHandedOver
from nft_svc.fanout import FeedLimits
from nft_svc.feed import Feed
from nft_svc.handover import Handover
from nft_svc.mint_requests import MintRequests
from nft_svc.mints import Location, MintState, Report
from nft_svc.reports import News, Reports
from nft_svc.resume import Target, TargetKind
from nft_svc.reverts import Reverts
from nft_svc.rewards import RewardRequest, Rewards
from nft_svc.submissions import submission_queue
from nft_svc.upgrading import Upgrading

CONNECT = Origin("connect/connect", "r", "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01")
GATEWAY = Origin("gateway/gateway")
EXPLORER = NftType(
    code="explorer",
    display_name="Explorer",
    description="Has seen much.",
    counters=("quests", "cities"),
    metadata_schema=None,
    image="ipfs://bafy/explorer.png",
    onchain_policy=OnchainPolicy.AUTO,
    token_standard=TokenStandard.NFT,
    levels=(
        LevelRule(1, {"quests": 1}, {"name": "Explorer I"}, False),
        LevelRule(2, {"quests": 3}, {"name": "Explorer II"}, True),
        LevelRule(3, {"quests": 6}, {"name": "Explorer III"}, True),
    ),
)
_numbers = count(1)


@dataclass(frozen=True)
class NftDatabase:
    """A migrated database: `app_url` as the service sees it, `query` as the superuser does."""

    cluster: Cluster
    name: str

    @property
    def app_url(self) -> str:
        return self.cluster.url(self.name, "nft_app")

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.cluster.connect(self.name) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def execute(self, statement: str, *values: Any) -> None:
        with self.cluster.connect(self.name) as connection:
            connection.execute(statement.encode(), values)


async def migrated(cluster: Cluster, make_database: Callable[[], str]) -> NftDatabase:
    """A database of its own, with the type `explorer` in it."""
    nft = NftDatabase(cluster, make_database())
    await migrate("nft_svc", cluster.url(nft.name))
    async with Database(nft.app_url, application_name="nft-test") as database:
        await Catalog(database).create(key("explorer"), EXPLORER, Origin("economy-manager/ann"))
    return nft


class ShelfGateway:
    """Takes orders and sends none until told to; calls off what was not sent."""

    def __init__(self) -> None:
        self.operations: dict[str, minting_pb2.Operation] = {}
        self.called_off: set[str] = set()

    async def submit_mints(
        self, orders: Sequence[minting_pb2.MintOrder]
    ) -> list[minting_pb2.Operation | MeshError]:
        return [self._take(order) for order in orders]

    async def submit(self, order: Order) -> minting_pb2.Operation:
        return self._take(order)

    async def cancel(self, mint_id: str) -> minting_pb2.Operation | None:
        self.called_off.add(mint_id)
        operation = self.operations.get(mint_id)
        if operation is None or operation.state == minting_pb2.OPERATION_STATE_CANCELLED:
            return operation
        if operation.state != minting_pb2.OPERATION_STATE_QUEUED:
            raise MintHandedOver(mint_id=mint_id)
        operation.state = minting_pb2.OPERATION_STATE_CANCELLED
        operation.version += 1
        return operation

    def send(self, mint_id: str) -> bool:
        """Sends an order; False if it was called off."""
        operation = self.operations[mint_id]
        if operation.state != minting_pb2.OPERATION_STATE_QUEUED:
            return False
        operation.state = minting_pb2.OPERATION_STATE_SUBMITTED
        operation.version += 1
        return True

    def _take(self, order: Order) -> minting_pb2.Operation:
        off = order.mint_id in self.called_off
        taken = minting_pb2.Operation(
            operation_id=new_id(),
            mint_id=order.mint_id,
            version=1,
            state=minting_pb2.OPERATION_STATE_CANCELLED
            if off
            else minting_pb2.OPERATION_STATE_QUEUED,
        )
        return self.operations.setdefault(order.mint_id, taken)


@dataclass(frozen=True)
class Replica:
    """One process's worth of the service, without its RPC edge."""

    database: Database
    catalog: Catalog
    rewards: Rewards
    reports: Reports
    feed: Feed
    requests: MintRequests
    reverts: Reverts
    gateway: ShelfGateway
    upgrading: Upgrading


@asynccontextmanager
async def replica(nft: NftDatabase, limits: FeedLimits | None = None) -> AsyncIterator[Replica]:
    """A replica at work; nobody empties its outbox."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        database = await enter(Database(nft.app_url, application_name="nft-test"))
        feed = await enter(Feed(database, nft.app_url, limits or FeedLimits()))
        reports = await enter(Reports(database, submission_queue(), feed.announce))
        catalog = Catalog(database)
        rewards = Rewards(database, catalog, submission_queue(), feed.announce)
        gateway = ShelfGateway()
        cancelling = Cancelling(database, gateway, Handover(gateway, reports))
        requests = MintRequests(database, catalog, submission_queue(), cancelling, feed.announce)
        upgrading = Upgrading(database, catalog, submission_queue(), cancelling, feed.announce)
        reverts = Reverts(database, catalog, submission_queue(), feed.announce)
        await enter(rewards)
        yield Replica(
            database, catalog, rewards, reports, feed, requests, reverts, gateway, upgrading
        )


def key(request_id: str | None = None, content: str = "") -> Key:
    """An idempotency key; a fresh one unless named."""
    number = request_id or f"request-{next(_numbers)}"
    return Key("connect/connect:ApplyReward", number, sha256(content.encode()).digest())


def reward(
    user_id: str,
    increment: int = 1,
    *,
    counter: str = "quests",
    nft_type: str = "explorer",
    request_id: str | None = None,
) -> RewardRequest:
    """A reward under a key of its own, or under `request_id`."""
    named = key(request_id, f"{user_id} {nft_type} {counter} {increment}")
    origin = replace(CONNECT, request_id=named.request_id)
    return RewardRequest(named, Reward(user_id, nft_type, counter, increment, "event-1", origin))


def grant(
    user_id: str,
    *,
    nft_type: str = "explorer",
    request_id: str | None = None,
    mint: bool = False,
) -> RewardRequest:
    """A badge given, under a key of its own, or under `request_id`."""
    named = key(request_id, f"grant {user_id}")
    origin = replace(CONNECT, request_id=named.request_id)
    return RewardRequest(named, Grant(user_id, nft_type, "event-1", origin, mint))


async def revert(service: Replica, original: RewardRequest, request_id: str | None = None) -> Any:
    """Takes back what a request gave, under a key of its own, or under `request_id`."""
    named = Key("connect/connect:RevertReward", request_id or f"back-{next(_numbers)}", b"same")
    scope, number = original.key.scope, original.key.request_id
    return await service.reverts.revert(named, scope, number, "reversal-1", CONNECT)


def report(mint_id: str, state: MintState, version: int, operation_id: str = "") -> News:
    """What the Gateway says of a mint."""
    place = Location("0:" + "aa" * 32, 7, "0:" + "bb" * 32, "0:" + "cc" * 32)
    known = operation_id or mint_id  # any id will do, as long as it stays the same
    return News(Report(mint_id, known, version, state, place), GATEWAY)


def a_user() -> str:
    """A user nobody has met."""
    return f"user-{new_id()}"


def of_user(user_id: str) -> Target:
    """All mints of a user, to watch."""
    return Target(TargetKind.USER, user_id)


def fold(
    known: dict[str, nft_pb2.Mint], message: nft_pb2.WatchMintStatusResponse
) -> dict[str, nft_pb2.Mint]:
    """What a watcher knows after one more message."""
    match message.WhichOneof("update"):
        case "snapshot":
            return {mint.mint_id: mint for mint in message.snapshot.mints}
        case "change":
            mint = message.change.mint
            before = known.get(mint.mint_id)
            assert before is None or before.version < mint.version, "a change was told twice"
            return {**known, mint.mint_id: mint}
    return known
