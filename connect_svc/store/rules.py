"""Rule versions and the catalogue's version."""

from collections.abc import Sequence
from typing import Any

from go2asia.connect.v1 import rules_pb2
from sqlalchemy import Row, insert, select, update

from connect_svc.tables import rule_catalog, rule_versions
from mesh.db import Connection


class RuleStore:
    """The rules as one transaction sees them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock(self) -> int:
        """Keeps all other rule writes out until the end of the transaction.

        Returns the catalogue's version.
        """
        found = await self._connection.execute(select(rule_catalog.c.version).with_for_update())
        version: int = found.scalar_one()
        return version

    async def add(self, rule: rules_pb2.Rule, author: str, catalog_version: int) -> None:
        """Stores a rule's version and makes it part of the catalogue, which must be locked."""
        await self._connection.execute(update(rule_catalog).values(version=catalog_version))
        await self._connection.execute(
            insert(rule_versions).values(
                rule_id=rule.rule_id,
                version=rule.version,
                catalog_version=catalog_version,
                event_type=rule.event_type,
                state=rules_pb2.Rule.State.Name(rule.state),
                definition=rule.SerializeToString(deterministic=True),
                author=author,
            )
        )

    async def current(self, rule_id: str) -> rules_pb2.Rule | None:
        """A rule's last version, if there is such a rule."""
        columns = rule_versions.c
        definition = await self._connection.scalar(
            select(columns.definition)
            .where(columns.rule_id == rule_id)
            .order_by(columns.version.desc())
            .limit(1)
        )
        return None if definition is None else rules_pb2.Rule.FromString(definition)

    async def catalog_version(self) -> int:
        """The catalogue's version, without a lock."""
        version: int = (await self._connection.execute(select(rule_catalog.c.version))).scalar_one()
        return version

    async def as_of(self, rule_id: str, catalog_version: int) -> rules_pb2.Rule | None:
        """The rule in the catalogue of this version, if it was written by then."""
        columns = rule_versions.c
        definition = await self._connection.scalar(
            select(columns.definition)
            .where(columns.rule_id == rule_id, columns.catalog_version <= catalog_version)
            .order_by(columns.version.desc())
            .limit(1)
        )
        return None if definition is None else rules_pb2.Rule.FromString(definition)

    async def versions(
        self, rule_id: str, *, before: int | None, size: int
    ) -> list[rules_pb2.RuleVersion]:
        """Up to `size` versions of a rule, newest first, from before the version `before`."""
        columns = rule_versions.c
        query = select(rule_versions).where(columns.rule_id == rule_id)
        query = query.order_by(columns.version.desc()).limit(size)
        if before is not None:
            query = query.where(columns.version < before)
        return [_version(row) for row in await self._connection.execute(query)]

    async def drafts(self, event_type: str) -> list[rules_pb2.Rule]:
        """The rules for `event_type` whose last version is a draft."""
        columns = rule_versions.c
        latest = (
            select(columns.rule_id, columns.event_type, columns.state, columns.definition)
            .distinct(columns.rule_id)
            .order_by(columns.rule_id, columns.version.desc())
            .subquery()
        )
        query = select(latest.c.definition).where(
            latest.c.event_type == event_type,
            latest.c.state == rules_pb2.Rule.State.Name(rules_pb2.Rule.STATE_DRAFT),
        )
        found = await self._connection.scalars(query)
        return [rules_pb2.Rule.FromString(definition) for definition in found]

    async def page(self, event_type: str, *, after: str, size: int) -> list[rules_pb2.Rule]:
        """Up to `size` rules in their last versions behind the rule id `after`, by rule id.

        Only those for `event_type`, unless it is empty.
        """
        columns = rule_versions.c
        latest = (
            select(columns.rule_id, columns.event_type, columns.definition)
            .distinct(columns.rule_id)
            .where(columns.rule_id > after)
            .order_by(columns.rule_id, columns.version.desc())
            .subquery()
        )
        query = select(latest.c.definition).order_by(latest.c.rule_id).limit(size)
        if event_type:
            query = query.where(latest.c.event_type == event_type)
        found = await self._connection.scalars(query)
        return [rules_pb2.Rule.FromString(definition) for definition in found]

    async def changes(self, *, after: int, until: int) -> Sequence[rules_pb2.Rule]:
        """Rule versions that entered the catalogue behind version `after`, up to `until`, in order.

        Whatever was written since `until` stays out, also when it is visible already.
        """
        columns = rule_versions.c
        found = await self._connection.scalars(
            select(columns.definition)
            .where(columns.catalog_version > after, columns.catalog_version <= until)
            .order_by(columns.catalog_version, columns.rule_id)
        )
        return [rules_pb2.Rule.FromString(definition) for definition in found]


def _version(row: Row[Any]) -> rules_pb2.RuleVersion:
    version = rules_pb2.RuleVersion(
        rule=rules_pb2.Rule.FromString(row.definition),
        catalog_version=row.catalog_version,
        author=row.author,
    )
    version.create_time.FromDatetime(row.create_time)
    return version
