"""What the Gateway reports of mints, whichever way it comes: callbacks and answers alike."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Self

from mesh.batching import GroupCommit
from mesh.db import Connection, Database
from mesh.outbox import Queue
from mesh.telemetry import logger
from nft_svc.audit import AuditEntry, Origin
from nft_svc.feed import entry
from nft_svc.mints import Change, Mint, MintState, Report, Verdict, follow, judge, refuse
from nft_svc.store import audit, feed, mints
from nft_svc.submissions import ask_for_upgrades

_log = logger("nft.reports")


@dataclass(frozen=True, slots=True)
class Refusal:
    """The Gateway will never take this mint; `reason` is an UPPER_SNAKE word."""

    mint_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class News:
    """A report or a refusal, and who brought it."""

    content: Report | Refusal
    origin: Origin


class Reports:
    """Applies news of mints in group commits; an async context manager.

    `announce` is called after each commit that changed something.
    """

    def __init__(
        self, database: Database, submissions: Queue, announce: Callable[[], None]
    ) -> None:
        self._database = database
        self._submissions = submissions
        self._announce = announce
        self._group = GroupCommit[News, bool](self._commit, name="reports", max_batch=500)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._group.__aexit__(kind, error, trace)

    async def apply(self, news: Sequence[News]) -> int:
        """Applies all of them and returns how many changed something.

        News of an unknown mint, late, repeated and forbidden news change nothing. Raises the first
        failure when some could not be written; those that could are.
        """
        changed = 0
        for result in await self._group.submit_many(news):
            if isinstance(result, Exception):
                raise result
            changed += result
        return changed

    async def _commit(self, news: Sequence[News]) -> Sequence[bool]:
        changed = await self._database.run(
            lambda connection: _write(connection, self._submissions, news)
        )
        if any(changed):
            self._announce()
        return changed


async def _write(connection: Connection, submissions: Queue, news: Sequence[News]) -> list[bool]:
    now, known = await mints.lock(connection, {item.content.mint_id for item in news})
    changes: list[tuple[Change, Origin]] = []
    changed = [False] * len(news)
    # By version, so that the feed tells every step of a mint that has several in one batch.
    for number in sorted(range(len(news)), key=lambda number: _rank(news[number])):
        item = news[number]
        change = _change(known, item, now)
        if change is not None:
            known[change.mint.mint_id] = change.mint
            changes.append((change, item.origin))
            changed[number] = True
    if changes:
        await mints.update(connection, [known[mint_id] for mint_id in _touched(changes)])
        await audit.write(connection, [_audit_entry(*pair) for pair in changes])
        for change, origin in changes:
            if change.mint.outdated and not change.mint.under_way:
                overtaken = [change.mint.nft_id]
                await ask_for_upgrades(connection, submissions, overtaken, origin.traceparent)
        # Last, because the feed's head stays locked from here to the commit.
        await feed.append(connection, [entry(change) for change, _ in changes])
    return changed


def _rank(news: News) -> int:
    return news.content.version if isinstance(news.content, Report) else 0


def _change(known: Mapping[str, Mint], news: News, now: datetime | None) -> Change | None:
    content = news.content
    mint = known.get(content.mint_id)
    if mint is None or now is None:
        # An operator may order mints that are not ours.
        _log.warning("report.unknown_mint", mint_id=content.mint_id, actor=news.origin.actor)
        return None
    if isinstance(content, Refusal):
        return refuse(mint, content.reason, now)
    match judge(mint, content):
        case Verdict.NEWS:
            return follow(mint, content, now)
        case Verdict.FORBIDDEN:
            _log.error(
                "report.forbidden",
                mint_id=mint.mint_id,
                state=mint.state,
                operation_id=mint.operation_id,
                reported_state=content.state,
                reported_operation_id=content.operation_id,
                reported_version=content.version,
            )
    return None


def _touched(changes: Sequence[tuple[Change, Origin]]) -> list[str]:
    return list(dict.fromkeys(change.mint.mint_id for change, _ in changes))


def _action(change: Change) -> str:
    if change.mint.state is MintState.CANCELLED:
        return "mint.cancel"
    return "mint.rollback" if change.rollback else "mint.report"


def _audit_entry(change: Change, origin: Origin) -> AuditEntry:
    mint = change.mint
    after = {"state": mint.state, "operation_version": mint.operation_version}
    if mint.failure_reason:
        after["failure_reason"] = mint.failure_reason
    return AuditEntry(
        origin=origin,
        action=_action(change),
        subject=f"mint/{mint.mint_id}",
        user_id=mint.user_id,
        before={"state": change.previous},
        after=after,
        reference=mint.operation_id or "",
        nft_id=mint.nft_id,
    )
