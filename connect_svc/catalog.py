"""The compiled rules, kept in step with the database by the catalogue's version."""

from go2asia.connect.v1 import rules_pb2

from connect_svc.rules import Catalogue, CompiledRule, stored_rule
from connect_svc.store import RuleStore
from mesh.telemetry import logger

_log = logger("connect.catalog")
_EMPTY = Catalogue(0, ())


class CatalogCache:
    """The newest catalogue this process has compiled.

    Rule versions are immutable and know with which catalogue version they came, so a catalogue
    follows from its predecessor and what was written since; nothing else has to be invalidated.
    """

    def __init__(self) -> None:
        self._catalogue = _EMPTY

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


def _ready(rule: rules_pb2.Rule) -> CompiledRule:
    compiled = stored_rule(rule)
    if compiled.fault:
        _log.error("catalog.rule_unusable", rule_id=rule.rule_id, error=compiled.fault)
    return compiled
