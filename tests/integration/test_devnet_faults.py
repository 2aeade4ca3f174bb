"""A devnet that misbehaves on request, as unmodified pytoniq sees it."""

import asyncio
import contextlib
import itertools
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pytoniq import HighloadWalletV3, LiteBalancer, LiteServerError
from pytoniq.liteclient.balancer import BalancerError
from pytoniq_core import Address, Cell
from pytoniq_core.tl.block import BlockIdExt

from ton_devnet.controller import ControlRefusedError
from ton_devnet.faucet import NANOTONS
from ton_devnet.testing import Devnet

FAST = ("--block-interval", "0.005", "--idle-interval", "0.2")
SOMEBODY = Address((0, b"\x07" * 32))
_query_ids: Iterator[int] = itertools.count(secrets.randbelow(1000) << 10)


@contextlib.asynccontextmanager
async def connected(net: Devnet, trust_level: int = 1) -> AsyncIterator[LiteBalancer]:
    client = LiteBalancer.from_config(net.config, trust_level=trust_level, timeout=2)
    await client.start_up()
    try:
        yield client
    finally:
        await client.close_all()


async def pay(net: Devnet, client: LiteBalancer, now: int | None = None) -> int:
    """One TON from the faucet to somebody; gives what the lite-server said."""
    key = net.folder.existing_key("faucet")
    wallet = await HighloadWalletV3.from_private_key(client, bytes(key) + bytes(key.verify_key))
    message = wallet.create_wallet_internal_message(
        SOMEBODY, send_mode=1, value=NANOTONS, body=Cell.empty(), bounce=False
    )
    created = now or int(time.time()) - 5
    body = wallet.raw_create_transfer_msg(
        wallet.private_key, wallet.wallet_id, [message], next(_query_ids), 3600, created
    )
    return int(await wallet.send_external(body=body))


async def balance(client: LiteBalancer) -> int:
    """In whole TON: an account pays a little for its storage."""
    nanotons: int = (await client.get_account_state(SOMEBODY)).balance
    return round(nanotons / NANOTONS)


async def becomes(client: LiteBalancer, ton: int) -> None:
    async with asyncio.timeout(10):
        while await balance(client) != ton:  # noqa: ASYNC110 - it is in another process
            await asyncio.sleep(0.02)


async def test_dropped_and_delayed_messages_are_accepted_all_the_same(tmp_path: Path) -> None:
    async with Devnet(tmp_path / "ton", *FAST) as net, connected(net) as client:
        await net.control.drop(next=1)
        assert await pay(net, client) == 1
        assert await pay(net, client) == 1
        await becomes(client, 1)
        await net.control.delay(0.8, next=1)
        started = time.monotonic()
        assert await pay(net, client) == 1
        assert (await net.control.status())["late"] == 1
        await becomes(client, 2)
        assert time.monotonic() - started >= 0.8
        status = await net.control.status()
        assert [(fault["effect"], fault["hits"]) for fault in status["faults"]] == [
            ("drop", 1),
            ("delay", 1),
        ]


async def test_named_queries_fail_or_stay_unanswered(tmp_path: Path) -> None:
    async with Devnet(tmp_path / "ton", *FAST) as net, connected(net) as client:
        await net.control.error(["getAccountState"], code=651, message="not yet", next=1)
        with pytest.raises(LiteServerError, match="not yet"):
            await balance(client)
        assert await balance(client) == 0
        await net.control.timeout(["getAccountState"])
        assert (await client.get_masterchain_info())["last"]["seqno"] > 0
        with pytest.raises(BalancerError, match="no alive peers"):
            await balance(client)
        await net.control.clear()
        async with connected(net) as again:  # the balancer gives a silent peer up
            assert await balance(again) == 0
        with pytest.raises(ControlRefusedError, match="no such query: getNothing; there are"):
            await net.control.error(["getNothing"])


async def test_a_frozen_head_takes_messages_but_makes_no_blocks(tmp_path: Path) -> None:
    async with Devnet(tmp_path / "ton", *FAST) as net, connected(net) as client:
        frozen = await net.control.freeze()
        assert await pay(net, client) == 1
        await asyncio.sleep(0.6)
        status = await net.control.status()
        assert (status["head"], status["pending"]) == (frozen["head"], 1)
        assert (await net.control.blocks(2))["head"] == frozen["head"] + 2
        await net.control.thaw()
        await becomes(client, 1)


@pytest.mark.parametrize("trust_level", [1, 2])
async def test_a_client_sees_a_shorter_head_and_then_another_fork(
    trust_level: int, tmp_path: Path
) -> None:
    async with Devnet(tmp_path / "ton", *FAST) as net, connected(net, trust_level) as client:
        await net.control.freeze()
        await net.control.blocks(3)
        await pay(net, client)
        before = await net.control.blocks(3)
        await becomes(client, 1)
        old = (await client.get_masterchain_info())["last"]
        assert old["root_hash"] == before["root_hash"]

        shorter = await net.control.rollback(3)
        assert shorter["head"] == before["head"] - 3
        assert shorter["pending"] == 1
        assert (await client.get_masterchain_info())["last"]["seqno"] == shorter["head"]
        async with connected(net, trust_level) as fresh:
            assert await balance(fresh) == 0
        with pytest.raises(LiteServerError, match="not known"):
            await balance(client)  # it asks about a head that is no more, until it hears of another

        await net.control.thaw()
        await net.control.blocks(3)
        await asyncio.sleep(0.3)
        await becomes(client, 1)
        with pytest.raises(LiteServerError, match="another block"):
            await client.raw_get_block_header(BlockIdExt.from_dict(old))
        replaced, _ = await client.lookup_block(-1, -(2**63), seqno=before["head"])
        assert replaced.root_hash.hex() != before["root_hash"]


async def test_a_restart_keeps_a_rollback_and_ends_the_faults(tmp_path: Path) -> None:
    async with Devnet(tmp_path / "ton", *FAST) as net:
        await net.control.freeze()
        await net.control.blocks(3)
        async with connected(net) as client:
            await pay(net, client)
        await net.control.blocks(2)
        await net.control.drop()
        await net.control.rollback(2, lose_externals=True)
        await net.kill()
        await net.start()
        status = await net.control.status()
        assert (status["frozen"], status["faults"]) == (False, [])
        async with connected(net) as client:
            assert await balance(client) == 0
            await pay(net, client)
            await becomes(client, 1)


async def test_manual_time_moves_only_when_told(tmp_path: Path) -> None:
    start = 1_900_000_000
    manual = ("--clock", "manual", "--start-time", str(start))
    async with Devnet(tmp_path / "ton", *FAST, *manual) as net:
        async with connected(net) as client:
            await asyncio.sleep(1.2)
            info = await client.get_masterchain_info_ext()
            assert (info["now"], info["last_utime"]) == (start, start)
            await pay(net, client, start)
            await becomes(client, 1)
            await net.control.advance_time(7200)
            with pytest.raises(ControlRefusedError, match="never goes back"):
                await net.control.set_time(start + 7199)
            assert (await net.control.blocks())["head_time"] == start + 7200
            with pytest.raises(LiteServerError, match="exitcode=35"):
                await pay(net, client, start)
            await pay(net, client, start + 7200)
            await becomes(client, 2)
            await net.control.blocks(3)
            await net.control.rollback(2)
            assert (await net.control.blocks())["head_time"] == start + 7200
        await net.kill()
        await net.start()
        assert (await net.control.status())["time"] == start + 7200
        assert round(await net.fund(SOMEBODY, 1) / NANOTONS) == 3


async def run(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ton_devnet", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_faults_from_a_shell(tmp_path: Path) -> None:
    state = str(tmp_path / "ton")
    code, output = await run("status", "--state", state)
    assert (code, "start the network first" in output) == (1, True)
    async with Devnet(tmp_path / "ton", *FAST) as net:
        code, output = await run("fault", "error", "--state", state, "getTime", "--next", "5")
        assert code == 0
        (fault,) = json.loads(output)["faults"]
        assert (fault["code"], fault["queries"], fault["left"]) == (652, ["getTime"], 5)
        code, output = await run("fault", "rollback", "--state", state, "999")
        assert (code, "cannot roll back 999 blocks" in output) == (1, True)
        code, output = await run("clock", "advance", "--state", state, "5")
        assert (code, "--clock manual" in output) == (1, True)
        code, output = await run("fault", "clear", "--state", state)
        assert json.loads(output)["faults"] == []
        assert (net.folder.control.stat().st_mode & 0o777) == 0o600
        port, _ = net.folder.read_control()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b'{"token": "guessed", "command": "status"}\nnonsense\n')
        assert "wrong token" in (await reader.readline()).decode()
        assert "send {" in (await reader.readline()).decode()
        writer.close()
