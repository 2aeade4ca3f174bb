"""The devnet as a lite-client sees it, at every trust level, over restarts, and from a shell."""

import asyncio
import os
import signal
import stat
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pytoniq import HighloadWalletV3, LiteBalancer, LiteClient, LiteServerError
from pytoniq.contract.contract import Contract
from pytoniq_core import Address, Builder, Cell, begin_cell

from ton_devnet.faucet import NANOTONS
from ton_devnet.testing import Devnet

SOMEBODY = Address((0, b"\x07" * 32))
FAST = ("--block-interval", "0.005", "--idle-interval", "0.3")
WHOLE = -(2**63)


@asynccontextmanager
async def connected(net: Devnet, trust_level: int = 1) -> AsyncIterator[LiteBalancer]:
    client = LiteBalancer.from_config(net.config, trust_level=trust_level)
    await client.start_up()
    try:
        yield client
    finally:
        await client.close_all()


async def faucet_address(net: Devnet, client: LiteBalancer | LiteClient) -> Address:
    key = net.folder.existing_key("faucet")
    wallet = await HighloadWalletV3.from_data(client, bytes(key.verify_key))
    address: Address = wallet.address
    return address


async def head(client: LiteBalancer) -> int:
    return int((await client.get_masterchain_info())["last"]["seqno"])


async def send(client: LiteBalancer, to: Address, body: Cell) -> None:
    message = Contract.create_external_msg(dest=to, body=body)
    await client.raw_send_message(message.serialize().to_boc())


def bulky(levels: int, path: bytes = b"") -> Cell:
    """A tree of many different cells, 120 bytes each."""
    builder = begin_cell().store_bytes(path.rjust(120, b"\xff"))
    for branch in range(4 if levels else 0):
        builder.store_ref(bulky(levels - 1, path + bytes([branch])))
    return builder.end_cell()


@pytest.mark.parametrize("trust_level", [0, 1, 2])
async def test_every_read_holds_at_every_trust_level(
    trust_level: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # trust level 0 keeps its block store in the working directory
    async with Devnet(tmp_path / "ton", *FAST) as net:
        assert await net.fund(SOMEBODY, 5) == 5 * NANOTONS
        async with connected(net, trust_level) as client:
            assert (await client.get_account_state(SOMEBODY)).balance == 5 * NANOTONS
            missing = await client.get_account_state(Address((0, b"\x08" * 32)))
            assert missing.is_uninitialized()

            transactions, blocks = await client.raw_get_transactions(SOMEBODY, 4)
            newest = transactions[0]
            assert newest.in_msg.info.value.grams == 5 * NANOTONS
            one = await client.get_one_transaction(SOMEBODY, newest.lt, blocks[0])
            assert one.lt == newest.lt
            listed = await client.raw_get_block_transactions(blocks[0])
            assert [(entry["account"], entry["lt"]) for entry in listed] == [(SOMEBODY, newest.lt)]
            whole = await client.raw_get_block_transactions_ext(blocks[0])
            assert [transaction.lt for transaction in whole] == [newest.lt]

            by_lt, _ = await client.lookup_block(0, WHOLE, lt=newest.lt)
            assert by_lt == blocks[0]
            by_time, header = await client.lookup_block(-1, WHOLE, utime=newest.now)
            assert header.info.gen_utime <= newest.now
            first, _ = await client.lookup_block(-1, WHOLE, seqno=2)
            assert (await client.raw_get_block(first)).info.seqno == 2
            assert (await client.raw_get_block_header(by_time)).info.seqno == by_time.seqno
            assert [shard.seqno for shard in await client.get_all_shards_info(first)] == [2]
            assert 34 in await client.get_config_params([34])

            faucet = await faucet_address(net, client)
            assert await client.run_get_method(faucet, "get_timeout", []) == [3600]


async def test_a_restarted_network_is_the_same_chain(tmp_path: Path) -> None:
    async with Devnet(tmp_path / "ton", *FAST) as net:
        await net.fund(SOMEBODY, 1)
        before = net.config
        async with connected(net) as client:
            old_head = await head(client)
            ids = [
                (await client.lookup_block(-1, WHOLE, seqno=n))[0] for n in range(1, old_head + 1)
            ]
            lt = (await client.get_transactions(SOMEBODY, 1))[0].lt
        assert await net.stop() == 0
        await net.start()
        assert net.config == before
        await net.fund(SOMEBODY, 1)
        async with connected(net) as client:
            new_head = await head(client)
            assert new_head > old_head
            last = ids[0]
            for number in range(2, new_head + 1):
                block, header = await client.lookup_block(-1, WHOLE, seqno=number)
                previous = header.info.prev_ref.prev
                assert (previous.seqno, previous.root_hash) == (number - 1, last.root_hash)
                if number <= old_head:
                    assert block == ids[number - 1]
                last = block
            assert [t.lt for t in await client.get_transactions(SOMEBODY, 2)][1] == lt
            with pytest.raises(LiteServerError, match="is gone"):
                await client.raw_get_account_state(SOMEBODY, ids[1])


async def test_external_messages_are_held_to_the_limits(tmp_path: Path) -> None:
    async with Devnet(tmp_path / "ton", *FAST) as net, connected(net) as client:
        faucet = await faucet_address(net, client)
        deep = Builder().end_cell()
        for _ in range(513):
            deep = begin_cell().store_ref(deep).end_cell()
        with pytest.raises(LiteServerError, match="too deep: 513 cells, at most 512"):
            await send(client, faucet, deep)
        with pytest.raises(LiteServerError, match=r"too large: \d+ bytes, at most 65535"):
            await send(client, faucet, bulky(5))
        with pytest.raises(LiteServerError, match="exitcode=9"):
            await send(client, faucet, Cell.empty())
        with pytest.raises(LiteServerError, match="no code"):
            await send(client, SOMEBODY, Cell.empty())
        with pytest.raises(LiteServerError, match="cannot parse"):
            await client.raw_send_message(b"not a message")


async def test_strangers_on_the_port_do_no_harm(tmp_path: Path) -> None:
    async with Devnet(tmp_path / "ton", *FAST) as net:
        server = net.config["liteservers"][0]
        for hello in (b"GET / HTTP/1.1\r\n\r\n", os.urandom(256), os.urandom(4096)):
            reader, writer = await asyncio.open_connection("127.0.0.1", server["port"])
            writer.write(hello)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
        client = LiteClient("127.0.0.1", server["port"], server["id"]["key"])
        await client.connect()
        try:
            query = {
                "mode": 4,
                "id": (await client.get_masterchain_info())["last"],
                "account": (await faucet_address(net, client)).to_tl_account_id(),
                "method_id": 85143,
                "params": b"not a stack",
            }
            with pytest.raises(LiteServerError, match="VmStack"):
                await client.liteserver_request("runSmcMethod", query)
            with pytest.raises(LiteServerError, match="getState is not served"):
                await client.liteserver_request("getState", {"id": query["id"]})
        finally:
            await client.close()


async def test_chain_time_keeps_its_offset_and_never_goes_back(tmp_path: Path) -> None:
    async def chain_time(net: Devnet) -> int:
        async with connected(net) as client:
            return int((await client.get_masterchain_info_ext())["last_utime"])

    async with Devnet(tmp_path / "ton", *FAST, "--clock-offset", "3600") as net:
        assert await chain_time(net) >= time.time() + 3590
    async with Devnet(tmp_path / "ton", *FAST) as net:
        assert await net.fund(SOMEBODY, 1) == NANOTONS
        ahead = await chain_time(net)
        assert ahead >= time.time() + 3590
    async with Devnet(tmp_path / "ton", *FAST, "--clock-offset", "0") as net:
        assert await chain_time(net) >= ahead


async def test_a_quiet_chain_makes_empty_blocks(tmp_path: Path) -> None:
    async with Devnet(tmp_path / "ton", *FAST) as net, connected(net) as client:
        before = await head(client)
        await asyncio.sleep(1.5)
        assert 2 <= await head(client) - before <= 6


async def run(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "ton_devnet", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_the_command_line_helps(tmp_path: Path) -> None:
    state = tmp_path / "ton"
    code, output = await run("fund", "--state", str(state), SOMEBODY.to_str(), "1")
    assert code == 1
    assert "start the network first" in output
    async with Devnet(state, *FAST) as net:
        code, output = await run("serve", "--state", str(state))
        assert code == 1
        assert "another ton_devnet already serves" in output
        code, output = await run("fund", "--state", str(state), SOMEBODY.to_str(), "0.5")
        assert (code, output.strip().endswith("has 0.5 TON")) == (0, True)
        code, output = await run("fund", "--state", str(state), "nonsense", "1")
        assert code == 2
        assert "not a TON address" in output
        for name in ("faucet", "validator", "liteserver"):
            mode = (net.folder.path / f"{name}.key").stat().st_mode
            assert stat.S_IMODE(mode) == 0o600
        assert await net.stop(signal.SIGINT) == 0
        code, output = await run("fund", "--state", str(state), SOMEBODY.to_str(), "1")
        assert code == 1
        assert "does not answer; start it" in output
