"""What Connect's tests share: a migrated database, replicas on it, rules and events for them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import count
from typing import Any

from go2asia.connect.v1 import events_pb2, rules_pb2
from google.protobuf.json_format import ParseDict

from connect_svc.authoring import create_rule, update_rule
from connect_svc.catalog import CatalogCache
from connect_svc.intake import Intake
from connect_svc.normalization import Submission, normalize
from connect_svc.records import ActionRecord
from connect_svc.store import ActionStore
from devstack.postgres import Cluster
from mesh.db import Database
from mesh.idempotency import Key
from mesh.migrate import migrate

AUTHOR = "economy-manager/ann"
POINTS = {"key": "points", "credit_points": {"unit": "G2A", "amount": "10"}}
_numbers = count(1)


@dataclass(frozen=True)
class ConnectDatabase:
    """A migrated database: `app_url` as the service sees it, `query` as the superuser does."""

    cluster: Cluster
    name: str

    @property
    def app_url(self) -> str:
        return self.cluster.url(self.name, "connect_app")

    @property
    def admin_url(self) -> str:
        return self.cluster.url(self.name)

    def query(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.cluster.connect(self.name) as connection:
            return connection.execute(statement.encode(), values).fetchall()

    def count(self, table: str) -> int:
        [(found,)] = self.query(f"SELECT count(*) FROM {table}")
        return int(found)


async def migrated(cluster: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    """A new database, without rules."""
    connect = ConnectDatabase(cluster, make_database())
    await migrate("connect_svc", connect.admin_url)
    return connect


@dataclass(frozen=True)
class Replica:
    """One process's worth of the service, without its RPC edge and without workers."""

    database: Database
    intake: Intake

    async def create(self, rule: rules_pb2.Rule, request_id: str = "") -> rules_pb2.Rule:
        return await create_rule(self.database, AUTHOR, _key("Create", rule, request_id), rule)

    async def update(self, rule: rules_pb2.Rule, request_id: str = "") -> rules_pb2.Rule:
        return await update_rule(self.database, AUTHOR, _key("Update", rule, request_id), rule)

    async def actions_of(self, event_id: str) -> list[ActionRecord]:
        async with self.database.transaction(read_only=True) as connection:
            return await ActionStore(connection).of_event(event_id)


@asynccontextmanager
async def replica(
    connect: ConnectDatabase, wake: Callable[[], None] = lambda: None
) -> AsyncIterator[Replica]:
    async with (
        Database(connect.app_url, application_name="connect-test") as database,
        Intake(database, CatalogCache(), wake=wake) as intake,
    ):
        yield Replica(database, intake)


def rule(rule_id: str, event_type: str = "quest.completed", **fields: Any) -> rules_pb2.Rule:
    """A rule of ten points, unless `fields` say otherwise."""
    known = {"rule_id": rule_id, "event_type": event_type, "actions": [POINTS]}
    return ParseDict(known | fields, rules_pb2.Rule())


def event(**fields: Any) -> events_pb2.Event:
    """A quest that Ada completed, under an external id of its own unless given one."""
    known = {
        "source": "quest",
        "external_id": f"quest-{next(_numbers)}",
        "event_type": "quest.completed",
        "actor_user_id": "ada",
        "occurred_time": "2025-06-07T12:00:00Z",
    }
    return ParseDict(known | fields, events_pb2.Event())


def submission(**fields: Any) -> Submission:
    """`event`, ready for the intake."""
    return normalize(event(**fields), "event")


def _key(method: str, rule: rules_pb2.Rule, request_id: str) -> Key:
    request_id = request_id or f"request-{next(_numbers)}"
    digest = sha256(rule.SerializeToString(deterministic=True)).digest()
    return Key(f"{AUTHOR}:{method}", request_id, digest)
