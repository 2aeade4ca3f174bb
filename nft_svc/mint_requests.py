"""What people and operators ask of mints: to queue one, to try one again, to call one off."""

from collections.abc import Awaitable, Callable
from datetime import datetime

from go2asia.nft.v1 import nft_pb2

from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.idempotency import Key, remember
from mesh.outbox import Queue
from nft_svc import convert
from nft_svc.accrual import Standing
from nft_svc.audit import Origin
from nft_svc.cancelling import Cancelling
from nft_svc.catalog import Catalog
from nft_svc.definitions import NftType, OnchainPolicy
from nft_svc.errors import (
    LevelTakenBack,
    MintExists,
    MintHandedOver,
    MintingNotOffered,
    MintNotFound,
    NftNotFound,
    NotTheOwner,
)
from nft_svc.feed import entry
from nft_svc.metadata import item_content
from nft_svc.mints import Change, Mint, MintState, check_retryable, check_unsent
from nft_svc.store import feed, mints, reads, rewards
from nft_svc.store.requests import recall_one
from nft_svc.submissions import queue_mints, withdraw
from nft_svc.tables import idempotency_keys


class MintRequests:
    """Serves requests one by one; `announce` is called after each that changed something.

    Every method returns the first answer to a repeated request. They lock as rewards do: progress,
    then mints, then the feed.
    """

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        submissions: Queue,
        cancelling: Cancelling,
        announce: Callable[[], None],
    ) -> None:
        self._database = database
        self._catalog = catalog
        self._submissions = submissions
        self._cancelling = cancelling
        self._announce = announce

    async def request(self, key: Key, user_id: str, nft_id: str, origin: Origin) -> nft_pb2.Mint:
        """Queues the mint of a user's instance.

        Raises `NftNotFound`, `NotTheOwner`, `MintingNotOffered`, `LevelTakenBack`, `MintExists`.
        """

        async def work(connection: Connection) -> Change:
            return await self._queue(connection, user_id, nft_id, None, origin)

        return await self._once(key, work)

    async def retry(self, key: Key, user_id: str, mint_id: str, origin: Origin) -> nft_pb2.Mint:
        """Queues another mint in the place of a failed one; the new one.

        Raises `MintNotFound`, `MintNotRetryable`, and what `request` raises.
        """

        async def work(connection: Connection) -> Change:
            # Not locked: a mint that failed never moves again.
            failed = _owned(await reads.mint(connection, mint_id), user_id, mint_id)
            check_retryable(failed)
            return await self._queue(connection, user_id, failed.nft_id, mint_id, origin)

        return await self._once(key, work)

    async def cancel(self, key: Key, user_id: str, mint_id: str, origin: Origin) -> nft_pb2.Mint:
        """Calls off a mint that was not yet sent; one that is CANCELLED stays as it is.

        Raises `MintNotFound`, `NotTheOwner`, `MintEnded`, `MintHandedOver`.
        """

        async def work(connection: Connection) -> nft_pb2.Mint | None:
            known = await recall_one(connection, key)
            if known is not None:
                return nft_pb2.Mint.FromString(known)
            now, found = await mints.lock(connection, [mint_id])
            mint = _owned(found.get(mint_id), user_id, mint_id)
            change = None
            if mint.state is not MintState.CANCELLED:
                check_unsent(mint)
                assert now is not None, "the mint was found"
                change = await withdraw(connection, self._submissions, mint, now, origin)
                if change is None:
                    return None  # the Gateway has it, or may have it
            message = convert.mint(change.mint if change else mint)
            await remember(connection, idempotency_keys, [(key, message.SerializeToString())])
            # Last, because the feed's head stays locked from here to the commit.
            await feed.append(connection, [entry(change)] if change else [])
            return message

        answer = await self._database.run(work)
        if answer is None:
            await self._cancelling.call_off(mint_id, origin)
            answer = await self._database.run(work)
        if answer is None:
            raise MintHandedOver(field="mint_id", mint_id=mint_id)
        self._announce()
        return answer

    async def _queue(
        self,
        connection: Connection,
        user_id: str,
        nft_id: str,
        retry_of: str | None,
        origin: Origin,
    ) -> Change:
        holder = await rewards.holder(connection, nft_id)
        if holder is None:
            raise NftNotFound(field="nft_id", nft_id=nft_id)
        if holder[0] != user_id:
            raise NotTheOwner(field="user_id", nft_id=nft_id)
        nft_type = (await self._catalog.current(connection))[holder[1]]
        now, standings = await rewards.lock_progress(connection, [holder])
        in_the_way = await mints.standing_in_the_way(connection, nft_id)
        _check_mintable(nft_type, standings[holder], nft_id, in_the_way)
        mint = _new_mint(nft_type, standings[holder], user_id, nft_id, retry_of, now)
        await queue_mints(connection, self._submissions, [(mint, origin)])
        return Change(mint)

    async def _once(
        self, key: Key, work: Callable[[Connection], Awaitable[Change]]
    ) -> nft_pb2.Mint:
        async def transaction(connection: Connection) -> nft_pb2.Mint:
            known = await recall_one(connection, key)
            if known is not None:
                return nft_pb2.Mint.FromString(known)
            change = await work(connection)
            message = convert.mint(change.mint)
            await remember(connection, idempotency_keys, [(key, message.SerializeToString())])
            # Last, because the feed's head stays locked from here to the commit.
            await feed.append(connection, [entry(change)])
            return message

        mint = await self._database.run(transaction)
        self._announce()
        return mint


def _owned(mint: Mint | None, user_id: str, mint_id: str) -> Mint:
    if mint is None:
        raise MintNotFound(field="mint_id", mint_id=mint_id)
    if mint.user_id != user_id:
        raise NotTheOwner(field="user_id", mint_id=mint_id)
    return mint


def _check_mintable(
    nft_type: NftType, standing: Standing, nft_id: str, in_the_way: Mint | None
) -> None:
    if nft_type.onchain_policy is OnchainPolicy.NONE:
        raise MintingNotOffered(field="nft_id", nft_type=nft_type.code)
    if standing.progress.level == 0:
        raise LevelTakenBack(field="nft_id", nft_id=nft_id)
    if in_the_way is not None:
        raise MintExists(
            field="nft_id", nft_id=nft_id, mint_id=in_the_way.mint_id, state=in_the_way.state
        )


def _new_mint(
    nft_type: NftType,
    standing: Standing,
    user_id: str,
    nft_id: str,
    retry_of: str | None,
    now: datetime,
) -> Mint:
    return Mint(
        mint_id=new_id(),
        nft_id=nft_id,
        user_id=user_id,
        nft_type=nft_type.code,
        content=item_content(nft_type, nft_type.rule(standing.progress.level)),
        create_time=now,
        update_time=now,
        retry_of=retry_of,
    )
