"""A mint is called off while nobody has tried to hand it over, and never after."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio
from go2asia.gateway.v1 import minting_pb2
from go2asia.nft.v1 import nft_pb2

from devstack.postgres import Cluster
from mesh.outbox import Retry
from nft_svc.errors import MintHandedOver, NotTheOwner
from nft_svc.mints import MintKind, MintState
from nft_svc.submissions import LANES, submission_queue
from tests.integration.nft_service import (
    CONNECT,
    NftDatabase,
    Replica,
    a_user,
    key,
    migrated,
    replica,
    reward,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nft(postgres: Cluster, make_database: Callable[[], str]) -> NftDatabase:
    return await migrated(postgres, make_database)


@pytest_asyncio.fixture(loop_scope="module")
async def service(nft: NftDatabase) -> AsyncIterator[Replica]:
    async with replica(nft) as running:
        nft.execute("DELETE FROM nft_submissions")
        yield running


async def test_a_waiting_mint_is_called_off_and_the_badge_may_be_minted_anew(
    nft: NftDatabase, service: Replica
) -> None:
    ada = a_user()
    outcome = await service.rewards.apply(reward(ada, 3))
    with pytest.raises(NotTheOwner):
        await service.requests.cancel(key("c"), "eve", outcome.mint_id, CONNECT)
    mint = await service.requests.cancel(key("c"), ada, outcome.mint_id, CONNECT)
    assert (mint.state, mint.version) == (8, 2)
    assert await service.requests.cancel(key("c"), ada, outcome.mint_id, CONNECT) == mint
    assert nft.query("SELECT count(*) FROM nft_submissions") == [(0,)]
    assert await service.requests.cancel(key(), ada, outcome.mint_id, CONNECT) == mint
    anew = await service.requests.request(key(), ada, outcome.nft_id, CONNECT)
    assert anew.mint_id != outcome.mint_id
    states = nft.query("SELECT state FROM nft_mint_queue WHERE user_id = %s ORDER BY mint_id", ada)
    assert states == [(MintState.CANCELLED,), (MintState.QUEUED,)]


async def test_an_attempt_whose_answer_was_lost_is_called_off_at_the_gateway(
    nft: NftDatabase, service: Replica
) -> None:
    came, lost = a_user(), a_user()
    outcomes = [await service.rewards.apply(reward(user, 3)) for user in (came, lost)]
    queue = submission_queue()
    async with service.database.transaction() as connection:
        claims = await queue.claim(connection, LANES[MintKind.MINT], 10)
    # One order reached the Gateway, the other did not; of both no answer came back.
    await service.gateway.submit_mints([minting_pb2.MintOrder.FromString(claims[0].payload)])
    async with service.database.transaction() as connection:
        await queue.settle(connection, [(claim, Retry("lost")) for claim in claims])
    for user, outcome in zip((came, lost), outcomes, strict=True):
        mint = await service.requests.cancel(key(), user, outcome.mint_id, CONNECT)
        assert (mint.state, bool(mint.operation_id)) == (nft_pb2.MINT_STATE_CANCELLED, True)
    again = [minting_pb2.MintOrder.FromString(claim.payload) for claim in claims]
    answers = await service.gateway.submit_mints(again)
    assert {answer.state for answer in answers if isinstance(answer, minting_pb2.Operation)} == {
        minting_pb2.OPERATION_STATE_CANCELLED
    }


async def test_a_mint_is_either_called_off_or_sent(nft: NftDatabase, service: Replica) -> None:
    users = [a_user() for _ in range(40)]
    outcomes = [await service.rewards.apply(reward(user, 3)) for user in users]
    queue = submission_queue()
    sent: set[str] = set()

    async def hand_over_and_send() -> None:
        while True:
            async with service.database.transaction() as connection:
                claims = await queue.claim(connection, LANES[MintKind.MINT], 3)
            if not claims:
                return
            orders = [minting_pb2.MintOrder.FromString(claim.payload) for claim in claims]
            await service.gateway.submit_mints(orders)
            await asyncio.sleep(0.005)
            sent.update(each.mint_id for each in orders if service.gateway.send(each.mint_id))

    async def cancel(user: str, mint_id: str) -> str | None:
        try:
            return (await service.requests.cancel(key(), user, mint_id, CONNECT)).mint_id
        except MintHandedOver:
            return None

    cancels = [cancel(user, outcome.mint_id) for user, outcome in zip(users, outcomes, strict=True)]
    _, *answers = await asyncio.gather(hand_over_and_send(), *reversed(cancels))
    cancelled = {answer for answer in answers if answer}
    assert not cancelled & sent
    assert cancelled | sent == {outcome.mint_id for outcome in outcomes}
    states = nft.query("SELECT mint_id::text FROM nft_mint_queue WHERE state = 'CANCELLED'")
    assert cancelled <= {mint_id for (mint_id,) in states}
