"""All SQL of the service, one class per subject, each within one transaction of the caller."""

from connect_svc.store.actions import ActionStore
from connect_svc.store.backfills import BackfillStore
from connect_svc.store.events import EventStore
from connect_svc.store.limits import LimitStore
from connect_svc.store.reversals import ReversalStore
from connect_svc.store.rules import RuleStore

__all__ = ["ActionStore", "BackfillStore", "EventStore", "LimitStore", "ReversalStore", "RuleStore"]
