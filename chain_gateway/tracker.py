"""Following the chain: what became of the messages that were sent and of the items they carry.

Blocks are scanned for items that came to life. After a start, a gap or a rollback, and before
anything is sent again, items are read by their addresses instead.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pytoniq_core.boc.cell import Cell

from chain_gateway import blocks, delivery
from chain_gateway.blocks import Deployment
from chain_gateway.delivery import Facts, Message, Timing, Verdict
from chain_gateway.items import read_item
from chain_gateway.store.lease import Lease
from chain_gateway.store.progress import ProgressStore
from chain_gateway.ton import Account, Block, Chain
from chain_gateway.wallet import WalletState
from mesh.db import Connection, Database
from mesh.telemetry import logger

_READ_AT_ONCE = 200

_log = logger("gateway.tracker")


@dataclass(frozen=True, slots=True)
class View:
    """What there is to know at a head before sending: the wallet's balance, in nanoton, and the ids
    of messages that it has not run yet.
    """

    head: Block
    balance: int
    to_send: list[int]


@dataclass(slots=True)
class _Settlement:
    """Messages at their end, and their items as of a final block, by address."""

    messages: list[int] = field(default_factory=list)
    there: list[Deployment] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)


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
        collection: str,
        timing: Timing,
        finality_blocks: int,
    ) -> None:
        self._database = database
        self._chain = chain
        self._lease = lease
        self._collection = collection
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
            messages = await ProgressStore(connection).open_messages(self._lease.wallet)
        account = await self._chain.account(self._lease.wallet, head)
        found, tips = await self._minted(head, known, messages)
        final = await self._final(head)
        verdicts = _judge(messages, account, head, final, self._timing)
        settlement = await self._settle(verdicts[Verdict.SETTLE], final)
        finality = await self._finality(final)

        async def write(connection: Connection) -> None:
            await self._lease.hold(connection)
            store = ProgressStore(connection)
            if found:
                await store.minted(found, head.seqno, head.root_hash)
            if verdicts[Verdict.PROCESSED]:
                await store.processed(_ids(verdicts[Verdict.PROCESSED]), head.time)
            if verdicts[Verdict.REVERTED]:
                await store.reverted(_ids(verdicts[Verdict.REVERTED]))
            if final is not None:
                await _write_settlement(store, settlement, final)
            await _write_finality(store, finality, head)
            if messages:
                await store.close(settlement.messages)

        await self._database.run(write)
        self._tips = None if finality.gone else tips
        self._followed_to = head.seqno
        return View(head, account.balance, _ids(verdicts[Verdict.SEND]))

    async def _minted(
        self, head: Block, known: frozenset[bytes] | None, messages: list[Message]
    ) -> tuple[list[Deployment], frozenset[bytes]]:
        """Items that came to life since the last head, and the newest blocks looked through."""
        if not messages:
            return [], await self._chain.shard_tips(head)
        scan = await self._chain.scan(head, known) if known is not None else None
        if scan is not None:
            return await asyncio.to_thread(self._deployments, scan.roots), scan.tips
        _log.info("tracker.reads_items", seqno=head.seqno, messages=len(messages))
        items = await self._read_items(_ids(messages), head)
        return items.there, await self._chain.shard_tips(head)

    def _deployments(self, roots: Iterable[Cell]) -> list[Deployment]:
        return [found for root in roots for found in blocks.deployments(root, self._collection)]

    async def _settle(self, messages: list[Message], final: Block | None) -> _Settlement:
        if not messages or final is None:
            return _Settlement()
        settlement = await self._read_items(_ids(messages), final)
        settlement.messages = _ids(messages)
        _log.warning(
            "tracker.settles",
            messages=settlement.messages,
            there=len(settlement.there),
            to_send_again=len(settlement.absent),
            index_taken=len(settlement.foreign),
        )
        return settlement

    async def _read_items(self, message_ids: list[int], at: Block) -> _Settlement:
        async with self._database.transaction(read_only=True) as connection:
            awaited = await ProgressStore(connection).in_flight(message_ids)
        addresses = list(awaited)
        items = _Settlement()
        for start in range(0, len(addresses), _READ_AT_ONCE):
            accounts = await self._chain.accounts(addresses[start : start + _READ_AT_ONCE], at)
            _sort(accounts, awaited, items)
        return items

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
            seen = await ProgressStore(connection).not_final(final.seqno)
        for seqno, root_hash in seen:
            there = final if seqno == final.seqno else await self._chain.block_at(seqno)
            same = there.root_hash == root_hash
            (finality.final if same else finality.gone).append((seqno, root_hash))
        return finality


def _judge(
    messages: list[Message],
    account: Account,
    head: Block,
    final: Block | None,
    timing: Timing,
) -> Mapping[Verdict, list[Message]]:
    wallet = None if account.data is None else WalletState(account.data)
    verdicts: dict[Verdict, list[Message]] = {verdict: [] for verdict in Verdict}
    for message in messages:
        facts = Facts(
            head_time=head.time,
            final_time=None if final is None else final.time,
            processed=wallet is not None and wallet.processed(message.query_id, head.time),
        )
        verdicts[delivery.judge(message, facts, timing)].append(message)
    return verdicts


def _sort(accounts: dict[str, Account], awaited: dict[str, bytes], into: _Settlement) -> None:
    for address, account in accounts.items():
        item = None if account.data is None else read_item(account.data)
        if item is None or item.content_hash is None:
            into.absent.append(address)
        elif item.content_hash == awaited[address]:
            into.there.append(Deployment(address, item.content_hash))
        else:
            into.foreign.append(address)


async def _write_settlement(store: ProgressStore, settlement: _Settlement, final: Block) -> None:
    if settlement.there:
        await store.minted(settlement.there, final.seqno, final.root_hash)
    if settlement.absent:
        await store.requeue(settlement.absent)
    if settlement.foreign:
        await store.taken(settlement.foreign)


async def _write_finality(store: ProgressStore, finality: _Finality, head: Block) -> None:
    for seqno, root_hash in finality.final:
        await store.finalize(seqno, root_hash)
    for seqno, root_hash in finality.gone:
        _log.warning("tracker.rolled_back", seqno=seqno)
        await store.roll_back(seqno, root_hash, head.time)


def _ids(messages: list[Message]) -> list[int]:
    return [message.message_id for message in messages]
