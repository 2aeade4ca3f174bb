"""What people and operators ask of mints: to queue one, to try one again, to call one off."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from go2asia.nft.v1 import nft_pb2

from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.idempotency import Key, remember
from mesh.outbox import Queue
from nft_svc import convert
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
    MintNotRetryable,
    NftNotFound,
    NotTheOwner,
)
from nft_svc.feed import entry
from nft_svc.mints import Change, Mint, MintKind, MintState, check_retryable, check_unsent
from nft_svc.store import feed, mints, reads, rewards
from nft_svc.store.requests import recall_one
from nft_svc.submissions import queue_mints, withdraw
from nft_svc.tables import idempotency_keys
from nft_svc.upgrades import Badge, Need, items, mint_of, need, stands


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

        A change of an item is retried as the change that is due now. Raises `MintNotFound`,
        `MintNotRetryable`, and what `request` raises.
        """

        async def work(connection: Connection) -> Change:
            # Not locked: a mint that failed never moves again.
            failed = _owned(await reads.mint(connection, mint_id), user_id, mint_id)
            check_retryable(failed)
            return await self._queue(connection, user_id, failed.nft_id, failed, origin)

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
        failed: Mint | None,
        origin: Origin,
    ) -> Change:
        holder = await rewards.holder(connection, nft_id)
        if holder is None:
            raise NftNotFound(field="nft_id", nft_id=nft_id)
        if holder[0] != user_id:
            raise NotTheOwner(field="user_id", nft_id=nft_id)
        nft_type = (await self._catalog.current(connection))[holder[1]]
        now, standings = await rewards.lock_progress(connection, [holder])
        level = standings[holder].progress.level
        history = await mints.history(connection, nft_id)
        if failed is None or failed.kind is MintKind.MINT:
            _check_mintable(nft_type, level, nft_id, history)
            due = Need(MintKind.MINT, level)
        else:
            due = _due(nft_type, level, nft_id, history, failed)
        mint = mint_of(Badge(nft_id, user_id, nft_type), due, now, new_id)
        mint = replace(mint, retry_of=failed.mint_id if failed else None)
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


def _check_mintable(nft_type: NftType, level: int, nft_id: str, history: Sequence[Mint]) -> None:
    if nft_type.onchain_policy is OnchainPolicy.NONE:
        raise MintingNotOffered(field="nft_id", nft_type=nft_type.code)
    if level == 0:
        raise LevelTakenBack(field="nft_id", nft_id=nft_id)
    _check_nothing_under_way(nft_id, history)
    if item := stands(nft_type, level, items(history)):
        raise _exists(nft_id, item.origin)


def _due(nft_type: NftType, level: int, nft_id: str, history: Sequence[Mint], failed: Mint) -> Need:
    """The change to queue in the place of one that failed."""
    _check_nothing_under_way(nft_id, history)
    due = need(nft_type, level, items(history))
    if due is None:
        raise MintNotRetryable(
            "The item is as it should be, so no change of it is due any more.",
            field="mint_id",
            mint_id=failed.mint_id,
            state=failed.state,
            failure_reason=failed.failure_reason,
        )
    return due


def _check_nothing_under_way(nft_id: str, history: Sequence[Mint]) -> None:
    for mint in history:
        if mint.under_way:
            raise _exists(nft_id, mint)


def _exists(nft_id: str, mint: Mint) -> MintExists:
    return MintExists(field="nft_id", nft_id=nft_id, mint_id=mint.mint_id, state=mint.state)
