"""What the Connect service refuses, one class each; reasons as in `connect/v1/errors.proto`."""

from mesh.errors import Kind, MeshError

DOMAIN = "connect.go2asia"


class ExternalIdReused(MeshError):
    """This external id came before with another content; send a new event under a new id."""

    kind = Kind.ALREADY_EXISTS
    reason = "EXTERNAL_ID_REUSED"
    domain = DOMAIN

    def __init__(self, *, field: str, external_id: str, event_id: str) -> None:
        super().__init__(
            f"The external id {external_id} came before with another content, as event {event_id}; "
            "send the same content again, or a new event under a new external id.",
            field=field,
            event_id=event_id,
        )


class SourceNotOwned(MeshError):
    """A domain service speaks for its own events only; the source is the certificate's name."""

    kind = Kind.PERMISSION_DENIED
    reason = "SOURCE_NOT_OWNED"
    domain = DOMAIN

    def __init__(self, *, field: str, source: str, caller: str) -> None:
        super().__init__(
            f"{caller} has no say about events of source {source!r}; set the source to the name in "
            "the certificate, or ask that service.",
            field=field,
            source=source,
            caller=caller,
        )


class ContextTooLarge(MeshError):
    """The context is larger than allowed; send only the facts that rules need."""

    kind = Kind.INVALID_ARGUMENT
    reason = "CONTEXT_TOO_LARGE"
    domain = DOMAIN

    def __init__(self, *, field: str, what: str, limit: int, actual: int) -> None:
        super().__init__(
            f"{field} has {actual} {what}, {limit} are allowed; send only the facts that rules "
            "need.",
            field=field,
            limit=str(limit),
            actual=str(actual),
        )


class OccurredInFuture(MeshError):
    """The event lies in the future; check the reporting service's clock."""

    kind = Kind.INVALID_ARGUMENT
    reason = "OCCURRED_IN_FUTURE"
    domain = DOMAIN

    def __init__(self, *, field: str, occurred_time: str) -> None:
        super().__init__(
            f"The event is said to happen at {occurred_time}, more than 5 minutes from now; check "
            "the reporting service's clock and send it again when it has happened.",
            field=field,
            occurred_time=occurred_time,
        )


class EventNotFound(MeshError):
    """No event has this key; check it, and that the event was accepted."""

    kind = Kind.NOT_FOUND
    reason = "EVENT_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, key: str) -> None:
        super().__init__(
            f"No event has the key {key}; check it, and that the event was accepted.", key=key
        )


class RuleNotFound(MeshError):
    """No rule has this id; check it, or create the rule."""

    kind = Kind.NOT_FOUND
    reason = "RULE_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, rule_id: str) -> None:
        super().__init__(
            f"There is no rule {rule_id}; check the id, or create the rule.",
            field="rule_id",
            rule_id=rule_id,
        )


class RuleExists(MeshError):
    """A rule of this id exists; update it, or choose another id."""

    kind = Kind.ALREADY_EXISTS
    reason = "RULE_EXISTS"
    domain = DOMAIN

    def __init__(self, rule_id: str) -> None:
        super().__init__(
            f"A rule {rule_id} exists; update it, or choose another id.",
            field="rule.rule_id",
            rule_id=rule_id,
        )


class EtagMismatch(MeshError):
    """The rule was changed meanwhile; read it again and apply the change to what it is now."""

    kind = Kind.ABORTED
    reason = "ETAG_MISMATCH"
    domain = DOMAIN

    def __init__(self, *, rule_id: str, etag: str, field: str = "rule.etag") -> None:
        super().__init__(
            f"The etag {etag!r} is not that of rule {rule_id} as it is now; read the rule again, "
            "apply the change to it and send its new etag.",
            field=field,
            rule_id=rule_id,
            etag=etag,
        )


class InvalidExpression(MeshError):
    """An expression does not compile or has the wrong type; correct it at the place named."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_EXPRESSION"
    domain = DOMAIN

    def __init__(self, *, field: str, line: int, column: int, wrong: str) -> None:
        super().__init__(
            f"{field}, line {line}, column {column}: {wrong}; correct the expression.",
            field=field,
            line=str(line),
            column=str(column),
        )


class InvalidRule(MeshError):
    """The rule contradicts itself; correct the field named."""

    kind = Kind.INVALID_ARGUMENT
    reason = "INVALID_RULE"
    domain = DOMAIN

    def __init__(self, *, field: str, wrong: str) -> None:
        super().__init__(wrong, field=field)


class ActionNotFound(MeshError):
    """No reward action has this id; check it against the event's receipt."""

    kind = Kind.NOT_FOUND
    reason = "ACTION_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, action_id: str) -> None:
        super().__init__(
            f"No reward action has the id {action_id}; check it against the event's receipt.",
            field="action_id",
            action_id=action_id,
        )


class RuleStateForbidden(MeshError):
    """A rule cannot go from its state to this one; see DRAFT → ENABLED ⇄ PAUSED → ARCHIVED."""

    kind = Kind.FAILED_PRECONDITION
    reason = "RULE_STATE_FORBIDDEN"
    domain = DOMAIN

    def __init__(self, *, rule_id: str, old: str, new: str, field: str = "rule.state") -> None:
        super().__init__(
            f"Rule {rule_id} cannot go from {old} to {new}; the ways are "
            "DRAFT → ENABLED ⇄ PAUSED → ARCHIVED, and an archived rule stays as it is.",
            field=field,
        )
        self.metadata = {"from": old, "to": new}


class ActionStateForbidden(MeshError):
    """Only a failed action is retried, and only one that was never sent is cancelled."""

    kind = Kind.FAILED_PRECONDITION
    reason = "ACTION_STATE_FORBIDDEN"
    domain = DOMAIN

    def __init__(self, *, action_id: str, state: str, wanted: str) -> None:
        super().__init__(
            f"The action {action_id} is {state}; {wanted}.",
            field="action_id",
            state=state,
        )


class BackfillNotFound(MeshError):
    """No backfill has this id; check it, or start one with BackfillRule."""

    kind = Kind.NOT_FOUND
    reason = "BACKFILL_NOT_FOUND"
    domain = DOMAIN

    def __init__(self, backfill_id: str) -> None:
        super().__init__(
            f"There is no backfill {backfill_id}; check the id, or start one with BackfillRule.",
            field="backfill_id",
            backfill_id=backfill_id,
        )


class BackfillStateForbidden(MeshError):
    """Only a finished preview of an enabled or paused rule is applied, and once."""

    kind = Kind.FAILED_PRECONDITION
    reason = "BACKFILL_STATE_FORBIDDEN"
    domain = DOMAIN

    def __init__(self, *, backfill_id: str, state: str, wanted: str) -> None:
        super().__init__(
            f"The backfill {backfill_id} is {state}; {wanted}.", field="backfill_id", state=state
        )
