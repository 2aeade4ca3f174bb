"""A Gateway inside of the test's own process, and ears that can be stopped."""

import asyncio
from collections.abc import Callable
from uuid import uuid4

import pytest

from chain_gateway.cells import read
from chain_gateway.composition import Gateway
from chain_gateway.operations import Content, Mint, Operation, Order, Standard, Task, Transfer
from chain_gateway.orders import Request, read_operation
from chain_gateway.store.links import LinkStore
from chain_gateway.store.orders import OrderStore, WalletStatus
from chain_gateway.ton import Chain
from mesh.idempotency import Key
from tests.integration.gateway_stage import Stage, UserWallet

CONTENT = Content("Early bird", "", "ipfs://bird", (("level", "1"),))


class Deafness:
    """Lite-servers that say nothing and pass nothing on, for as long as `deaf` is set.

    What is in `never` they pass on at no time.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.deaf = False
        self.unheard: list[bytes] = []
        self.never: set[bytes] = set()
        send = self.send = Chain.send

        async def maybe(chain: Chain, boc: bytes) -> None:
            if self.deaf or boc in self.never:
                self.unheard.append(boc)
            else:
                await send(chain, boc)

        monkeypatch.setattr(Chain, "send", maybe)


async def status_when(gateway: Gateway, condition: Callable[[WalletStatus], bool]) -> WalletStatus:
    async with asyncio.timeout(20):
        while True:
            async with gateway.database.transaction() as connection:
                found = await OrderStore(connection).status([gateway.wallet.address])
            [status] = found.wallets
            if condition(status):
                return status
            await asyncio.sleep(0.1)


async def operation_when(
    gateway: Gateway, operation_id: str, condition: Callable[[Operation], bool]
) -> Operation:
    async with asyncio.timeout(40):
        while True:
            found = await read_operation(gateway.database, operation_id)
            if condition(found):
                return found
            await asyncio.sleep(0.1)


async def taken(gateway: Gateway, task: Task, user_id: str = "") -> Operation:
    [operation] = await taken_together(gateway, (task, user_id))
    return operation


async def taken_together(gateway: Gateway, *tasks: tuple[Task, str]) -> list[Operation]:
    """Orders of several users in one batch, and so in one message."""
    orders = [
        Order(f"r-{uuid4()}", None if isinstance(task, Transfer) else str(uuid4()), user_id, task)
        for task, user_id in tasks
    ]
    found = await gateway.desk.take(
        [Request(Key("test", order.request_id, b"1"), order) for order in orders]
    )
    assert all(isinstance(each, Operation) for each in found), found
    return [each for each in found if isinstance(each, Operation)]


async def linked_user(gateway: Gateway) -> tuple[str, UserWallet]:
    wallet, user_id = UserWallet(), f"user-{uuid4()}"
    async with gateway.database.transaction() as connection:
        await LinkStore(connection).link(user_id, wallet.address)
    return user_id, wallet


async def order_for_linked_user(gateway: Gateway, standard: Standard = Standard.NFT) -> str:
    user_id, _ = await linked_user(gateway)
    return (await taken(gateway, Mint(CONTENT, standard), user_id)).standing.operation_id


async def received(chain: Chain, address: str) -> list[tuple[int, str]]:
    """Value, in nanoton, and comment of every transfer that arrived at an address."""
    history = await chain.history(address, await chain.account(address, chain.head), 0)
    came = [transaction.incoming for transaction in history if transaction.incoming is not None]
    return [(message.value, read(message.body).load_snake_string()[4:]) for message in came]


async def received_by(stage: Stage, wallet: UserWallet) -> list[tuple[int, str]]:
    async with stage.chain() as chain:
        await chain.wait(None, 10)
        return await received(chain, wallet.address)
