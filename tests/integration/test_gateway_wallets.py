"""Several wallets that mint into the same collections, and what becomes of them when one is led by
a process that dies."""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

import pytest
from go2asia.gateway.v1 import chain_pb2, minting_pb2

from chain_gateway.composition import Gateway
from chain_gateway.config import GatewaySettings
from devstack.postgres import Cluster
from mesh.config import ConfigurationError
from tests.integration.gateway_stage import (
    FUNDS_TON,
    Callers,
    NftRecorder,
    Stage,
    UserWallet,
    audit,
    calling,
    orders,
    playing,
    recording,
    reported,
)

KEY_FILES = "GATEWAY_MINTER_KEY_FILES"


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    """Set up with one wallet; there is the key of another."""
    folder = tmp_path_factory.mktemp("wallets")
    settings = {"GATEWAY_BATCH_MINTS": "10", "GATEWAY_MESSAGES_IN_FLIGHT": "2"}
    with playing(folder, postgres, make_database(), settings=settings) as stage:
        key = folder / "minter.key"
        key.write_text(os.urandom(32).hex())
        key.chmod(0o600)
        stage.environment[KEY_FILES] = str(key)
        yield stage


@pytest.fixture
async def nft(stage: Stage) -> AsyncIterator[NftRecorder]:
    async with recording(stage) as recorder:
        yield recorder


async def paused_for(callers: Callers, stage: Stage, reasons: Sequence[str]) -> None:
    """Waits until the wallets are paused for these reasons."""
    deadline = time.monotonic() + 45
    while True:
        status = await callers.chain.GetGatewayStatus(chain_pb2.GetGatewayStatusRequest())
        seen = [wallet.paused_reason for wallet in status.wallets]
        if seen == list(reasons):
            return
        assert time.monotonic() < deadline, (seen, stage.said())
        await asyncio.sleep(0.1)


async def carriers(callers: Callers, operations: Sequence[minting_pb2.Operation]) -> Counter[str]:
    return Counter([(await callers.operation(o.operation_id)).wallet_address for o in operations])


def doctor(stage: Stage) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "chain_gateway", "doctor"],
        env=os.environ | stage.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


async def test_setup_lets_another_wallet_mint(stage: Stage, nft: NftRecorder) -> None:
    owner, minter = stage.run("-m", "chain_gateway", "address").split()
    await asyncio.to_thread(stage.fund, minter, FUNDS_TON)
    async with calling(stage) as callers:
        await paused_for(callers, stage, ["", "NOT_A_MINTER"])
        assert f"does not let {minter} mint" in await asyncio.to_thread(doctor, stage)
        said = await asyncio.to_thread(stage.run, "-m", "chain_gateway", "setup")
        assert f"the wallet {minter}" in said
        assert "nothing is left to do" in stage.run("-m", "chain_gateway", "setup")
        await paused_for(callers, stage, ["", ""])
        assert "problem" not in await asyncio.to_thread(doctor, stage)

        wallet = UserWallet()
        await callers.link("an", wallet)
        ordered = orders("an", 160)
        mint_ids = {order.mint_id for order in ordered}
        operations = await callers.submit(ordered)
        await reported(nft, "FINALIZED", mint_ids, stage)
        await audit(stage, nft, mint_ids, wallet.address)
        carried = await carriers(callers, operations)
        print(carried)
        assert carried.keys() == {owner, minter}
        assert sum(carried.values()) == len(ordered)


async def test_another_process_takes_over_the_wallet_of_one_that_died(
    stage: Stage, nft: NftRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process leads the owner's wallet alone, the other one both as far as it can."""
    for name, value in stage.environment.items():
        monkeypatch.setenv(name, value)
    settings = GatewaySettings()
    monkeypatch.delenv(KEY_FILES)
    key_files = stage.environment.pop(KEY_FILES)
    async with calling(stage) as callers:
        await paused_for(callers, stage, [""])
        async with Gateway(settings) as other:
            owner, minter = (wallet.address for wallet in other.wallets)
            wallet = UserWallet()
            await callers.link("binh", wallet)
            ordered = orders("binh", 160)
            mint_ids = {order.mint_id for order in ordered}
            operations = await callers.submit(ordered)
            deadline = time.monotonic() + 30
            while owner not in await carriers(callers, operations):
                assert time.monotonic() < deadline, stage.said()
            stage.kill()
            await reported(nft, "FINALIZED", mint_ids, stage)
            await audit(stage, nft, mint_ids, wallet.address)
        stage.environment[KEY_FILES] = key_files
        stage.start()
        await paused_for(callers, stage, ["", ""])
        assert (await carriers(callers, operations)).keys() == {owner, minter}


async def test_a_wallet_that_may_mint_no_more_pauses(stage: Stage, nft: NftRecorder) -> None:
    """It learns so by a refusal; what it was refused, the owner's wallet mints."""
    owner, _ = stage.run("-m", "chain_gateway", "address").split()
    key_files = stage.environment[KEY_FILES]
    async with calling(stage) as callers:
        await paused_for(callers, stage, ["", ""])
        del stage.environment[KEY_FILES]
        await asyncio.to_thread(stage.run, "-m", "chain_gateway", "setup")
        stage.environment[KEY_FILES] = key_files
        wallet = UserWallet()
        await callers.link("chi", wallet)
        ordered = orders("chi", 60)
        mint_ids = {order.mint_id for order in ordered}
        operations = await callers.submit(ordered)
        await paused_for(callers, stage, ["", "NOT_A_MINTER"])
        await reported(nft, "FINALIZED", mint_ids, stage)
        await audit(stage, nft, mint_ids, wallet.address)
        assert (await carriers(callers, operations)).keys() == {owner}


def test_a_key_named_twice_is_refused(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in stage.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GATEWAY_NFT_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv(KEY_FILES, stage.environment["GATEWAY_WALLET_KEY_FILE"])
    with pytest.raises(ConfigurationError, match="named twice"):
        Gateway(GatewaySettings())
