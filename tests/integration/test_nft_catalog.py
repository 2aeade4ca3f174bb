"""The catalogue on a real Postgres: a type is read whole, whoever changes it meanwhile."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from devstack.postgres import Cluster
from nft_svc.audit import Origin
from tests.integration.nft_service import EXPLORER, NftDatabase, key, migrated, replica

pytestmark = pytest.mark.asyncio(loop_scope="module")
AUTHOR = Origin("economy-manager/ann")
WAITING = "SELECT 1 FROM pg_locks WHERE NOT granted AND relation = 'nft_types'::regclass"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(postgres: Cluster, make_database: Callable[[], str]) -> NftDatabase:
    return await migrated(postgres, make_database)


async def test_a_type_is_read_as_it_was_written(nft: NftDatabase) -> None:
    async with replica(nft) as service:
        assert await service.catalog.get("explorer") == EXPLORER
        many = tuple(replace(EXPLORER.levels[0], level=n, metadata={"n": n}) for n in range(1, 13))
        steps = replace(EXPLORER, code="steps", levels=many, metadata_schema={"type": "object"})
        await service.catalog.create(key(), steps, AUTHOR)
        assert await service.catalog.page(None, 10) == [EXPLORER, steps], "levels in their order"


async def test_levels_are_those_of_the_version_that_they_come_with(nft: NftDatabase) -> None:
    async with replica(nft) as service:
        with nft.cluster.connect(nft.name) as author, author.transaction():
            author.execute("LOCK TABLE nft_types")
            reading = asyncio.create_task(service.catalog.get("explorer"))
            async with asyncio.timeout(10):
                while not nft.query(WAITING):  # noqa: ASYNC110 - the lock is the database's
                    await asyncio.sleep(0.02)
            author.execute("UPDATE nft_types SET version = 2 WHERE code = 'explorer'")
            author.execute("DELETE FROM nft_level_rules WHERE nft_type = 'explorer' AND level > 1")
        read = await reading
    assert (read.version, len(read.levels)) == (2, 1)
