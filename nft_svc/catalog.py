"""The catalogue of badge types: authors change it, rewards read it from memory."""

from collections.abc import Mapping
from dataclasses import replace

from go2asia.nft.v1 import catalog_pb2
from google.protobuf.json_format import MessageToDict

from mesh.db import Connection, Database
from mesh.idempotency import Key, remember
from nft_svc import convert
from nft_svc.audit import AuditEntry, Origin
from nft_svc.definitions import NftType, check_levels
from nft_svc.errors import EtagMismatch, NftTypeExists, UnknownNftType
from nft_svc.metadata import check_metadata, check_schema, item_content
from nft_svc.store import audit
from nft_svc.store import catalog as store
from nft_svc.store.requests import recall_one
from nft_svc.tables import idempotency_keys


def check(nft_type: NftType) -> None:
    """Raises `InvalidLevels`, `InvalidMetadataSchema` or `MetadataMismatch` for a faulty type.

    What passes can be minted: every level's item content keeps the Gateway's limits.
    """
    check_levels(nft_type.counters, nft_type.levels)
    if nft_type.metadata_schema is not None:
        check_schema(nft_type.metadata_schema)
    for rule in nft_type.levels:
        check_metadata(nft_type, rule)
        item_content(nft_type, rule)


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
        check(nft_type)

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

        Raises `UnknownNftType`, `EtagMismatch` and what `check` raises.
        """
        check(nft_type)

        async def work(connection: Connection) -> catalog_pb2.NftType:
            await store.lock(connection)
            if known := await _recall(connection, key):
                return known
            before = (await store.load(connection, [nft_type.code])).get(nft_type.code)
            if before is None:
                raise UnknownNftType(field="nft_type.code", nft_type=nft_type.code)
            if before.etag != etag:
                raise EtagMismatch(field="nft_type.etag", nft_type=nft_type.code, etag=before.etag)
            after = replace(nft_type, version=before.version + 1, state=before.state)
            await store.replace(connection, after)
            return await _conclude(connection, key, before, after, origin)

        return await self._database.run(work)

    async def get(self, code: str) -> NftType:
        """One type; raises `UnknownNftType`."""
        async with self._database.transaction(read_only=True) as connection:
            found = (await store.load(connection, [code])).get(code)
        if found is None:
            raise UnknownNftType(field="code", nft_type=code)
        return found

    async def page(self, after: str | None, limit: int) -> list[NftType]:
        """Types behind the code `after`, by code."""
        async with self._database.transaction(
            read_only=True, isolation="REPEATABLE READ"
        ) as connection:
            codes = await store.list_codes(connection, after, limit)
            return list((await store.load(connection, codes)).values())


async def _recall(connection: Connection, key: Key) -> catalog_pb2.NftType | None:
    known = await recall_one(connection, key)
    return None if known is None else catalog_pb2.NftType.FromString(known)


async def _conclude(
    connection: Connection, key: Key, before: NftType | None, after: NftType, origin: Origin
) -> catalog_pb2.NftType:
    message = convert.nft_type_message(after)
    entry = AuditEntry(
        origin=origin,
        action="nft_type.update" if before else "nft_type.create",
        subject=f"nft_type/{after.code}",
        user_id=None,
        before=MessageToDict(convert.nft_type_message(before)) if before else None,
        after=MessageToDict(message),
    )
    await audit.write(connection, [entry])
    await remember(connection, idempotency_keys, [(key, message.SerializeToString())])
    return message
