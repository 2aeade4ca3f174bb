"""Writing rules: each write is a new immutable version and a new version of the catalogue."""

from collections.abc import Awaitable, Callable

from go2asia.connect.v1 import rules_pb2

from connect_svc.catalog import announce
from connect_svc.errors import (
    EtagMismatch,
    InvalidRule,
    RuleExists,
    RuleNotFound,
    RuleStateForbidden,
)
from connect_svc.rules import compile_rule
from connect_svc.store import RuleStore
from connect_svc.tables import idempotency_keys
from mesh.db import Connection, Database
from mesh.idempotency import Key, recall, remember

Rule = rules_pb2.Rule
NextVersion = Callable[[RuleStore], Awaitable[Rule]]

# From each state to the states that an update may leave the rule in; see Rule.State.
_WAYS: dict[int, frozenset[int]] = {
    Rule.STATE_DRAFT: frozenset({Rule.STATE_DRAFT, Rule.STATE_ENABLED}),
    Rule.STATE_ENABLED: frozenset({Rule.STATE_ENABLED, Rule.STATE_PAUSED}),
    Rule.STATE_PAUSED: frozenset({Rule.STATE_PAUSED, Rule.STATE_ENABLED, Rule.STATE_ARCHIVED}),
    Rule.STATE_ARCHIVED: frozenset(),
}
_FIRST_STATES = (Rule.STATE_DRAFT, Rule.STATE_ENABLED)


async def create_rule(database: Database, author: str, key: Key, rule: Rule) -> Rule:
    """Stores a rule as version 1, or finds what the request id stored before.

    Raises `InvalidRule`, `InvalidExpression`, `RuleExists` or `RequestIdReused`.
    """
    compile_rule(rule)
    state = rule.state or Rule.STATE_ENABLED
    if state not in _FIRST_STATES:
        raise InvalidRule(
            field="rule.state", wrong="A new rule is a draft or enabled; choose one of these."
        )

    async def first(store: RuleStore) -> Rule:
        if await store.current(rule.rule_id) is not None:
            raise RuleExists(rule.rule_id)
        return _versioned(rule, 1, state)

    return await _store(database, author, key, first)


async def update_rule(database: Database, author: str, key: Key, rule: Rule) -> Rule:
    """Stores a rule's next version, or finds what the request id stored before.

    A state left unspecified stays as it is. Raises `InvalidRule`, `InvalidExpression`,
    `RuleNotFound`, `EtagMismatch`, `RuleStateForbidden` or `RequestIdReused`.
    """
    compile_rule(rule)

    async def following(store: RuleStore) -> Rule:
        current = await store.current(rule.rule_id)
        if current is None:
            raise RuleNotFound(rule.rule_id)
        if rule.etag != current.etag:
            raise EtagMismatch(rule_id=rule.rule_id, etag=rule.etag)
        state = rule.state or current.state
        if state not in _WAYS[current.state]:
            raise RuleStateForbidden(
                rule_id=rule.rule_id, old=state_name(current.state), new=state_name(state)
            )
        return _versioned(rule, current.version + 1, state)

    return await _store(database, author, key, following)


async def set_rule_state(
    database: Database, author: str, key: Key, rule_id: str, etag: str, state: Rule.State.ValueType
) -> Rule:
    """Stores a rule's next version, in another state and otherwise the same.

    Or finds what the request id stored before. Raises `RuleNotFound`, `EtagMismatch`,
    `RuleStateForbidden` or `RequestIdReused`.
    """

    async def moved(store: RuleStore) -> Rule:
        current = await store.current(rule_id)
        if current is None:
            raise RuleNotFound(rule_id)
        if etag != current.etag:
            raise EtagMismatch(rule_id=rule_id, etag=etag, field="etag")
        if state == current.state or state not in _WAYS[current.state]:
            raise RuleStateForbidden(
                rule_id=rule_id,
                old=state_name(current.state),
                new=state_name(state),
                field="state",
            )
        return _versioned(current, current.version + 1, state)

    return await _store(database, author, key, moved)


async def _store(database: Database, author: str, key: Key, next_version: NextVersion) -> Rule:
    rule = await database.run(lambda connection: _write(connection, author, key, next_version))
    await announce(database)
    return rule


async def _write(connection: Connection, author: str, key: Key, next_version: NextVersion) -> Rule:
    store = RuleStore(connection)
    # Locked before anything is read: whoever had the lock may have served this very request.
    catalog_version = await store.lock() + 1
    answer = (await recall(connection, idempotency_keys, [key])).get(key)
    if isinstance(answer, Exception):
        raise answer
    if answer is not None:
        return Rule.FromString(answer)
    rule = await next_version(store)
    await store.add(rule, author, catalog_version)
    await remember(connection, idempotency_keys, [(key, rule.SerializeToString())])
    return rule


def _versioned(rule: Rule, version: int, state: Rule.State.ValueType) -> Rule:
    stored = Rule()
    stored.CopyFrom(rule)
    stored.DiscardUnknownFields()
    stored.version = version
    stored.state = state
    stored.etag = f"v{version}"
    return stored


def state_name(state: Rule.State.ValueType) -> str:
    """The state as people and errors call it."""
    return Rule.State.Name(state).removeprefix("STATE_")
