"""Packing what waits into wallet messages, persisting them, sending them, sending them again.

A message commits, with everything that it freezes, before the first byte of it leaves.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from chain_gateway import content, query_id
from chain_gateway.delivery import promised
from chain_gateway.items import MINT_COST, Collection
from chain_gateway.operations import Placement
from chain_gateway.store.lease import Lease
from chain_gateway.store.progress import Outgoing, Packed, ProgressStore, Waiting
from chain_gateway.ton import Block, Chain, MessageRefused
from chain_gateway.tracker import View
from chain_gateway.wallet import ActionList, HighloadWallet
from mesh.db import Connection, Database
from mesh.telemetry import logger, meter

# Chain time after which a message that the wallet has not run is handed out again.
_RESEND_SECONDS = 5

_log = logger("gateway.sending")
_sent = meter.create_counter(
    "gateway.messages.sent", unit="{message}", description="Wallet messages handed to lite-servers."
)
_mints = meter.create_histogram(
    "gateway.message.mints", unit="{mint}", description="Mints in one wallet message."
)


class Pause:
    """Why nothing is sent, as `GetGatewayStatus.paused_reason` says it."""

    NONE = ""
    CHAIN_LAGS = "CHAIN_LAGS"
    COLLECTION_MISSING = "COLLECTION_MISSING"
    LOW_BALANCE = "LOW_BALANCE"
    QUERY_IDS_EXHAUSTED = "QUERY_IDS_EXHAUSTED"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is sent at once; `reserve`, in nanoton, stays in the wallet."""

    batch_mints: int
    messages_in_flight: int
    reserve: int


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
        collection: Collection,
        limits: Limits,
    ) -> None:
        self._database = database
        self._chain = chain
        self._lease = lease
        self._wallet = wallet
        self._collection = collection
        self._limits = limits
        # Chain time at which this process last handed out each message.
        self._sent_at: dict[int, int] = {}

    async def send_waiting(self, view: View) -> str:
        """Packs and sends until nothing waits or a limit is reached; gives the reason to pause."""
        if view.balance - self._limits.reserve < MINT_COST:
            return Pause.LOW_BALANCE
        while True:
            prepared = await self._database.run(partial(self._prepare, view=view))
            if prepared is None:
                return Pause.NONE
            if isinstance(prepared, str):
                return prepared
            await self._send(prepared.message_id, prepared.boc, view.head)

    async def _prepare(self, connection: Connection, *, view: View) -> _Prepared | str | None:
        """Persists the next message; None if there is none to make, or the reason to pause."""
        head = view.head
        sequence = await self._lease.hold(connection)
        store = ProgressStore(connection)
        messages = await store.open_messages(self._wallet.address)
        if len(messages) >= self._limits.messages_in_flight:
            return None
        free = view.balance - promised(messages, head.time) - self._limits.reserve
        most = min(self._limits.batch_mints, free // MINT_COST)
        if most < 1:
            return None
        waiting = await store.waiting(most)
        if not waiting:
            return None
        if not await self._query_id_is_free(store, sequence, head):
            return Pause.QUERY_IDS_EXHAUSTED
        next_index = await store.lock_next_index(self._collection.address)
        outgoing = await asyncio.to_thread(self._pack, waiting, next_index, sequence, head)
        indices = [mint.placement.index for mint in outgoing.mints]
        message_id = await store.store_message(outgoing, max(next_index - 1, *indices) + 1)
        _mints.record(len(indices))
        return _Prepared(message_id, outgoing.boc)

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
            if not actions.add(
                self._collection.mint(index=index, owner=mint.owner, content=cell, query_id=query)
            ):
                break
            next_index += mint.index is None
            address = mint.address or self._collection.item_address(index)
            placement = Placement(self._collection.address, index, address, mint.owner)
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

    async def send_again(self, view: View) -> None:
        """Hands out again what the wallet has not run; the chain takes each message once."""
        self._sent_at = {
            message_id: time
            for message_id, time in self._sent_at.items()
            if view.head.time - time < self._wallet.timeout
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
            _log.info("sending.message_refused", message_id=message_id, said=str(refusal)[:200])
        self._sent_at[message_id] = head.time
        _sent.add(1)
