"""The whole mesh: events go in by RPC, and each is done when Points and NFT have rewarded it.

Against the same flow built on procrastinate (`job_per_action`), and against pgbench, which writes
the rows that remain of an event in all three databases with one commit, and knows no queue.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from time import perf_counter

import procrastinate
import psycopg
from go2asia.connect.v1 import events_pb2, events_pb2_grpc, rules_pb2, rules_pb2_grpc
from go2asia.nft.v1 import catalog_pb2, catalog_pb2_grpc
from google.protobuf.json_format import ParseDict

from bench.connect.services import OPERATOR, Services
from bench.ledger_data import seed
from bench.measure import Figure, Variant, against, interleave
from bench.pgbench import pgbench
from devstack.postgres import Cluster
from mesh.migrate import migrate

USERS = 2_000
IN_A_CALL = 100
CALLS_IN_FLIGHT = 4
MANAGER = "economy-manager/bench"
SCHEMAS = {"connect": "connect_svc", "points": "points_svc", "nft": "nft_svc"}

BADGE = {
    "code": "traveller",
    "display_name": "Traveller",
    "onchain_policy": "ONCHAIN_POLICY_NONE",
    "token_standard": "TOKEN_STANDARD_NFT",
    "counters": ["bookings"],
    "levels": [{"level": 1, "thresholds": {"bookings": 1_000_000_000}}],
}
RULE = {
    "rule_id": "booking",
    "event_type": "booking.paid",
    "condition": "event.context.city == 'city-1' && event.context.amount >= 500.0",
    "actions": [
        {"key": "points", "credit_points": {"unit": "G2A", "amount": "10"}},
        {"key": "badge", "increment_progress": {"nft_type": "traveller", "counter": "bookings"}},
    ],
}
_numbers = count(1)


async def measure(
    folder: Path, cluster: Cluster, cleanup: ExitStack, *, rounds: int, seconds: float
) -> list[Figure]:
    """All figures about the whole mesh; Points and NFT serve all variants."""
    services = Services(folder, cluster, cleanup)
    for kind in ("points", "nft"):
        await services.database(kind, kind)
    known = services.points() | services.nft()
    async with services.channel(known["NFT_ADDRESS"], MANAGER) as channel:
        request = ParseDict(
            {"request_id": "badge", "nft_type": BADGE}, catalog_pb2.CreateNftTypeRequest()
        )
        await catalog_pb2_grpc.NftCatalogServiceStub(channel).CreateNftType(request)
    async with (
        _flow(services, known, "one") as one,
        _flow(services, known, "two", replicas=2) as two,
        _flow(services, known, "jobs", program="bench.connect.job_per_action") as jobs,
    ):
        rates = await interleave(
            {
                "one replica": lambda: one(seconds),
                "two replicas": lambda: two(seconds),
                "procrastinate": lambda: jobs(seconds / 4),  # then it works as long as the others
                "pgbench": await _plain(cluster, seconds),
            },
            rounds,
        )
    ours = rates["one replica"]
    return [
        against("mesh.events_vs_procrastinate", ours, rates["procrastinate"], 5, unit="events/s"),
        against("mesh.events_vs_pgbench", ours, rates["pgbench"], 0.6, unit="events/s"),
        against("mesh.replicas_2", rates["two replicas"], ours, None, unit="events/s"),
    ]


class Flow:
    """One way from events to rewards: `stub` takes events, `database` says when all are done."""

    def __init__(
        self, stub: "events_pb2_grpc.EventServiceAsyncStub", database: psycopg.AsyncConnection
    ) -> None:
        self._stub = stub
        self._database = database

    async def __call__(self, seconds: float) -> float:
        """Sends events for so long; events a second until the last reward is given."""
        start = perf_counter()
        sent = await asyncio.gather(*(self._send(start + seconds) for _ in range(CALLS_IN_FLIGHT)))
        while await self._open():  # noqa: ASYNC110 - other processes work
            await asyncio.sleep(0.01)
        return sum(sent) / (perf_counter() - start)

    async def _send(self, until: float) -> int:
        sent = 0
        while perf_counter() < until:
            events = [_event() for _ in range(IN_A_CALL)]
            request = events_pb2.BatchSubmitEventsRequest(events=events)
            results = (await self._stub.BatchSubmitEvents(request, timeout=60)).results
            if not all(len(result.receipt.action_ids) == 2 for result in results):
                raise RuntimeError(f"not every event was rewarded twice: {results[0]}")
            sent += len(results)
        return sent

    async def _open(self) -> bool:
        cursor = await self._database.execute(
            "SELECT state FROM reward_actions WHERE state <> 'COMPLETED' LIMIT 1"
        )
        return await cursor.fetchone() is not None


@contextlib.asynccontextmanager
async def _flow(
    services: Services, known: dict[str, str], name: str, *, replicas: int = 1, program: str = ""
) -> AsyncIterator[Flow]:
    await services.database(name, "connect")
    url = services.cluster.url(name).replace("+psycopg", "")
    if program:
        await _install_procrastinate(url)
    # The rule needs Connect itself, which is the first replica unless `program` takes its place.
    first = services.connect(name, known)
    async with services.channel(first, MANAGER) as channel:
        rule = ParseDict(RULE, rules_pb2.Rule())
        request = rules_pb2.CreateRuleRequest(request_id="rule", rule=rule)
        await rules_pb2_grpc.RuleServiceStub(channel).CreateRule(request)
    if program:
        addresses = [services.connect(name, known, program=program)]
    else:
        addresses = [first, *(services.connect(name, known) for _ in range(replicas - 1))]
    async with (
        services.channel(",".join(addresses), OPERATOR) as channel,
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
    ):
        yield Flow(events_pb2_grpc.EventServiceStub(channel), connection)


async def _install_procrastinate(url: str) -> None:
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=url))
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for what in ("TABLES", "SEQUENCES", "FUNCTIONS"):
            await connection.execute(f"GRANT ALL ON ALL {what} IN SCHEMA public TO connect_app")


async def _plain(cluster: Cluster, seconds: float) -> Variant:
    """pgbench on the three services' tables in one database, a schema each.

    Points come from as many accounts as there are connections, so that none waits for another.
    """
    cluster.create_database("plain")
    path = ", ".join(SCHEMAS)
    with cluster.connect("plain") as connection:
        for schema in SCHEMAS:
            connection.execute(f"CREATE SCHEMA {schema}".encode())
        connection.execute(f"ALTER DATABASE plain SET search_path = {path}".encode())
    for schema, package in SCHEMAS.items():
        await migrate(package, f"{cluster.url('plain')}?options=-csearch_path%3D{schema}")
    with cluster.connect("plain") as connection:
        seed(connection, USERS)
        connection.execute(
            "INSERT INTO nft_types SELECT 'traveller', 1, 'ACTIVE', '', '', '{bookings}', NULL, '',"
            " 'NONE', 'NFT'"
        )
    script = Path(__file__).with_name("event.sql").read_text()
    return pgbench(cluster, "plain", script, {"users": USERS}, seconds)


def _event() -> events_pb2.Event:
    number = next(_numbers)
    event = events_pb2.Event(
        source="bench",
        external_id=f"booking-{number}",
        event_type="booking.paid",
        actor_user_id=f"user-{number % USERS}",
    )
    event.context.update({"city": "city-1", "amount": 700})
    event.occurred_time.GetCurrentTime()
    return event
