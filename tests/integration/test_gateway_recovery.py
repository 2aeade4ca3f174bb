"""What goes wrong between the Gateway and the chain, with a wallet of a short time-out."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from sqlalchemy import text

from chain_gateway.composition import Gateway
from chain_gateway.config import GatewaySettings
from chain_gateway.operations import State
from chain_gateway.orders import read_operation
from chain_gateway.setup import SetupFailed, set_up
from chain_gateway.store.lease import Lease, LeaseLost
from chain_gateway.tables import metadata
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.db import Database
from mesh.migrate import drift, migrate
from tests.integration.gateway_inside import (
    Deafness,
    operation_when,
    order_for_linked_user,
    status_when,
)
from tests.integration.gateway_stage import NftRecorder, Stage, recording

TIMEOUT, GRACE = 10, 4


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("recovery")
    stage = Stage(folder, postgres, make_database(), Authority(folder / "authority"))
    stage.environment |= {
        "GATEWAY_WALLET_TIMEOUT_SECONDS": str(TIMEOUT),
        "GATEWAY_DELIVERY_GRACE_SECONDS": str(GRACE),
    }
    with stage.devnet():
        yield stage


@pytest.fixture
async def nft(stage: Stage) -> AsyncIterator[NftRecorder]:
    async with recording(stage) as recorder:
        yield recorder


@pytest.fixture
def settings(stage: Stage, nft: NftRecorder, monkeypatch: pytest.MonkeyPatch) -> GatewaySettings:
    for name, value in stage.environment.items():
        monkeypatch.setenv(name, value)
    return GatewaySettings()


async def test_from_an_empty_wallet_to_a_message_that_was_lost(
    stage: Stage, settings: GatewaySettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.migration_url is not None
    await migrate("chain_gateway", settings.migration_url.get_secret_value())
    deafness = Deafness(monkeypatch)
    async with Gateway(settings) as gateway:
        said: list[str] = []
        with pytest.raises(SetupFailed, match=r"0\.000 TON and needs 0\.5 TON"):
            await set_up(gateway.chain, gateway.wallet, gateway.collections, said.append)

        operation_id = await order_for_linked_user(gateway)
        await status_when(gateway, lambda s: s.paused_reason == "COLLECTION_MISSING")

        await asyncio.to_thread(stage.fund, gateway.wallet.address, 0.9)
        await set_up(gateway.chain, gateway.wallet, gateway.collections, said.append)
        await status_when(gateway, lambda s: s.paused_reason == "LOW_BALANCE")
        waiting = await read_operation(gateway.database, operation_id)
        assert waiting.standing.state is State.QUEUED

        deafness.deaf = True
        await asyncio.to_thread(stage.fund, gateway.wallet.address, 5)
        lost = await operation_when(
            gateway, operation_id, lambda o: o.standing.state is State.SUBMITTED
        )
        # The message runs out by chain time; then, and not before, there is another one.
        again = await operation_when(gateway, operation_id, lambda o: o.query_id != lost.query_id)
        assert len(deafness.unheard) >= 2, "the same message should have been sent again meanwhile"
        assert again.standing.placement == lost.standing.placement
        assert again.standing.owner == lost.standing.owner
        assert again.standing.failure_reason == "EXPIRED"

        deafness.deaf = False
        final = await operation_when(
            gateway, operation_id, lambda o: o.standing.state is State.FINALIZED
        )
        assert final.standing.placement == lost.standing.placement
        async with gateway.database.transaction() as connection:
            ages = await connection.execute(
                text("SELECT created_at, query_id FROM messages ORDER BY sequence")
            )
            [(first, _), (second, _), *_] = ages.all()
        assert second >= first + TIMEOUT


async def test_a_block_that_vanished_takes_its_mints_back(
    stage: Stage, settings: GatewaySettings
) -> None:
    """Only the block's hash is falsified: the item itself is there, and is found again."""
    async with Gateway(settings) as gateway:
        operation_id = await order_for_linked_user(gateway)
        await operation_when(gateway, operation_id, lambda o: o.standing.state is State.FINALIZED)
        async with gateway.database.transaction() as connection:
            before = await connection.scalar(text("SELECT count(*) FROM messages"))
            await connection.execute(
                text(
                    "UPDATE operations SET state = 5, seen_root_hash = '\\x00'"
                    " WHERE operation_id = :id"
                ),
                {"id": operation_id},
            )
        found = await operation_when(
            gateway,
            operation_id,
            lambda o: o.standing.state is State.FINALIZED and o.standing.version > 5,
        )
        async with gateway.database.transaction() as connection:
            after = await connection.scalar(text("SELECT count(*) FROM messages"))
        assert after == before, "no new message: the item was found by its address"
        assert found.standing.failure_reason == ""


async def test_replicas_take_turns(settings: GatewaySettings) -> None:
    """Both take orders, one sends; when it leaves, the other goes on."""
    async with Gateway(settings) as second:
        async with Gateway(settings) as first:
            ordered = [await order_for_linked_user(replica) for replica in (first, second) * 3]
            for operation_id in ordered:
                await operation_when(
                    first, operation_id, lambda o: o.standing.state is State.FINALIZED
                )
        last = await order_for_linked_user(second)
        await operation_when(second, last, lambda o: o.standing.state is State.FINALIZED)
        async with second.database.transaction() as connection:
            indices = await connection.scalars(
                text("SELECT item_index FROM operations ORDER BY item_index")
            )
            assert list(indices) == list(range(len(ordered) + 3)), "dense, each given once"


async def test_a_lease_that_was_lost_writes_nothing(settings: GatewaySettings) -> None:
    async with Database(settings.database_url.get_secret_value(), application_name="t") as database:
        one, two = Lease("0:01", "one"), Lease("0:01", "two")
        assert await database.run(one.take)
        assert not await database.run(two.take)
        with pytest.raises(LeaseLost):
            await database.run(two.hold)
        assert await database.run(one.hold) == 0
        async with database.transaction() as connection:
            await connection.execute(
                text("UPDATE wallets SET lease_expire_time = now() WHERE address = '0:01'")
            )
        assert await database.run(two.take)
        with pytest.raises(LeaseLost):
            await database.run(one.hold)
        await database.run(two.drop)
        assert await database.run(one.take)


async def test_migrations_make_the_tables(settings: GatewaySettings) -> None:
    assert settings.migration_url is not None
    await migrate("chain_gateway", settings.migration_url.get_secret_value())
    assert drift(metadata, settings.migration_url.get_secret_value()) == []
