"""What the local TON network can do: transactions a second, memory a transaction, restart.

One highload wallet pays every account once, 250 in a message, so that each account costs a
transaction; the messages are signed beforehand. Part of `make bench-gateway`.
"""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from nacl.signing import SigningKey
from pytoniq import HighloadWalletV3, LiteClient
from pytoniq_core import Address, Cell
from pytoniq_core.tlb.transaction import ExternalMsgInfo, MessageAny

from bench.measure import Figure
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


async def measured(folder: Path, accounts: int) -> list[Figure]:
    """Pays so many accounts on a new network, then kills it and starts it again."""
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
        Figure("devnet.tx_per_s", round(transactions / seconds), "tx/s", None, None, 500, "higher"),
        Figure("devnet.bytes_per_tx", round(memory / transactions), "B", None, None, 2048, "lower"),
        Figure("devnet.restart_s_100k", round(restart, 2), "s", None, None, 2, "lower"),
    ]
