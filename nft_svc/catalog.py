"""The catalogue of badge types: authors change it, rewards read it from memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from go2asia.nft.v1 import catalog_pb2
from google.protobuf.json_format import MessageToDict

from mesh.db import Connection, Database
from mesh.idempotency import Key, remember
from nft_svc import convert
from nft_svc.audit import AuditEntry, Origin
from nft_svc.conformity import check_conformity
from nft_svc.definitions import NftType, TypeState, check_levels
from nft_svc.errors import EtagMismatch, NftTypeArchived, NftTypeExists, UnknownNftType
from nft_svc.metadata import check_documents, check_written, item_content
from nft_svc.progress import reached
from nft_svc.store import audit
from nft_svc.store import catalog as store
from nft_svc.store.requests import recall_one
from nft_svc.tables import idempotency_keys
from nft_svc.templates import Subject

# Users looked at in one call of a preview, and in one statement of it.
EXAMINED = 10_000
PREVIEW_PAGE = 1_000
_LONGEST_ID = "0" * 36


async def check(nft_type: NftType) -> None:
    """Raises what tells the fault of a faulty type.

    That is `InvalidLevels`, `InvalidMetadataSchema`, `MetadataMismatch`, `UnknownPlaceholder` or
    `InvalidArgument`. What passes can be minted, and marked when it is taken back: every level's
    item content keeps the Gateway's limits, its templates filled.
    """
    check_levels(nft_type.counters, nft_type.levels)
    check_documents(nft_type)
    for rule in nft_type.levels:
        subject = Subject(_LONGEST_ID, _LONGEST_ID, nft_type.code, rule.level)
        check_written(rule, item_content(nft_type, rule, subject), _LONGEST_ID)
    await check_conformity(nft_type)


@dataclass(frozen=True, slots=True)
class Shift:
    """A user whose `level` is not the one `due` under a definition."""

    user_id: str
    nft_id: str | None
    level: int
    due: int


@dataclass(frozen=True, slots=True)
class Preview:
    """The shifts among `examined` users; `last` is where to go on, None at the end."""

    shifts: Sequence[Shift]
    examined: int
    last: str | None


class Catalog:
    """Creates, updates and reads types; keeps the current ones for rewards."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._version = -1
        self._types: Mapping[str, NftType] = {}

    async def current(self, connection: Connection) -> Mapping[str, NftType]:
        """All types as of this transaction, by code; reads them only if any has changed."""
        version = await store.version(connection)
        if version != self._version:
            self._types = await store.load(connection)
            self._version = version
        return self._types

    async def create(self, key: Key, nft_type: NftType, origin: Origin) -> catalog_pb2.NftType:
        """Adds a type; raises `NftTypeExists` and what `check` raises."""
        await check(nft_type)

        async def work(connection: Connection) -> catalog_pb2.NftType:
            await store.lock(connection)
            if known := await _recall(connection, key):
                return known
            if nft_type.code in await store.load(connection, [nft_type.code]):
                raise NftTypeExists(field="nft_type.code", nft_type=nft_type.code)
            await store.create(connection, nft_type)
            return await _conclude(connection, key, None, nft_type, origin)

        return await self._database.run(work)

    async def update(
        self, key: Key, nft_type: NftType, etag: str, origin: Origin
    ) -> catalog_pb2.NftType:
        """Replaces the version that `etag` names.

        Raises `UnknownNftType`, `NftTypeArchived`, `EtagMismatch` and what `check` raises.
        """
        await check(nft_type)

        async def work(connection: Connection) -> catalog_pb2.NftType:
            await store.lock(connection)
            if known := await _recall(connection, key):
                return known
            before = await _current(connection, nft_type.code, etag, "nft_type.")
            after = replace(nft_type, version=before.version + 1, state=before.state)
            await store.replace(connection, after)
            return await _conclude(connection, key, before, after, origin)

        return await self._database.run(work)

    async def archive(self, key: Key, code: str, etag: str, origin: Origin) -> catalog_pb2.NftType:
        """Closes a type for good; raises `UnknownNftType`, `NftTypeArchived`, `EtagMismatch`."""

        async def work(connection: Connection) -> catalog_pb2.NftType:
            await store.lock(connection)
            if known := await _recall(connection, key):
                return known
            before = await _current(connection, code, etag)
            after = replace(before, version=before.version + 1, state=TypeState.ARCHIVED)
            await store.replace(connection, after)
            return await _conclude(connection, key, before, after, origin)

        return await self._database.run(work)

    async def preview(self, nft_type: NftType, etag: str, after: str, limit: int) -> Preview:
        """Whom a definition would touch, of the users behind `after`; raises what `update` does.

        Examines no more than `EXAMINED` users, so it may stop before `limit` people are found.
        """
        await check(nft_type)
        shifts: list[Shift] = []
        examined, more = 0, True
        async with self._database.transaction(
            read_only=True, isolation="REPEATABLE READ"
        ) as connection:
            await _current(connection, nft_type.code, etag, "nft_type.")
            while more and examined < EXAMINED and len(shifts) < limit:
                rows = await store.progress(connection, nft_type.code, after, PREVIEW_PAGE)
                for user_id, nft_id, progress in rows:
                    after, examined = user_id, examined + 1
                    due = reached(nft_type, progress)
                    if due != progress.level:
                        shifts.append(Shift(user_id, nft_id, progress.level, due))
                    if len(shifts) == limit:
                        break
                more = len(rows) == PREVIEW_PAGE or len(shifts) == limit
        return Preview(shifts, examined, after if more else None)

    async def get(self, code: str) -> NftType:
        """One type; raises `UnknownNftType`."""
        async with self._database.transaction(read_only=True) as connection:
            found = (await store.load(connection, [code])).get(code)
        if found is None:
            raise UnknownNftType(field="code", nft_type=code)
        return found

    async def versions(
        self, code: str, before: int | None, limit: int
    ) -> Sequence[Mapping[Any, Any]]:
        """Versions of a type before that line of the audit log, the newest first.

        Raises `UnknownNftType`.
        """
        async with self._database.transaction(read_only=True) as connection:
            found = await store.versions(connection, code, before, limit)
        if not found and before is None:
            raise UnknownNftType(field="code", nft_type=code)
        return found

    async def page(self, after: str | None, limit: int) -> list[NftType]:
        """Types behind the code `after`, by code."""
        async with self._database.transaction(
            read_only=True, isolation="REPEATABLE READ"
        ) as connection:
            codes = await store.list_codes(connection, after, limit)
            return list((await store.load(connection, codes)).values())


async def _current(connection: Connection, code: str, etag: str, parent: str = "") -> NftType:
    """The version of a type that `etag` names; errors name fields below `parent`."""
    known = (await store.load(connection, [code])).get(code)
    if known is None:
        raise UnknownNftType(field=f"{parent}code", nft_type=code)
    if known.state is TypeState.ARCHIVED:
        raise NftTypeArchived(field=f"{parent}code", nft_type=code)
    if known.etag != etag:
        raise EtagMismatch(field=f"{parent}etag", nft_type=code, etag=known.etag)
    return known


def _action(before: NftType | None, after: NftType) -> str:
    if before is None:
        return "nft_type.create"
    archived = after.state is TypeState.ARCHIVED
    return "nft_type.archive" if archived else "nft_type.update"


async def _recall(connection: Connection, key: Key) -> catalog_pb2.NftType | None:
    known = await recall_one(connection, key)
    return None if known is None else catalog_pb2.NftType.FromString(known)


async def _conclude(
    connection: Connection, key: Key, before: NftType | None, after: NftType, origin: Origin
) -> catalog_pb2.NftType:
    message = convert.nft_type_message(after)
    entry = AuditEntry(
        origin=origin,
        action=_action(before, after),
        subject=f"nft_type/{after.code}",
        user_id=None,
        before=MessageToDict(convert.nft_type_message(before)) if before else None,
        after=MessageToDict(message),
    )
    await audit.write(connection, [entry])
    await remember(connection, idempotency_keys, [(key, message.SerializeToString())])
    return message
