"""The NFT service and the Gateway die at random while badges are minted, and the chain steps back.

Each instance ends with exactly one item, by a scan of every transaction of the collection, and
whoever watched through it all, hanging up at random, knows the final state. The run prints its
seed; `SEED=… MINTS=1000 make test TESTS=tests/fault/test_nft_kills.py` repeats its choices.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from go2asia.gateway.v1 import chain_pb2, chain_pb2_grpc, wallets_pb2_grpc
from go2asia.nft.v1 import catalog_pb2, catalog_pb2_grpc, nft_pb2, nft_pb2_grpc, rewards_pb2_grpc
from pytoniq import LiteBalancer

from devstack.demo.people import Person, link_wallet, make_person
from devstack.demo.run import quiet_logs
from devstack.stack import Stack
from mesh.client import open_channel
from mesh.errors import MeshError
from tests.fault.collection_scan import mintings
from tests.integration.nft_watching import Knowledge
from tests.rpc.nft_process import Watch, explorer, reward
from ton_devnet.controller import Controller
from ton_devnet.folder import StateFolder

MINTS = int(os.environ.get("MINTS", 40))
KILLS = max(6, MINTS // 40)
ROLLBACKS = 20 + MINTS // 20
WATCHERS = min(MINTS, 60)
VICTIMS = ("nft", "gateway")
SETTLED_WITHIN_SECONDS = 120 + MINTS / 2
RETRY_FOR = timedelta(minutes=30)
BACK_WITHIN_SECONDS = 120
PAGE = 500


class Play:
    """A running stack, and everybody who has to do with it."""

    def __init__(self, stack: Stack, network: StateFolder, chance: random.Random) -> None:
        self.stack = stack
        self.chance = chance
        self.people = [make_person(f"user-{number}", b"kills") for number in range(MINTS)]
        self.killed: Counter[str] = Counter()
        self.disconnects = 0
        self.mint_ids: dict[str, str] = {}
        self._network = network
        self._open = AsyncExitStack()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["Play"]:
        """With its channels, until the end of the block."""
        async with self._open:
            self.authors = await self._channel("nft", "economy-manager/manager")
            self.connect = await self._channel("nft", "connect/connect")
            self.app = await self._channel("nft", "bff/bff")
            self.wallets = await self._channel("gateway", "bff/bff")
            self.chain = await self._channel("gateway", "operator/ops")
            yield self

    async def _channel(self, service: str, identity: str) -> Any:
        tls = self.stack.tls(identity)
        channel = open_channel(self.stack.address(service), tls, retry_for=RETRY_FOR)
        return await self._open.enter_async_context(channel)

    async def reward_everybody(self) -> None:
        """One after the other and some twice, over the time of the kills."""
        stub: Any = rewards_pb2_grpc.RewardServiceStub(self.connect)

        async def give(person: Person) -> None:
            await asyncio.sleep(self.chance.uniform(0, KILLS))
            request = reward(person.user_id, request_id=f"give-{person.user_id}")
            for _ in range(self.chance.choice((1, 1, 2))):
                outcome = (await stub.ApplyReward(request)).outcome
                known = self.mint_ids.setdefault(person.user_id, outcome.mint_id)
                assert known == outcome.mint_id, "the same request, another mint"

        await asyncio.gather(*(give(person) for person in self.people))

    async def link_wallets(self) -> None:
        """Half of the people before they have a badge, half after."""
        stub: Any = wallets_pb2_grpc.WalletLinkServiceStub(self.wallets)

        async def link(person: Person) -> None:
            await asyncio.sleep(self.chance.uniform(0, 2 * KILLS))
            while True:
                # A challenge is spent by an attempt whose answer was lost.
                with suppress(MeshError):
                    return await link_wallet(person, stub)

        await asyncio.gather(*(link(person) for person in self.people))

    async def kill(self) -> None:
        """Kills a victim after the other, each as soon as it has come back for a moment."""
        for _ in range(KILLS):
            victim = self.chance.choice(VICTIMS)
            await asyncio.to_thread(self.stack.wait_healthy, victim, BACK_WITHIN_SECONDS)
            await asyncio.sleep(self.chance.uniform(0, 1.5))
            await asyncio.to_thread(self.stack.kill, victim)
            self.killed[victim] += 1

    async def roll_back(self) -> None:
        """Undoes the chain's newest block now and then, never the one below it: that is final.

        Then lets the chain gain on it, or nothing would ever be final.
        """
        controller = Controller(self._network)
        for _ in range(ROLLBACKS):
            await asyncio.sleep(self.chance.uniform(0.3, 1.5))
            await controller.rollback(1)
            await controller.blocks(3)

    async def watch(self, person: Person) -> Knowledge:
        """Follows one person's mints until one is final; hangs up whenever it likes."""
        stub: Any = nft_pb2_grpc.NftServiceStub(self.app)
        knowledge = Knowledge()
        while True:
            patience = self.chance.randint(1, 5)
            request = Watch(user_id=person.user_id, resume_token=knowledge.token)
            call = stub.WatchMintStatus(request)
            try:
                async for message in call:
                    knowledge.fold(message)
                    patience -= 1
                    if _all_final(knowledge):
                        return knowledge
                    if not patience:
                        break
            except MeshError:
                self.disconnects += 1
            finally:
                call.cancel()
            await asyncio.sleep(self.chance.uniform(0, 0.3))

    async def mints(self) -> list[nft_pb2.Mint]:
        """Every mint that the NFT service knows."""
        stub: Any = nft_pb2_grpc.NftServiceStub(self.app)
        found: list[nft_pb2.Mint] = []
        request = nft_pb2.ListMintsRequest(page_size=PAGE)
        while True:
            page = await stub.ListMints(request)
            found += page.mints
            if not page.next_page_token:
                return found
            request.page_token = page.next_page_token

    async def settled(self) -> list[nft_pb2.Mint]:
        """The mints, once all are final."""
        async with asyncio.timeout(SETTLED_WITHIN_SECONDS):
            while True:
                mints = await self.mints()
                states = Counter(nft_pb2.MintState.Name(mint.state) for mint in mints)
                if states == {"MINT_STATE_FINALIZED": MINTS}:
                    return mints
                await asyncio.sleep(0.5)


def _all_final(knowledge: Knowledge) -> bool:
    states = {mint.state for mint in knowledge.mints.values()}
    return states == {nft_pb2.MINT_STATE_FINALIZED}


@pytest.mark.timeout(300 + 2 * MINTS)
async def test_every_badge_is_minted_exactly_once(tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", random.randrange(2**32)))
    print(f"SEED={seed}")
    quiet_logs()
    state = tmp_path / "state"
    with Stack.running(state, services=VICTIMS) as stack:
        play = Play(stack, StateFolder(state / "devnet"), random.Random(seed))
        async with play.opened():
            catalogue: Any = catalog_pb2_grpc.NftCatalogServiceStub(play.authors)
            await catalogue.CreateNftType(
                catalog_pb2.CreateNftTypeRequest(request_id="type", nft_type=explorer())
            )
            watching = [asyncio.create_task(play.watch(one)) for one in play.people[:WATCHERS]]
            rolling = asyncio.create_task(play.roll_back())
            await asyncio.gather(play.reward_everybody(), play.link_wallets(), play.kill())
            await rolling
            mints = await play.settled()
            watched = await asyncio.gather(*watching)
            print(f"{MINTS} mints, {dict(play.killed)} killed")
            rollbacks = sum(one.rollbacks for one in watched)
            print(
                f"{WATCHERS} watchers cut {play.disconnects} times, told of {rollbacks} rollbacks"
            )
            assert {mint.user_id: mint.mint_id for mint in mints} == play.mint_ids
            stored = {mint.mint_id: mint for mint in mints}
            for knowledge in watched:
                assert knowledge.mints.items() <= stored.items()
            await audit(play, stack, mints)


async def audit(play: Play, stack: Stack, mints: list[nft_pb2.Mint]) -> None:
    """One item for each mint and no other, where NFT says it is, owned by whose badge it is."""
    (collection,) = {mint.location.collection_address for mint in mints}
    stack.wait_healthy("gateway", BACK_WITHIN_SECONDS)
    client = LiteBalancer.from_config(_config(stack), trust_level=1, timeout=10)
    await client.start_up()
    try:
        ran = await mintings(client, collection)
    finally:
        await client.close_all()
    owners = {person.user_id: person.address for person in play.people}
    # The same order may run twice: deploying on to an initialised item changes nothing.
    assert {(one.mint_id, one.index, one.owner) for one in ran} == {
        (mint.mint_id, mint.location.item_index, owners[mint.user_id]) for mint in mints
    }
    chain: Any = chain_pb2_grpc.ChainServiceStub(play.chain)
    for mint in mints:
        request = chain_pb2.GetNftItemRequest(item_address=mint.location.item_address)
        item = (await chain.GetNftItem(request)).item
        assert (item.initialised, item.content["mint_id"]) == (True, mint.mint_id)
        assert item.owner_address == owners[mint.user_id]
    print(f"{len(ran)} transactions of the collection minted {len(mints)} items")


def _config(stack: Stack) -> dict[str, Any]:
    config: dict[str, Any] = StateFolder(stack.ton_config.parent).read_global_config()
    return config
