"""What a sender may spend and what it leaves aside, by the database alone: no chain listens."""

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from chain_gateway.delivery import Message, Phase
from chain_gateway.errors import ChainUnavailable
from chain_gateway.items import NANOTON, Collection
from chain_gateway.operations import FailureReason, Operation, Order, Standard, State, Transfer
from chain_gateway.orders import OrderDesk, Request, read_operation
from chain_gateway.sending import Limits, Pause, Sender
from chain_gateway.store.lease import Lease
from chain_gateway.store.links import LinkStore
from chain_gateway.store.progress import ProgressStore
from chain_gateway.store.sending import SendingStore
from chain_gateway.ton import Block, Chain
from chain_gateway.tracker import View
from chain_gateway.wallet import HighloadWallet, MintingKey
from devstack.postgres import Cluster
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.idempotency import Key
from mesh.migrate import migrate

WALLET = HighloadWallet(MintingKey(bytes(32)), 3600)
LEASE = Lease(WALLET.address, "test")
HEAD = Block(9, b"\x01" * 32, 1_900_000_000, None)
VIEW = View(HEAD, 5 * NANOTON, [], None, busy=False, minters_changed=False)
PAYEE = "0:" + "cd" * 32


@pytest.fixture
async def database(postgres: Cluster, make_database: Callable[[], str]) -> AsyncIterator[Database]:
    url = postgres.url(make_database())
    await migrate("chain_gateway", url)
    async with Database(url, application_name="sending") as database:
        await database.run(LEASE.take)
        yield database


def sender(database: Database) -> Sender:
    collections = {
        standard: Collection(
            WALLET.address, name=standard.name, description="", image="", standard=standard
        )
        for standard in Standard
    }
    limits = Limits(batch_mints=10, messages_in_flight=8, reserve=NANOTON)
    return Sender(
        database,
        Chain({"liteservers": []}, 1),
        LEASE,
        wallet=WALLET,
        collections=collections,
        limits=limits,
    )


async def followed(database: Database, balance: int, head: Block = HEAD) -> None:
    async def write(connection: Connection) -> None:
        store = ProgressStore(connection, WALLET.address)
        await store.followed(balance=balance, seqno=head.seqno, time=head.time)

    await database.run(write)


async def transfer(database: Database, user_id: str, address: str) -> str:
    async with database.transaction() as connection:
        await LinkStore(connection).link(user_id, address)
    order = Order(new_id(), None, user_id, Transfer(NANOTON, ""))
    async with OrderDesk(database, lambda: None, daily_limit=100 * NANOTON) as desk:
        [taken] = await desk.take([Request(Key("test", order.request_id, b"1"), order)])
    assert isinstance(taken, Operation)
    return taken.standing.operation_id


async def open_messages(database: Database) -> list[Message]:
    async with database.transaction(read_only=True) as connection:
        return await SendingStore(connection).open_messages(WALLET.address)


async def test_a_message_that_was_paid_since_is_not_paid_from_the_balance_before(
    database: Database,
) -> None:
    """The tracker has followed to a later head than the sender has in view."""
    await transfer(database, "an", PAYEE)
    later = replace(HEAD, seqno=10, time=HEAD.time + 5)
    await followed(database, NANOTON + NANOTON // 2, later)
    assert await sender(database).send_waiting(VIEW) == Pause.LOW_BALANCE
    assert await open_messages(database) == []
    await followed(database, VIEW.balance, later)
    with pytest.raises(ChainUnavailable):
        await sender(database).send_waiting(VIEW)
    [message] = await open_messages(database)
    assert (message.phase, message.created_at) == (Phase.PENDING, HEAD.time)


async def test_what_cannot_be_sent_is_set_aside(database: Database) -> None:
    await followed(database, VIEW.balance)
    broken = await transfer(database, "an", "no address")
    sound = await transfer(database, "binh", PAYEE)
    with suppress(ChainUnavailable):
        await sender(database).send_waiting(VIEW)
    failed = (await read_operation(database, broken)).standing
    assert (failed.state, failed.failure_reason) == (State.FAILED, FailureReason.UNSENDABLE)
    assert not failed.retryable
    assert (await read_operation(database, sound)).standing.state is State.SUBMITTED
    assert len(await open_messages(database)) == 1
