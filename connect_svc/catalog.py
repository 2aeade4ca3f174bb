"""The compiled rules, kept in step with the database by the catalogue's version.

Whoever decides reads the version with the same transaction and brings the cache up to it: that
alone makes decisions right. A follower, woken by each rule write on any replica, only sees to it
that the compiling is done before the next event arrives.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from go2asia.connect.v1 import rules_pb2

from connect_svc.rules import Catalogue, CompiledRule, stored_rule
from connect_svc.store import RuleStore
from mesh.db import Database
from mesh.errors import MeshError
from mesh.notify import Notifications, notify
from mesh.telemetry import logger

_log = logger("connect.catalog")
_EMPTY = Catalogue(0, ())
_CHANNEL = "rule_catalog"
_CHECK_SECONDS = 5.0


class CatalogCache:
    """The newest catalogue this process has compiled.

    Rule versions are immutable and know with which catalogue version they came, so a catalogue
    follows from its predecessor and what was written since; nothing else has to be invalidated.
    """

    def __init__(self) -> None:
        self._catalogue = _EMPTY

    @property
    def version(self) -> int:
        """The version of the newest catalogue compiled."""
        return self._catalogue.version

    async def at(self, version: int, store: RuleStore) -> Catalogue:
        """The catalogue of this version, which the transaction of `store` has read."""
        base = self._catalogue
        if base.version == version:
            return base
        if base.version > version:  # the database was set back to an earlier state
            base = _EMPTY
        changes: dict[str, CompiledRule | None] = {}
        for rule in await store.changes(after=base.version, until=version):
            enabled = rule.state == rules_pb2.Rule.STATE_ENABLED
            changes[rule.rule_id] = _ready(rule) if enabled else None
        self._catalogue = base.changed(version, changes)
        _log.info("catalog.loaded", version=version, changed=len(changes))
        return self._catalogue


class CatalogFollower:
    """Keeps a cache up to date within the context, by notification and by a periodic check.

    `url` is the database's; notifications arrive on a connection of their own.
    """

    def __init__(self, database: Database, url: str, cache: CatalogCache) -> None:
        self._database = database
        self._cache = cache
        self._notifications = Notifications(url, _CHANNEL)

    async def __aenter__(self) -> Self:
        await self._notifications.__aenter__()
        self._following = asyncio.create_task(self._follow(), name="rule catalogue")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._following.cancel()
        with suppress(asyncio.CancelledError):
            await self._following
        await self._notifications.__aexit__(kind, error, trace)

    async def _follow(self) -> None:
        while True:
            try:
                async with self._database.transaction(read_only=True) as connection:
                    store = RuleStore(connection)
                    await self._cache.at(await store.catalog_version(), store)
            except MeshError as error:
                _log.warning("catalog.not_followed", error=error.message)
            except Exception:
                _log.exception("catalog.follower_failed")
            await self._notifications.wait(_CHECK_SECONDS)


async def announce(database: Database) -> None:
    """Wakes the followers of all replicas after a rule was written.

    In a transaction of its own. Should it fail, the periodic check notices.
    """
    try:
        await database.run(lambda connection: notify(connection, _CHANNEL))
    except MeshError as error:
        _log.warning("catalog.not_announced", error=error.message)


def _ready(rule: rules_pb2.Rule) -> CompiledRule:
    compiled = stored_rule(rule)
    if compiled.fault:
        _log.error("catalog.rule_unusable", rule_id=rule.rule_id, error=compiled.fault)
    return compiled
