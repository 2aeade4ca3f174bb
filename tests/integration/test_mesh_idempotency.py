"""The first answer is the answer, also when two transactions race for it."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import MetaData

from mesh.db import Connection, Database, RetryTransaction
from mesh.errors import Conflict, RequestIdReused
from mesh.idempotency import ANY_INPUT, Key, idempotency_table, recall, remember

METADATA = MetaData()
TABLE = idempotency_table(METADATA)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, application_name="test") as database:
        async with database.transaction() as connection:
            await connection.run_sync(METADATA.drop_all)
            await connection.run_sync(METADATA.create_all)
        yield database


def key(request_id: str, content: bytes = b"x", scope: str = "connect:Award") -> Key:
    return Key(scope, request_id, content)


async def answer(database: Database, asked: Key, response: bytes) -> bytes | RequestIdReused:
    """A whole request: the remembered response, or `response` remembered."""

    async def work(connection: Connection) -> bytes | RequestIdReused:
        seen = await recall(connection, TABLE, [asked])
        if asked in seen:
            return seen[asked]
        await asyncio.sleep(0.01)
        await remember(connection, TABLE, [(asked, response)])
        return response

    return await database.run(work)


async def test_nothing_is_known_at_first(database: Database) -> None:
    assert await database.run(lambda c: recall(c, TABLE, [key("a")])) == {}
    assert await database.run(lambda c: recall(c, TABLE, [])) == {}


async def test_the_same_request_gets_the_first_answer(database: Database) -> None:
    assert await answer(database, key("a"), b"first") == b"first"
    assert await answer(database, key("a"), b"second") == b"first"


async def test_another_input_under_the_same_id_is_refused(database: Database) -> None:
    await answer(database, key("a"), b"first")
    refused = await answer(database, key("a", b"y"), b"second")
    assert isinstance(refused, RequestIdReused)
    assert refused.metadata == {"request_id": "a"}


async def test_scopes_do_not_disturb_each_other(database: Database) -> None:
    assert await answer(database, key("a"), b"first") == b"first"
    assert await answer(database, key("a", scope="bff:Spend"), b"second") == b"second"


async def test_a_batch_is_recalled_key_by_key(database: Database) -> None:
    await answer(database, key("a"), b"A")
    await answer(database, key("b"), b"")
    asked = [key("c"), key("b"), key("a"), key("a", b"y")]
    seen = await database.run(lambda c: recall(c, TABLE, asked))
    assert (seen[key("a")], seen[key("b")]) == (b"A", b"")
    assert isinstance(seen[key("a", b"y")], RequestIdReused)
    assert key("c") not in seen


async def test_racing_requests_agree_on_one_answer(database: Database) -> None:
    racers = [answer(database, key("a"), bytes([n])) for n in range(6)]
    assert len(set(await asyncio.gather(*racers))) == 1


async def test_crossing_batches_wait_instead_of_deadlocking(database: Database) -> None:
    async def batch(request_ids: str) -> str:
        try:
            async with database.transaction() as connection:
                await remember(connection, TABLE, [(key(name), b"r") for name in request_ids])
        except Conflict as conflict:
            lost = conflict.__cause__
            assert isinstance(lost, RetryTransaction)
            return "deadlocked" if lost.__cause__ else "came second"
        return "stored"

    async with database.transaction() as connection:
        await remember(connection, TABLE, [(key("c"), b"r")])
        crossing = asyncio.gather(batch("abcdef"), batch("fedcba"))
        await asyncio.sleep(0.1)
        await connection.rollback()
    assert sorted(await crossing) == ["came second", "stored"]


async def test_the_loser_of_a_race_begins_anew(database: Database) -> None:
    async with database.transaction() as connection:
        await answer(database, key("a"), b"first")
        with pytest.raises(RetryTransaction):
            await remember(connection, TABLE, [(key("a"), b"second"), (key("b"), b"other")])


async def test_a_repetition_within_a_batch_is_a_defect(database: Database) -> None:
    entries = [(key("a"), b"1"), (key("a", b"y"), b"2")]
    with pytest.raises(ValueError, match="collapse repetitions"):
        await database.run(lambda c: remember(c, TABLE, entries))


async def test_a_tombstone_answers_whatever_request_comes(database: Database) -> None:
    async with database.transaction() as connection:
        await remember(connection, TABLE, [(key("grave", ANY_INPUT), b"nothing")])
        await remember(connection, TABLE, [(key("known", b"x"), b"answer")])
        late, by_name = key("grave", b"y"), key("known", ANY_INPUT)
        seen = await recall(connection, TABLE, [late, by_name])
    assert seen == {late: b"nothing", by_name: b"answer"}
