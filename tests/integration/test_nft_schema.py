"""The migrations make the tables that the code believes in."""

from collections.abc import Callable

from devstack.postgres import Cluster
from mesh.migrate import drift, migrate
from nft_svc.tables import metadata


async def test_migrations_agree_with_the_tables(
    postgres: Cluster, make_database: Callable[[], str]
) -> None:
    url = postgres.url(make_database())
    await migrate("nft_svc", url)
    assert drift(metadata, url) == []
