"""Mints while everything fails that can; in the end each exists once, as the chain itself tells.

`CHAOS_MINTS` says how many; 2,000 take some minutes. The run prints its seed; `SEED=…` repeats its
choices.
"""

import asyncio
import json
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from go2asia.gateway.v1 import minting_pb2
from sqlalchemy import text

from chain_gateway import content, items
from chain_gateway.cells import read
from chain_gateway.ton import Account, Block, Chain
from chain_gateway.transactions import Transaction
from devstack.ports import free_port
from devstack.postgres import Cluster
from mesh.db import Database
from mesh.errors import MeshError
from tests.integration.gateway_stage import (
    Callers,
    NftRecorder,
    Stage,
    UserWallet,
    calling,
    orders,
    playing,
    recording,
)
from ton_devnet.controller import Controller
from ton_devnet.folder import StateFolder

MINTS = int(os.environ.get("CHAOS_MINTS", "150"))
MINTS_A_ROUND = 250
USERS = 5
# Nothing that is final may be rolled back.
FINALITY_BLOCKS, DEEPEST_ROLLBACK = 4, 3
# A message is valid for so long; what was lost with it goes into another one.
TIMEOUT_SECONDS = 10
SETTINGS = {
    "GATEWAY_WALLET_TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
    "GATEWAY_FINALITY_BLOCKS": str(FINALITY_BLOCKS),
    "GATEWAY_DELIVERY_GRACE_SECONDS": "6",
    "GATEWAY_BATCH_MINTS": "25",
}
LONGEST_PAUSE_SECONDS = 1.5
RECOVERY_SECONDS = 90
# The devnet keeps states of its newest 32 blocks.
READ_AT_ONCE = 100
TRANSIENT = {"UNAVAILABLE", "CONCURRENT_UPDATE"}
DATABASE = "gateway"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A Postgres of this test's own: it is killed."""
    cluster = Cluster(tmp_path / "postgres", free_port())
    try:
        cluster.start()
        cluster.provision(DATABASE)
        yield cluster
    finally:
        cluster.stop()


class Chaos:
    """What strikes: each of the `strikes` once a round, in an order and at moments of chance."""

    def __init__(self, stage: Stage, cluster: Cluster, chance: random.Random) -> None:
        self._stage = stage
        self._cluster = cluster
        self._chance = chance
        self._network = Controller(StateFolder(stage.network))
        self.struck: Counter[str] = Counter()
        self.strikes: list[Callable[[], Awaitable[None]]] = [
            self.kill_gateway,
            self.kill_postgres,
            self.kill_devnet,
            self.drop,
            self.drop_until_expired,
            self.delay,
            self.roll_back,
            self.roll_back_and_lose,
            self.refuse,
            self.fall_silent,
            self.freeze,
        ]

    def round(self) -> list[Callable[[], Awaitable[None]]]:
        return self._chance.sample(self.strikes, len(self.strikes))

    async def strike(self, strike: Callable[[], Awaitable[None]]) -> None:
        await self._pause()
        await strike()
        self.struck[strike.__name__] += 1

    async def kill_gateway(self) -> None:
        self._stage.kill()
        await self._pause()
        self._stage.start()

    async def kill_postgres(self) -> None:
        await asyncio.to_thread(self._cluster.kill)
        await self._pause()
        await asyncio.to_thread(self._cluster.start)

    async def kill_devnet(self) -> None:
        self._stage.kill_network()
        await self._pause()
        await asyncio.to_thread(self._stage.start_network)
        while True:
            with suppress(Exception):  # it is starting: the control file may be the old one
                await self._network.status()
                return
            await asyncio.sleep(0.1)

    async def drop(self) -> None:
        await self._network.drop(share=0.7)
        await self._pause()
        await self._network.clear()

    async def drop_until_expired(self) -> None:
        await self._network.drop()
        await asyncio.sleep(TIMEOUT_SECONDS + 2)
        await self._network.clear()

    async def delay(self) -> None:
        seconds = self._chance.uniform(0.5, 1.5 * TIMEOUT_SECONDS)
        await self._network.delay(seconds, next=self._chance.randint(3, 12))

    async def roll_back(self) -> None:
        await self._network.rollback(self._chance.randint(1, DEEPEST_ROLLBACK))

    async def roll_back_and_lose(self) -> None:
        depth = self._chance.randint(1, DEEPEST_ROLLBACK)
        await self._network.rollback(depth, lose_externals=True)

    async def refuse(self) -> None:
        await self._network.error(share=0.3)
        await self._pause()
        await self._network.clear()

    async def fall_silent(self) -> None:
        await self._network.timeout(share=0.3, next=20)

    async def freeze(self) -> None:
        await self._network.freeze()
        await self._pause()
        await self._network.thaw()

    async def end(self) -> None:
        await self._network.clear()

    async def _pause(self) -> None:
        await asyncio.sleep(self._chance.uniform(0, LONGEST_PAUSE_SECONDS))


@pytest.mark.timeout(300 + MINTS)
async def test_each_mint_exists_once_whatever_fails(tmp_path: Path, cluster: Cluster) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed} CHAOS_MINTS={MINTS}")
    chance = random.Random(seed)
    wallets = {f"user-{number}": UserWallet() for number in range(USERS)}
    ordered = [order for user in wallets for order in orders(user, MINTS // USERS)]
    chance.shuffle(ordered)
    funds = 100 + MINTS // 5
    with playing(tmp_path, cluster, DATABASE, funds=funds, settings=SETTINGS) as stage:
        async with recording(stage) as nft, calling(stage) as callers:
            for user, wallet in wallets.items():
                await callers.link(user, wallet)
            chaos = Chaos(stage, cluster, chance)
            began = time.monotonic()
            # It ends by itself when it starts while Postgres is dead.
            supervisor = asyncio.create_task(stage.supervise())
            await under_fire(stage, callers, chaos, ordered)
            print(f"struck {sum(chaos.struck.values())} times in {time.monotonic() - began:.0f} s")
            mint_ids = {order.mint_id for order in ordered}
            await all_finalized(stage, nft, mint_ids)
            print(f"{MINTS} mints final after {time.monotonic() - began:.0f} s")
            supervisor.cancel()
        await audit_operations(cluster, mint_ids)
        owners = {order.mint_id: wallets[order.user_id].address for order in ordered}
        await audit_chain(stage, ordered, owners)


async def under_fire(
    stage: Stage, callers: Callers, chaos: Chaos, ordered: Sequence[minting_pb2.MintOrder]
) -> None:
    """Submits all orders, a slice with each strike."""
    rounds = -(-len(ordered) // MINTS_A_ROUND)
    strikes = [strike for _ in range(rounds) for strike in chaos.round()]
    size = -(-len(ordered) // len(strikes))
    for number, strike in enumerate(strikes):
        piece = ordered[number * size : (number + 1) * size]
        await asyncio.gather(submit(stage, callers, list(piece)), chaos.strike(strike))
    await chaos.end()


async def submit(stage: Stage, callers: Callers, piece: list[minting_pb2.MintOrder]) -> None:
    """Submits until all are taken, as a caller that does not give up."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while piece:
        assert time.monotonic() < deadline, stage.said()
        with suppress(MeshError):
            answer = await callers.minting.BatchSubmitMints(
                minting_pb2.BatchSubmitMintsRequest(orders=piece)
            )
            refused = [
                (order, result.error)
                for order, result in zip(piece, answer.results, strict=True)
                if result.HasField("error")
            ]
            assert {error.reason for _, error in refused} <= TRANSIENT, refused[0][1]
            piece = [order for order, _ in refused]
        await asyncio.sleep(0.2)


async def all_finalized(stage: Stage, nft: NftRecorder, mint_ids: set[str]) -> None:
    deadline = time.monotonic() + RECOVERY_SECONDS
    while nft.states() != {"MINT_STATE_FINALIZED": len(mint_ids)}:
        assert time.monotonic() < deadline, (nft.states(), stage.said())
        await asyncio.sleep(0.2)


async def audit_operations(cluster: Cluster, mint_ids: set[str]) -> None:
    """What the Gateway itself holds to be true."""
    async with (
        Database(cluster.url(DATABASE), application_name="audit") as database,
        database.transaction(read_only=True) as connection,
    ):
        found = await connection.execute(
            text("SELECT mint_id::text, state, item_index FROM operations")
        )
        rows = found.all()
        sent = await connection.execute(
            text("SELECT count(*), sum(cardinality(operation_ids)) FROM messages")
        )
        messages, carried = sent.one()
    print(f"{messages} wallet messages carried {carried} mints, {carried - len(rows)} once more")
    assert {mint_id for mint_id, _, _ in rows} == mint_ids
    assert {state for _, state, _ in rows} == {minting_pb2.OPERATION_STATE_FINALIZED}
    assert sorted(index for _, _, index in rows) == list(range(len(mint_ids)))


async def audit_chain(
    stage: Stage, ordered: Sequence[minting_pb2.MintOrder], owners: dict[str, str]
) -> None:
    """Every transaction of the collection, and every item, as the chain has them."""
    collection = stage.collection()
    async with stage.chain() as chain:
        head = await chain.wait(None, 10)
        mints = await asked_for(chain, collection.address, head)
        addresses = [collection.item_address(index) for index in range(len(ordered))]
        beyond = collection.item_address(len(ordered))
        accounts: dict[str, Account] = {}
        for start in range(0, len(addresses) + 1, READ_AT_ONCE):
            part = [*addresses, beyond][start : start + READ_AT_ONCE]
            accounts |= await chain.accounts(part, chain.head)
    assert {index: len(ids) for index, ids in mints.items() if len(ids) != 1} == {}
    by_mint = {mint_id: index for index, [mint_id] in mints.items()}
    assert len(by_mint) == len(mints), "one mint id was sent to several indices"
    assert by_mint.keys() == owners.keys()
    assert sorted(mints) == list(range(len(ordered)))
    assert accounts[beyond].data is None
    for order in ordered:
        data = accounts[addresses[by_mint[order.mint_id]]].data
        assert data is not None, f"mint {order.mint_id} has no item"
        item = items.read_item(data)
        assert item.mint_id == order.mint_id
        assert item.owner == owners[order.mint_id]
        assert item.content is not None
        says = content.decode(item.content)
        assert (says["name"], says["mint_id"]) == (order.content.name, order.mint_id)
        assert json.loads(says["attributes"]) == [{"trait_type": "level", "value": "3"}]


async def asked_for(chain: Chain, collection: str, head: Block) -> dict[int, set[str]]:
    """The mint ids that were ever sent to each index, by all transactions of the collection."""
    account = await chain.account(collection, head)
    history = await chain.history(collection, account, since=0)
    assert history[-1].lt < history[0].lt
    found: dict[int, set[str]] = defaultdict(set)
    times = 0
    for transaction in history:
        if (mint := _mint(transaction)) is not None:
            index, mint_id = mint
            found[index].add(mint_id)
            times += 1
    print(f"{len(history)} transactions of the collection, {times} of them mints")
    return found


def _mint(transaction: Transaction) -> tuple[int, str] | None:
    incoming = transaction.incoming
    if incoming is None or incoming.op != items.OP_MINT or transaction.aborted:
        return None
    body = read(incoming.body)
    body.skip_bits(32 + 64)
    index = body.load_uint(64)
    item = read(body.load_ref())
    item.load_address()
    return index, items.read_mint_id(item)
