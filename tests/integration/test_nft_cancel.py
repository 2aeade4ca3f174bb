"""A mint is called off while nobody has tried to hand it over, and never after."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from devstack.postgres import Cluster
from mesh.outbox import Retry
from nft_svc.errors import MintEnded, MintHandedOver, NotTheOwner
from nft_svc.mints import MintState
from nft_svc.submissions import LANE, submission_queue
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
    with pytest.raises(MintEnded):
        await service.requests.cancel(key(), ada, outcome.mint_id, CONNECT)
    anew = await service.requests.request(key(), ada, outcome.nft_id, CONNECT)
    assert anew.mint_id != outcome.mint_id
    states = nft.query("SELECT state FROM nft_mint_queue WHERE user_id = %s ORDER BY mint_id", ada)
    assert states == [(MintState.CANCELLED,), (MintState.QUEUED,)]


async def test_an_attempt_whose_answer_was_lost_forbids_it(service: Replica) -> None:
    ada = a_user()
    outcome = await service.rewards.apply(reward(ada, 3))
    queue = submission_queue()
    async with service.database.transaction() as connection:
        (claim,) = await queue.claim(connection, LANE, 10)
    with pytest.raises(MintHandedOver):
        await service.requests.cancel(key(), ada, outcome.mint_id, CONNECT)
    async with service.database.transaction() as connection:
        await queue.settle(connection, [(claim, Retry("lost"))])
    with pytest.raises(MintHandedOver):
        await service.requests.cancel(key(), ada, outcome.mint_id, CONNECT)


async def test_a_mint_is_either_called_off_or_handed_over(service: Replica) -> None:
    users = [a_user() for _ in range(40)]
    outcomes = [await service.rewards.apply(reward(user, 3)) for user in users]
    queue = submission_queue()
    claimed: set[str] = set()

    async def claim() -> None:
        while True:
            async with service.database.transaction() as connection:
                claims = await queue.claim(connection, LANE, 3)
            claimed.update(claim.item_id for claim in claims)
            if not claims:
                return

    async def cancel(user: str, mint_id: str) -> str | None:
        try:
            return (await service.requests.cancel(key(), user, mint_id, CONNECT)).mint_id
        except MintHandedOver:
            return None

    cancels = [cancel(user, outcome.mint_id) for user, outcome in zip(users, outcomes, strict=True)]
    _, *answers = await asyncio.gather(claim(), *reversed(cancels))
    cancelled = {answer for answer in answers if answer}
    assert not cancelled & claimed
    assert cancelled | claimed == {outcome.mint_id for outcome in outcomes}
