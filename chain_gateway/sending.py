"""Packing what waits into wallet messages, persisting them, sending them, sending them again.

A message commits, with everything that it freezes, before the first byte of it leaves.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from chain_gateway import packing, query_id
from chain_gateway.delivery import promised
from chain_gateway.items import Collections, runway
from chain_gateway.operations import FailureReason
from chain_gateway.store.lease import Lease
from chain_gateway.store.progress import ProgressStore
from chain_gateway.store.sending import Outgoing, SendingStore
from chain_gateway.ton import Block, Chain, MessageRefused
from chain_gateway.tracker import View
from chain_gateway.wallet import HighloadWallet
from mesh.db import Connection, Database
from mesh.telemetry import logger, meter

# Chain time after which a message that the wallet has not run is handed out again.
_RESEND_SECONDS = 5

_log = logger("gateway.sending")
_sent = meter.create_counter(
    "gateway.messages.sent", unit="{message}", description="Wallet messages handed to lite-servers."
)
_size = meter.create_histogram(
    "gateway.message.operations",
    unit="{operation}",
    description="Operations in one wallet message.",
)


class Pause:
    """Why nothing is sent, as `GetGatewayStatus.paused_reason` says it."""

    NONE = ""
    CHAIN_LAGS = "CHAIN_LAGS"
    COLLECTION_MISSING = "COLLECTION_MISSING"
    NOT_A_MINTER = "NOT_A_MINTER"
    LOW_BALANCE = "LOW_BALANCE"
    QUERY_IDS_EXHAUSTED = "QUERY_IDS_EXHAUSTED"
    DRY_RUN = "DRY_RUN"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is sent at once; `reserve`, in nanoton, stays in the wallet.

    With `dry_run` nothing is sent at all: what waits is packed, measured and left as it is.
    """

    batch_mints: int
    messages_in_flight: int
    reserve: int
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class _Prepared:
    message_id: int
    boc: bytes


class Sender:
    """Sends for one wallet; only the holder of the lease may."""

    def __init__(
        self,
        database: Database,
        chain: Chain,
        lease: Lease,
        *,
        wallet: HighloadWallet,
        collections: Collections,
        limits: Limits,
    ) -> None:
        self._database = database
        self._chain = chain
        self._lease = lease
        self._wallet = wallet
        self._collections = collections
        self._limits = limits
        # Chain time at which this process last handed out each message.
        self._sent_at: dict[int, int] = {}
        self._rehearsed = 0

    def runway(self, balance: int) -> int:
        """Mints that a balance still pays for."""
        return runway(balance, self._limits.reserve)

    async def send_waiting(self, view: View) -> str:
        """Packs and sends until nothing waits or a limit is reached; gives the reason to pause."""
        if not self.runway(view.balance):
            return Pause.LOW_BALANCE
        while True:
            prepared = await self._database.run(partial(self._prepare, view=view))
            if prepared is None:
                return Pause.NONE
            if isinstance(prepared, str):
                return prepared
            await self._send(prepared.message_id, prepared.boc, view.head)

    async def _prepare(self, connection: Connection, *, view: View) -> _Prepared | str | None:
        """Persists the next message; else the reason to pause, or None if nothing can go now."""
        head = view.head
        sequence = await self._lease.hold(connection)
        store = SendingStore(connection)
        messages = await store.open_messages(self._wallet.address)
        if len(messages) >= self._limits.messages_in_flight:
            return None
        # Not the view's balance: a later head may have closed messages that were paid from it.
        balance, time = await store.balance(self._wallet.address)
        budget = balance - promised(messages, time) - self._limits.reserve
        waiting = await store.waiting(self._limits.batch_mints, budget - packing.TRANSFER_FEE)
        affordable = packing.affordable(waiting, budget)
        if not affordable:
            return await self._short_of_money(store, balance)
        if not await self._query_id_is_free(store, sequence, head):
            return Pause.QUERY_IDS_EXHAUSTED
        indices = await store.lock_next_indices(
            [collection.address for collection in self._collections.values()]
        )
        query = query_id.from_sequence(sequence)
        packed = await asyncio.to_thread(
            packing.pack, affordable, self._collections, indices, query
        )
        _size.record(len(packed.operations))
        if self._limits.dry_run:
            self._say_dry_run(packed)
            return Pause.DRY_RUN
        if packed.unsendable:
            await self._set_aside(connection, packed.unsendable)
        if not packed.operations:
            return None
        return await self._persist(store, packed, sequence, query, head)

    async def _persist(
        self, store: SendingStore, packed: packing.Packing, sequence: int, query: int, head: Block
    ) -> _Prepared:
        # The wallet refuses messages from the future, and its clock is the chain's.
        boc = await asyncio.to_thread(
            self._wallet.external, packed.actions, query=query, created_at=head.time
        )
        outgoing = Outgoing(
            wallet=self._wallet.address,
            sequence=sequence,
            query_id=query,
            created_at=head.time,
            value=packed.value,
            boc=boc,
            packed=packed.operations,
        )
        message_id = await store.store_message(outgoing, packed.next_indices)
        return _Prepared(message_id, outgoing.boc)

    async def _set_aside(self, connection: Connection, unsendable: Mapping[str, Exception]) -> None:
        for operation_id, error in unsendable.items():
            _log.error("sending.unsendable", operation_id=operation_id, error=repr(error))
        await ProgressStore(connection, self._wallet.address).fail(
            list(unsendable), FailureReason.UNSENDABLE, retryable=False
        )

    async def _short_of_money(self, store: SendingStore, balance: int) -> str | None:
        """LOW_BALANCE if something waits that the wallet could not pay even if it were left alone.

        What is on its way has its share of the balance for a few seconds only.
        """
        alone = balance - self._limits.reserve - packing.TRANSFER_FEE
        return Pause.LOW_BALANCE if await store.any_dearer(alone) else None

    def _say_dry_run(self, packed: packing.Packing) -> None:
        if packed.value != self._rehearsed:
            _log.info(
                "sending.dry_run",
                operations=len(packed.operations),
                nanoton=packed.value,
                unsendable=list(packed.unsendable),
            )
        self._rehearsed = packed.value

    async def _query_id_is_free(self, store: SendingStore, sequence: int, head: Block) -> bool:
        if sequence < query_id.CAPACITY:
            return True
        used = await store.created_at(self._wallet.address, sequence - query_id.CAPACITY)
        return query_id.reusable(used, self._wallet.timeout, head.time)

    async def send_again(self, view: View) -> None:
        """Hands out again what the wallet has not run; the chain takes each message once."""
        if self._limits.dry_run:
            return
        self._sent_at = {
            message_id: time
            for message_id, time in self._sent_at.items()
            if view.head.time - time < self._wallet.timeout
        }
        for message_id in view.to_send:
            if view.head.time - self._sent_at.get(message_id, 0) < _RESEND_SECONDS:
                continue
            async with self._database.transaction(read_only=True) as connection:
                boc = await SendingStore(connection).boc(message_id)
            await self._send(message_id, boc, view.head)

    async def _send(self, message_id: int, boc: bytes, head: Block) -> None:
        try:
            await self._chain.send(boc)
        except MessageRefused as refusal:
            # Not a verdict: another lite-server, or the same one earlier, may have taken it.
            _log.info("sending.message_refused", message_id=message_id, said=str(refusal)[:200])
        self._sent_at[message_id] = head.time
        _sent.add(1)
