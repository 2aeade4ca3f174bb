"""What the local TON network can do: transactions a second, memory a transaction, restart.

    python bench/devnet.py [--accounts 100000]

One highload wallet pays every account once, 250 in a message, so that each account costs a
transaction; the messages are signed beforehand. Prints a JSON list of measurements.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nacl.signing import SigningKey
from pytoniq import HighloadWalletV3, LiteClient
from pytoniq_core import Address, Cell
from pytoniq_core.tlb.transaction import ExternalMsgInfo, MessageAny

from ton_devnet.faucet import genesis_account
from ton_devnet.testing import Devnet

PAID_TOGETHER = 250
WARM_UP = 8
"""Messages sent before the clock starts."""
IN_FLIGHT = 8
AMOUNT = 10**7


def message(key: SigningKey, wallet: Address, number: int, accounts: Sequence[int]) -> bytes:
    """One signed external message that pays these accounts."""
    payments = [
        HighloadWalletV3.create_wallet_internal_message(
            Address((0, account.to_bytes(32, "big"))),
            send_mode=1,
            value=AMOUNT,
            body=Cell.empty(),
            bounce=False,
        )
        for account in accounts
    ]
    signer = HighloadWalletV3(None, wallet)
    private = bytes(key) + bytes(key.verify_key)
    # Bit number 1023 of a shift is forbidden.
    query_id = number // 1000 << 10 | number % 1000
    created = int(time.time()) - 60
    body = signer.raw_create_transfer_msg(private, 0x10AD, payments, query_id, 3600, created)
    info = ExternalMsgInfo(None, wallet, 0)
    return bytes(MessageAny(info=info, init=None, body=body).serialize().to_boc())


def scattered(count: int) -> list[int]:
    """Addresses spread over the whole space as hashes are, the same in every run."""
    golden = 0x9E3779B97F4A7C15F39CC0605CEDC8341082276BF3A27251F86C6A11D0C18E95
    return [(number * golden) % 2**256 for number in range(1, count + 1)]


def resident(net: Devnet) -> int:
    """Bytes of memory the network's process holds."""
    status = Path(f"/proc/{net.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


async def everything_done(net: Devnet) -> int:
    """Number of the block after which nothing is waiting any more."""
    while True:
        status = await net.control.status()
        if not status["pending"]:
            return int(status["head"])
        await asyncio.sleep(0.05)


async def send(net: Devnet, messages: Sequence[bytes]) -> None:
    server = net.config["liteservers"][0]
    client = LiteClient("127.0.0.1", server["port"], server["id"]["key"], timeout=60)
    await client.connect()
    gate = asyncio.Semaphore(IN_FLIGHT)

    async def one(boc: bytes) -> None:
        async with gate:
            await client.raw_send_message(boc)

    try:
        await asyncio.gather(*(one(boc) for boc in messages))
        await everything_done(net)
    finally:
        await client.close()


async def measured(folder: Path, accounts: int) -> list[dict[str, Any]]:
    async with Devnet(folder) as net:
        key = net.folder.existing_key("faucet")
        address, _ = genesis_account(key, 0)
        wallet = Address((0, address))
        paid = scattered(accounts)
        batches = [paid[at : at + PAID_TOGETHER] for at in range(0, accounts, PAID_TOGETHER)]
        messages = [message(key, wallet, number, batch) for number, batch in enumerate(batches)]
        await send(net, messages[:WARM_UP])
        memory, started = resident(net), time.perf_counter()
        await send(net, messages[WARM_UP:])
        seconds, memory = time.perf_counter() - started, resident(net) - memory
        transactions = sum(1 + PAID_TOGETHER for _ in messages[WARM_UP:])
        await net.kill()
        started = time.perf_counter()
        await net.start()
        restart = time.perf_counter() - started
    return [
        _result("devnet.tx_per_s", transactions / seconds, "tx/s", None, "higher"),
        _result("devnet.bytes_per_tx", memory / transactions, "B", 2048, "lower"),
        _result("devnet.restart_s_100k", restart, "s", 2, "lower"),
    ]


def _result(name: str, value: float, unit: str, goal: float | None, better: str) -> dict[str, Any]:
    ratio = None if goal is None else round(value / goal, 3)
    return {
        "name": name,
        "value": round(value, 2),
        "unit": unit,
        "baseline": None,
        "ratio": ratio,
        "goal": goal,
        "better": better,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accounts", type=int, default=100_000, help="(default %(default)s)")
    accounts = parser.parse_args().accounts
    if accounts < 2 * WARM_UP * PAID_TOGETHER:
        parser.error(f"--accounts: give {2 * WARM_UP * PAID_TOGETHER} or more")
    with tempfile.TemporaryDirectory() as folder:
        json.dump(asyncio.run(measured(Path(folder) / "ton", accounts)), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
