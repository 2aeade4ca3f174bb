"""Questions about decisions: why an event was decided so, and how one would be. Writes nothing."""

from typing import NamedTuple

from go2asia.connect.v1 import events_pb2, rules_pb2

from connect_svc.authoring import state_name
from connect_svc.catalog import CatalogCache
from connect_svc.deciding import try_rules
from connect_svc.errors import ActionNotFound, EventNotFound, RuleNotFound
from connect_svc.explanations import (
    Explanation,
    Simulation,
    explain,
    not_enabled,
    reversed_before_arrival,
    simulation,
)
from connect_svc.normalization import normalize, own_source
from connect_svc.rationing import foresee
from connect_svc.records import ActionRecord, Story
from connect_svc.rules import Catalogue, compile_rule, stored_rule
from connect_svc.store import ActionStore, EventStore, RuleStore
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.identity import Identity

# One snapshot for several statements: what is told fits together.
_SNAPSHOT = "REPEATABLE READ"


class Told(NamedTuple):
    """One rule against one event, with the rewards that the rule gave for it."""

    catalog_version: int
    explanation: Explanation
    actions: list[ActionRecord]


async def find_story(
    connection: Connection, key: events_pb2.ExternalKey | str, reader: Identity
) -> Story:
    """The event with this id, or with this key of its source.

    Raises `EventNotFound`, and `SourceNotOwned` when a domain service asks for another's.
    """
    store = EventStore(connection)
    if isinstance(key, str):
        event_id: str | None = key
        shown = key
    else:
        event_id = await store.find((key.source, key.external_id))
        shown = f"{key.source}/{key.external_id}"
    story = await store.story(event_id) if event_id else None
    if story is None:
        raise EventNotFound(shown)
    own_source(reader, story.event.source, "event_id" if isinstance(key, str) else "external_key")
    return story


async def find_action(connection: Connection, action_id: str, reader: Identity) -> ActionRecord:
    """The action with this id.

    Raises `ActionNotFound`, and `SourceNotOwned` when a domain service asks for one of another's
    events.
    """
    record = await ActionStore(connection).get(action_id)
    if record is None:
        raise ActionNotFound(action_id)
    story = await EventStore(connection).story(record.action.event_id)
    if story is None:
        raise RuntimeError(f"the event of action {action_id} vanished; events are never deleted")
    own_source(reader, story.event.source, "action_id")
    return record


async def explain_event(
    database: Database, key: events_pb2.ExternalKey | str, rule_id: str, reader: Identity
) -> Told:
    """What one rule did with one event.

    Raises `EventNotFound`, `SourceNotOwned` or `RuleNotFound`.
    """
    async with database.transaction(read_only=True, isolation=_SNAPSHOT) as connection:
        story = await find_story(connection, key, reader)
        rules = RuleStore(connection)
        rule = await rules.as_of(rule_id, story.catalog_version)
        if rule is None and await rules.current(rule_id) is None:
            raise RuleNotFound(rule_id)
        actions = await ActionStore(connection).of_event(story.event.event_id)
    own = [record for record in actions if record.action.rule_id == rule_id]
    return Told(story.catalog_version, _explain(story, rule_id, rule), own)


async def simulate_event(
    database: Database,
    catalog: CatalogCache,
    event: events_pb2.Event,
    rule: rules_pb2.Rule | None,
    *,
    with_drafts: bool,
) -> Simulation:
    """What the rules in force would decide about an event.

    Drafts too if asked for, and with `rule` in force. Raises `ContextTooLarge` or
    `InvalidArgument` for the event, `InvalidRule` or `InvalidExpression` for the rule.
    """
    tried = normalize(event, "event").event
    tried.event_id = new_id()
    given = None if rule is None else compile_rule(rule)
    async with database.transaction(read_only=True, isolation=_SNAPSHOT) as connection:
        store = RuleStore(connection)
        moment = await EventStore(connection).moment()
        tried.received_time.FromDatetime(moment.now)
        catalogue = await catalog.at(moment.catalog_version, store)
        drafts = await store.drafts(tried.event_type) if with_drafts else []
        rules = {each.rule_id: each for each in catalogue.rules_for(tried.event_type)}
        rules |= {draft.rule_id: stored_rule(draft) for draft in drafts}
        if given is not None:
            rules[given.rule_id] = given
        catalogue = Catalogue(catalogue.version, rules.values())
        [decision] = await foresee(connection, [try_rules(catalogue, tried)])
    return simulation(catalogue, tried, decision)


def _explain(story: Story, rule_id: str, rule: rules_pb2.Rule | None) -> Explanation:
    if story.reversal is not None and story.reversal.before_arrival:
        return reversed_before_arrival(rule_id)
    catalogue = f"catalogue version {story.catalog_version}, which decided the event"
    if rule is None:
        return not_enabled(rule_id, 0, f"The rule was not written yet in {catalogue}.")
    if rule.state != rules_pb2.Rule.STATE_ENABLED:
        state = state_name(rule.state)
        return not_enabled(rule_id, rule.version, f"The rule was {state} in {catalogue}.")
    recorded = {outcome.rule_id: outcome for outcome in story.outcomes}
    return explain(stored_rule(rule), story.event, recorded.get(rule_id))
