"""SIGKILL at random moments under load: what was accepted is executed, and the chain goes on."""

import asyncio
import contextlib
import itertools
import os
import random
from pathlib import Path

import nacl.signing
from pytoniq import HighloadWalletV3, LiteBalancer
from pytoniq_core import Address, Cell

from ton_devnet.testing import Devnet

KILLS = 5
SENDERS = 4
AMOUNT = 10**7


def destination(query_id: int) -> Address:
    return Address((0, query_id.to_bytes(32, "big")))


class Load:
    """Sends one transfer after another from a highload wallet, and notes what was accepted."""

    def __init__(self, key: bytes, query_ids: "itertools.count[int]") -> None:
        self._key, self._query_ids = key, query_ids
        self.accepted: set[int] = set()
        self.sent = 0

    async def wallet(self, client: LiteBalancer) -> HighloadWalletV3:
        return await HighloadWalletV3.from_private_key(client, self._key)

    async def run(self, client: LiteBalancer) -> None:
        wallet = await self.wallet(client)
        while True:
            query_id = next(self._query_ids)
            message = wallet.create_wallet_internal_message(
                destination(query_id), send_mode=1, value=AMOUNT, body=Cell.empty(), bounce=False
            )
            body = wallet.raw_create_transfer_msg(
                wallet.private_key, wallet.wallet_id, [message], query_id, 3600
            )
            self.sent += 1
            if await wallet.send_external(body=body) == 1:
                self.accepted.add(query_id)


async def connect(net: Devnet) -> LiteBalancer:
    client = LiteBalancer.from_config(net.config, trust_level=2)
    await client.start_up()
    return client


async def test_nothing_accepted_is_lost_when_the_server_is_killed(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(10**9)))
    print(f"SEED={seed}")
    rng = random.Random(seed)
    signing = nacl.signing.SigningKey(rng.randbytes(32))
    load = Load(bytes(signing) + bytes(signing.verify_key), itertools.count(1))
    net = Devnet(tmp_path / "ton", "--block-interval", "0.01", "--idle-interval", "0.3")
    heads = []
    async with net:
        await deploy(net, load)
        config = net.config
        for _ in range(KILLS):
            client = await connect(net)
            senders = [asyncio.create_task(load.run(client)) for _ in range(SENDERS)]
            await asyncio.sleep(rng.uniform(0.2, 0.8))
            await net.kill()
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
            with contextlib.suppress(Exception):
                await client.close_all()
            await net.start()
            assert net.config == config
            client = await connect(net)
            heads.append((await client.get_masterchain_info())["last"]["seqno"])
            await client.close_all()
        assert heads == sorted(set(heads))
        assert len(load.accepted) > KILLS
        client = await connect(net)
        try:
            async with asyncio.timeout(20):
                await everything_arrived(client, load)
        finally:
            await client.close_all()


async def deploy(net: Devnet, load: Load) -> None:
    client = await connect(net)
    try:
        wallet = await load.wallet(client)
        await net.fund(wallet.address, 1000)
        body = wallet.raw_create_transfer_msg(
            wallet.private_key,
            wallet.wallet_id,
            [wallet.create_wallet_internal_message(wallet.address)],
            0,
            3600,
        )
        await wallet.send_external(state_init=wallet.state_init, body=body)
        while not wallet.is_active:
            await asyncio.sleep(0.05)
            await wallet.update()
    finally:
        await client.close_all()


async def everything_arrived(client: LiteBalancer, load: Load) -> None:
    """Each accepted transfer reached its own destination exactly once."""
    for query_id in load.accepted:
        balance = 0
        while not balance:
            await asyncio.sleep(0.001)
            balance = (await client.get_account_state(destination(query_id))).balance
        assert balance == AMOUNT
