"""The audit log's vocabulary: who did what to whom, on whose request. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a change comes from: the caller, its request, and the trace it belongs to."""

    actor: str
    request_id: str | None = None
    traceparent: str | None = None

    @property
    def trace_id(self) -> str | None:
        """The trace id within the W3C traceparent."""
        return self.traceparent.split("-")[1] if self.traceparent else None


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One line of the audit log.

    `subject` is `<kind>/<id>`: `nft_type/explorer`, `progress/explorer`, `mint/<mint_id>`, and
    `request/<request_id>` for a tombstone; `before` and `after` hold what changed, None where there
    was nothing; `nft_id` is the instance concerned.
    """

    origin: Origin
    action: str
    subject: str
    user_id: str | None
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    reference: str = ""
    nft_id: str | None = None
