"""Following the chain: what became of the messages that were sent and of what they carry.

Blocks are scanned for what our collections brought about at items. After a start, a gap or a
rollback, and before anything is sent again, items are read by their addresses instead.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from chain_gateway import blocks, delivery
from chain_gateway.accounts import Account
from chain_gateway.delivery import Facts, Message, Timing, Verdict
from chain_gateway.effects import Refusal, Sighting
from chain_gateway.operations import FailureReason
from chain_gateway.settling import Final, Settler, write_outcome
from chain_gateway.store.lease import Lease
from chain_gateway.store.progress import ProgressStore
from chain_gateway.store.sending import SendingStore
from chain_gateway.ton import Block, Chain, Scan
from chain_gateway.wallet import WalletState
from mesh.db import Connection, Database
from mesh.telemetry import logger

_log = logger("gateway.tracker")


@dataclass(frozen=True, slots=True)
class View:
    """What there is to know at a head before sending: the wallet's balance, in nanoton, and the ids
    of messages that it has not run yet.

    `busy` while messages are under way. `minters_changed` says that another minter was seen in our
    collections, or that they turned this wallet away.
    """

    head: Block
    balance: int
    to_send: list[int]
    final: Block | None
    busy: bool
    minters_changed: bool


@dataclass(slots=True)
class _Seen:
    """What a head shows, and the newest blocks looked through for it."""

    tips: frozenset[bytes]
    sightings: list[Sighting] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    fulfilled: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Finality:
    """Blocks at which items were seen: beyond rollback, or gone."""

    final: list[tuple[int, bytes]] = field(default_factory=list)
    gone: list[tuple[int, bytes]] = field(default_factory=list)


class Tracker:
    """Follows the operations of one wallet from head to head; only the holder of the lease may."""

    def __init__(
        self,
        database: Database,
        chain: Chain,
        lease: Lease,
        *,
        collections: frozenset[str],
        timing: Timing,
        finality_blocks: int,
    ) -> None:
        self._database = database
        self._chain = chain
        self._lease = lease
        self._collections = collections
        self._settler = Settler(database, chain, lease.wallet, timing)
        self._timing = timing
        self._finality_blocks = finality_blocks
        # The newest basechain blocks that were looked through; None when items must be read.
        self._tips: frozenset[bytes] | None = None
        self._followed_to = 0

    def forget(self) -> None:
        """Blocks may have been missed: the next head is followed by reading every item."""
        self._tips = None

    async def follow(self, head: Block) -> View:
        """Brings messages and operations to what the chain says at `head`.

        Raises `ChainUnavailable` or `LeaseLost`; what was not written is seen again next time.
        """
        if head.seqno <= self._followed_to:
            self.forget()  # a rollback: the chain has another past now
        known, self._tips = self._tips, None
        async with self._database.transaction(read_only=True) as connection:
            messages = await SendingStore(connection).open_messages(self._lease.wallet)
        account = await self._chain.account(self._lease.wallet, head)
        seen = await self._look(head, known, messages)
        block = await self._final(head)
        final = None
        if messages and block is not None:
            final = Final(block, await self._chain.account(self._lease.wallet, block))
        verdicts = _judge(messages, account, head, final, self._timing)
        ended = _ids(verdicts[Verdict.SETTLE])
        outcome = await self._settler.settle(messages, ended, account, final)
        finality = await self._finality(block)

        async def write(connection: Connection) -> None:
            await self._lease.hold(connection)
            store = ProgressStore(connection, self._lease.wallet)
            await store.followed(balance=account.balance, seqno=head.seqno, time=head.time)
            await _write_seen(store, seen, head)
            if verdicts[Verdict.PROCESSED]:
                await store.processed(_ids(verdicts[Verdict.PROCESSED]), head.time)
            if verdicts[Verdict.REVERTED]:
                await store.reverted(_ids(verdicts[Verdict.REVERTED]))
            await write_outcome(store, outcome, head, block)
            await _write_finality(store, finality, head)
            if messages:
                await store.close(ended)

        await self._database.run(write)
        self._tips = None if finality.gone else seen.tips
        self._followed_to = head.seqno
        minters_changed = FailureReason.INDEX_TAKEN in outcome.failed or any(
            refusal.reason == FailureReason.REFUSED for refusal in seen.refusals
        )
        to_send = _ids(verdicts[Verdict.SEND])
        return View(head, account.balance, to_send, block, bool(messages), minters_changed)

    async def _look(
        self, head: Block, known: frozenset[bytes] | None, messages: list[Message]
    ) -> _Seen:
        """What became of items since the last head."""
        if not messages:
            return _Seen(await self._chain.shard_tips(head))
        scan = await self._chain.scan(head, known) if known is not None else None
        if scan is not None:
            return await asyncio.to_thread(self._events, scan)
        _log.info("tracker.reads_items", seqno=head.seqno, messages=len(messages))
        there = await self._settler.there(messages, head)
        return _Seen(await self._chain.shard_tips(head), fulfilled=there)

    def _events(self, scan: Scan) -> _Seen:
        seen = _Seen(scan.tips)
        for root in scan.roots:
            sightings, refusals = blocks.events(root, self._collections, self._lease.wallet)
            seen.sightings += sightings
            seen.refusals += refusals
        return seen

    async def _final(self, head: Block) -> Block | None:
        """The newest block beyond rollback."""
        if not self._finality_blocks:
            return head
        seqno = head.seqno - self._finality_blocks
        return await self._chain.block_at(seqno) if seqno > 0 else None

    async def _finality(self, final: Block | None) -> _Finality:
        finality = _Finality()
        if final is None:
            return finality
        async with self._database.transaction(read_only=True) as connection:
            seen = await ProgressStore(connection, self._lease.wallet).not_final(final.seqno)
        for seqno, root_hash in seen:
            there = final if seqno == final.seqno else await self._chain.block_at(seqno)
            same = there.root_hash == root_hash
            (finality.final if same else finality.gone).append((seqno, root_hash))
        return finality


def _judge(
    messages: list[Message],
    account: Account,
    head: Block,
    final: Final | None,
    timing: Timing,
) -> Mapping[Verdict, list[Message]]:
    wallet = None if account.data is None else WalletState(account.data)
    verdicts: dict[Verdict, list[Message]] = {verdict: [] for verdict in Verdict}
    for message in messages:
        facts = Facts(
            head_time=head.time,
            final_time=None if final is None else final.wallet.time,
            processed=wallet is not None and wallet.processed(message.query_id, head.time),
        )
        verdicts[delivery.judge(message, facts, timing)].append(message)
    return verdicts


async def _write_seen(store: ProgressStore, seen: _Seen, head: Block) -> None:
    if seen.sightings:
        await store.seen(seen.sightings, head.seqno, head.root_hash)
    if seen.fulfilled:
        await store.fulfilled(seen.fulfilled, head.seqno, head.root_hash)
    if seen.refusals:
        _log.warning("tracker.refused", orders=len(seen.refusals), reason=seen.refusals[0].reason)
        await store.refused(seen.refusals)


async def _write_finality(store: ProgressStore, finality: _Finality, head: Block) -> None:
    for seqno, root_hash in finality.final:
        await store.finalize(seqno, root_hash)
    for seqno, root_hash in finality.gone:
        _log.warning("tracker.rolled_back", seqno=seqno)
        await store.roll_back(seqno, root_hash, head.time)


def _ids(messages: list[Message]) -> list[int]:
    return [message.message_id for message in messages]
