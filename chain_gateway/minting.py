"""The minting pipeline: pack what waits, persist, send, follow; one leader per wallet.

QUEUED ── pack, persist, commit ──▶ SUBMITTED ── send, and send again until it expires
                                        │
         the tracker reads the chain ◀──┘──▶ ACCEPTED ▶ MINTED ▶ FINALIZED, or packed again
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Self

from chain_gateway import content, query_id
from chain_gateway.errors import ChainUnavailable
from chain_gateway.items import MINT_COST, Collection, read_next_index
from chain_gateway.operations import Placement
from chain_gateway.store.lease import Lease, LeaseLost
from chain_gateway.store.progress import Outgoing, Packed, ProgressStore, Waiting
from chain_gateway.ton import Block, Chain, MessageRefused
from chain_gateway.tracker import Tracker, View
from chain_gateway.wallet import ActionList, HighloadWallet
from mesh.clock import utc_now
from mesh.db import Connection, Database
from mesh.errors import MeshError
from mesh.telemetry import logger, meter

_POLL_SECONDS = 1.0
# Chain time after which a message that the wallet has not run is handed out again.
_RESEND_SECONDS = 10

_log = logger("gateway.minting")
_sent = meter.create_counter(
    "gateway.messages.sent", unit="{message}", description="Wallet messages handed to lite-servers."
)
_mints = meter.create_histogram(
    "gateway.message.mints", unit="{mint}", description="Mints in one wallet message."
)
_balance = meter.create_gauge(
    "gateway.wallet.balance", unit="nTON", description="Balance of the minting wallet."
)
_lag = meter.create_gauge(
    "gateway.chain.lag", unit="s", description="Age of the masterchain block followed to."
)
_paused = meter.create_gauge(
    "gateway.paused", description="1 for the reason that sending is paused for, else 0."
)


class Pause:
    """Why nothing is sent, as `GetGatewayStatus.paused_reason` says it."""

    NONE = ""
    CHAIN_LAGS = "CHAIN_LAGS"
    COLLECTION_MISSING = "COLLECTION_MISSING"
    LOW_BALANCE = "LOW_BALANCE"
    QUERY_IDS_EXHAUSTED = "QUERY_IDS_EXHAUSTED"


_REASONS = (
    Pause.CHAIN_LAGS, Pause.COLLECTION_MISSING, Pause.LOW_BALANCE, Pause.QUERY_IDS_EXHAUSTED
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is sent at once, and when not at all; `reserve` in nanoton."""

    batch_mints: int
    messages_in_flight: int
    max_lag_seconds: int
    reserve: int


@dataclass(frozen=True, slots=True)
class _Prepared:
    message_id: int
    boc: bytes
    value: int


class Minter:
    """Leads one wallet's minting while it holds the lease; a context manager.

    `on_change` is called after operations may have changed.
    """

    def __init__(
        self,
        database: Database,
        chain: Chain,
        *,
        wallet: HighloadWallet,
        collection: Collection,
        lease: Lease,
        tracker: Tracker,
        limits: Limits,
        on_change: Callable[[], None],
    ) -> None:
        self._database = database
        self._chain = chain
        self._wallet = wallet
        self._collection = collection
        self._lease = lease
        self._tracker = tracker
        self._limits = limits
        self._on_change = on_change
        self._woken = asyncio.Event()
        self._collection_seen = False
        # Chain time at which this process last handed out each message.
        self._sent_at: dict[int, int] = {}

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run(), name="minting")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._running.cancel()
        with suppress(asyncio.CancelledError):
            await self._running
        with suppress(MeshError):
            await self._database.run(self._lease.drop)

    def wake(self) -> None:
        """Says that something waits to be sent; without it the next poll notices."""
        self._woken.set()

    async def _run(self) -> None:
        while True:
            try:
                if await self._database.run(self._lease.take):
                    await self._lead()
            except LeaseLost:
                _log.warning("minting.lease_lost", holder=self._lease.holder)
            except ChainUnavailable:
                await self._say_chain_is_out_of_reach()
            except MeshError as error:
                _log.warning("minting.interrupted", error=error.message)
            except Exception:
                _log.exception("minting.failed")
            self._tracker.forget()
            await asyncio.sleep(_POLL_SECONDS)

    async def _lead(self) -> None:
        """Goes from head to head, and sends in between when something comes in."""
        view: View | None = None
        while True:
            head = await self._next(view.head if view else None)
            if view is None or head != view.head:
                view = await self._tracker.follow(head)
                await self._send_again(view)
            paused = await self._paused(view)
            if not paused:
                paused = await self._send_waiting(view)
            await self._report(view, paused)
            self._on_change()

    async def _next(self, known: Block | None) -> Block:
        """Waits for a new head, or for something to send, or for the next poll."""
        head = asyncio.create_task(self._chain.wait(known, _POLL_SECONDS))
        woken = asyncio.create_task(self._woken.wait())
        try:
            await asyncio.wait({head, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            head.cancel()
            woken.cancel()
            await asyncio.gather(head, woken, return_exceptions=True)
        self._woken.clear()
        return self._chain.head

    async def _paused(self, view: View) -> str:
        if (utc_now() - view.head.moment).total_seconds() > self._limits.max_lag_seconds:
            return Pause.CHAIN_LAGS
        if not self._collection_seen:
            account = await self._chain.account(self._collection.address, view.head)
            if account.data is None:
                return Pause.COLLECTION_MISSING
            await self._seed_index(read_next_index(account.data))
        return Pause.NONE

    async def _seed_index(self, next_index: int) -> None:
        async def write(connection: Connection) -> None:
            await self._lease.hold(connection)
            await ProgressStore(connection).seed_index(self._collection.address, next_index)

        await self._database.run(write)
        self._collection_seen = True

    async def _send_waiting(self, view: View) -> str:
        """Packs and sends until nothing waits or a limit is reached; gives the reason to pause."""
        available = view.balance - view.promised - self._limits.reserve
        while available >= MINT_COST:
            affordable = min(self._limits.batch_mints, available // MINT_COST)
            prepared = await self._database.run(
                partial(self._prepare, head=view.head, most=affordable)
            )
            if prepared is None:
                return Pause.NONE
            if isinstance(prepared, str):
                return prepared
            available -= prepared.value
            await self._send(prepared.message_id, prepared.boc, view.head)
        return Pause.LOW_BALANCE

    async def _prepare(
        self, connection: Connection, *, head: Block, most: int
    ) -> _Prepared | str | None:
        """Persists the next message; None if there is none to make, or the reason to pause."""
        sequence = await self._lease.hold(connection)
        store = ProgressStore(connection)
        if len(await store.open_messages(self._wallet.address)) >= self._limits.messages_in_flight:
            return None
        waiting = await store.waiting(most)
        unlinked = [mint.operation_id for mint in waiting if mint.owner is None]
        if unlinked:
            await store.park(unlinked)
            self.wake()  # others may wait behind them
        linked = [mint for mint in waiting if mint.owner is not None]
        if not linked:
            return None
        if not await self._query_id_is_free(store, sequence, head):
            return Pause.QUERY_IDS_EXHAUSTED
        next_index = await store.lock_next_index(self._collection.address)
        outgoing = await asyncio.to_thread(self._pack, linked, next_index, sequence, head)
        indices = [mint.placement.index for mint in outgoing.mints]
        message_id = await store.store_message(outgoing, max(next_index - 1, *indices) + 1)
        _mints.record(len(indices))
        return _Prepared(message_id, outgoing.boc, outgoing.value)

    async def _query_id_is_free(self, store: ProgressStore, sequence: int, head: Block) -> bool:
        if sequence < query_id.CAPACITY:
            return True
        used = await store.created_at(self._wallet.address, sequence - query_id.CAPACITY)
        return query_id.reusable(used, self._wallet.timeout, head.time)

    def _pack(
        self, waiting: Sequence[Waiting], next_index: int, sequence: int, head: Block
    ) -> Outgoing:
        """As many mints as fit into one message; those placed before stay where they are."""
        query = query_id.from_sequence(sequence)
        actions = ActionList()
        packed: list[Packed] = []
        for mint in waiting:
            index = next_index if mint.index is None else mint.index
            cell = content.encode(mint.content.entries(mint.mint_id))
            owner = mint.owner or ""
            if not actions.add(
                self._collection.mint(index=index, owner=owner, content=cell, query_id=query)
            ):
                break
            next_index += mint.index is None
            address = mint.address or self._collection.item_address(index)
            placement = Placement(self._collection.address, index, address, owner)
            packed.append(Packed(mint.operation_id, placement, bytes(cell.hash)))
        return Outgoing(
            wallet=self._wallet.address,
            sequence=sequence,
            query_id=query,
            # The wallet refuses messages from the future, and its clock is the chain's.
            created_at=head.time,
            value=len(packed) * MINT_COST,
            boc=self._wallet.external(actions, query=query, created_at=head.time),
            mints=packed,
        )

    async def _send_again(self, view: View) -> None:
        """Hands out again what the wallet has not run; the chain takes each message once."""
        self._sent_at = {
            message_id: self._sent_at[message_id]
            for message_id in view.to_send
            if message_id in self._sent_at
        }
        for message_id in view.to_send:
            if view.head.time - self._sent_at.get(message_id, 0) < _RESEND_SECONDS:
                continue
            async with self._database.transaction(read_only=True) as connection:
                boc = await ProgressStore(connection).boc(message_id)
            await self._send(message_id, boc, view.head)

    async def _send(self, message_id: int, boc: bytes, head: Block) -> None:
        try:
            await self._chain.send(boc)
        except MessageRefused as refusal:
            # Not a verdict: another lite-server, or the same one earlier, may have taken it.
            _log.info("minting.message_refused", message_id=message_id, said=str(refusal)[:200])
        self._sent_at[message_id] = head.time
        _sent.add(1)

    async def _report(self, view: View, paused: str) -> None:
        async def write(connection: Connection) -> None:
            await self._lease.hold(connection)
            await ProgressStore(connection).report(
                self._wallet.address,
                balance=view.balance,
                seqno=view.head.seqno,
                time=view.head.time,
                paused_reason=paused,
            )

        await self._database.run(write)
        _balance.set(view.balance)
        _lag.set((utc_now() - view.head.moment).total_seconds())
        _measure(paused)

    async def _say_chain_is_out_of_reach(self) -> None:
        _measure(Pause.CHAIN_LAGS)
        try:
            await self._database.run(
                lambda connection: ProgressStore(connection).pause(
                    self._wallet.address, Pause.CHAIN_LAGS
                )
            )
        except MeshError as error:
            _log.warning("minting.interrupted", error=error.message)


def _measure(paused: str) -> None:
    for reason in _REASONS:
        _paused.set(int(reason == paused), {"reason": reason})
