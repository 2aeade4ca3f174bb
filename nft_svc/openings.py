"""What streams begin with, read together: after a restart thousands of watchers come back at once.

Whoever asks while a read is under way shares the next one, as writes share a commit. A shared read
takes little for each; a stream with more behind it reads the rest by itself.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from mesh.batching import GroupCommit
from mesh.db import Connection, Database
from nft_svc.mints import Mint
from nft_svc.resume import Target, TargetKind
from nft_svc.store import feed as store

MAX_SNAPSHOT = 1_000
PAGE = 500
FEW = 20  # mints or changes of one stream in a shared read


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A target's mints, the newest if there are more than `MAX_SNAPSHOT`, as of `position`."""

    position: int
    mints: Sequence[Mint]


@dataclass(frozen=True, slots=True)
class Missed:
    """A target's changes behind a position, in order, and what the feed held at that moment."""

    extent: store.Extent
    changes: Sequence[store.Entry]
    more: bool


class Openings:
    """Reads for streams that open; an async context manager. At most `streams` may wait."""

    def __init__(self, database: Database, streams: int) -> None:
        self._database = database
        self._owners = GroupCommit[Target, str | None](
            self._read_owners, name="watched owners", max_waiting=streams
        )
        self._snapshots = GroupCommit[Target, Snapshot](
            self._read_snapshots, name="snapshots", max_waiting=streams
        )
        self._missed = GroupCommit[store.Behind, Missed](
            self._read_missed, name="missed changes", max_waiting=streams
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for group in (self._owners, self._snapshots, self._missed):
                await stack.enter_async_context(group)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def owner(self, target: Target) -> str | None:
        """The user whom the target belongs to; None if there is no such mint or instance."""
        return target.id if target.kind is TargetKind.USER else await self._owners.submit(target)

    async def snapshot(self, target: Target) -> Snapshot:
        """The target's mints now."""
        found = await self._snapshots.submit(target)
        if len(found.mints) <= FEW:
            return found
        async with self._reading() as connection:
            return (await _snapshots(connection, [target], MAX_SNAPSHOT))[0]

    async def missed(self, target: Target, position: int) -> Missed:
        """The first changes behind a position that a stream goes on from."""
        return await self._missed.submit(store.Behind(target, position))

    async def missed_further(self, target: Target, position: int) -> Missed:
        """A long page of them, for a stream that missed many."""
        async with self._reading() as connection:
            return (await _missed(connection, [store.Behind(target, position)], PAGE))[0]

    async def _read_owners(self, targets: Sequence[Target]) -> Sequence[str | None]:
        async with self._database.transaction(isolation="AUTOCOMMIT") as connection:
            return await store.owners(connection, targets)

    async def _read_snapshots(self, targets: Sequence[Target]) -> Sequence[Snapshot]:
        async with self._reading() as connection:
            return await _snapshots(connection, targets, FEW + 1)

    async def _read_missed(self, behind: Sequence[store.Behind]) -> Sequence[Missed]:
        async with self._reading() as connection:
            return await _missed(connection, behind, FEW)

    def _reading(self) -> AbstractAsyncContextManager[Connection]:
        """What is read and the feed's extent must come from one view of the database."""
        return self._database.transaction(read_only=True, isolation="REPEATABLE READ")


async def _snapshots(
    connection: Connection, targets: Sequence[Target], limit: int
) -> list[Snapshot]:
    position = (await store.extent(connection)).head
    found = await store.snapshots(connection, targets, limit)
    return [Snapshot(position, mints) for mints in found]


async def _missed(
    connection: Connection, behind: Sequence[store.Behind], limit: int
) -> list[Missed]:
    extent = await store.extent(connection)
    found = await store.changes_behind(connection, behind, limit)
    return [Missed(extent, changes, len(changes) == limit) for changes in found]
