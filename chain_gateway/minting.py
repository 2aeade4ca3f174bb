"""The pipeline: pack what waits, persist, send, follow; one leader per wallet.

QUEUED ── pack, persist, commit ──▶ SUBMITTED ── send, and again until it runs or expires
                                        │
      follow the chain, head by head ◀──┘──▶ ACCEPTED ▶ MINTED ▶ FINALIZED, or packed again
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Self

from chain_gateway.accounting import Accountant
from chain_gateway.errors import ChainUnavailable
from chain_gateway.items import may_mint, read_next_index
from chain_gateway.sending import Pause, Sender
from chain_gateway.store.lease import LEASE_SECONDS, Lease, LeaseLost
from chain_gateway.store.progress import ProgressStore
from chain_gateway.ton import Chain
from chain_gateway.tracker import Tracker, View
from mesh.clock import monotonic, utc_now
from mesh.db import Connection, Database
from mesh.errors import MeshError
from mesh.telemetry import logger, meter

_POLL_SECONDS = 1.0
_ACCOUNT_SECONDS, _ACCOUNT_BUSY_SECONDS, _ACCOUNT_RESTS = 3.0, 60.0, 9
_HEARTBEAT_SECONDS = LEASE_SECONDS / 4
# How long a task may take to end before it is told so again.
_LOOP_ENDS_SECONDS, _END_SECONDS = 0.5, 3.0

_log = logger("gateway.minting")
_balance = meter.create_gauge(
    "gateway.wallet.balance", unit="nTON", description="Balance of the minting wallet."
)
_lag = meter.create_gauge(
    "gateway.chain.lag", unit="s", description="Age of the masterchain block followed to."
)
_paused = meter.create_gauge(
    "gateway.paused", description="1 for the reason that sending is paused for, else 0."
)

_runway = meter.create_gauge(
    "gateway.wallet.runway", unit="{mint}", description="Mints that the wallet still pays for."
)

_REASONS = (
    Pause.CHAIN_LAGS, Pause.COLLECTION_MISSING, Pause.NOT_A_MINTER, Pause.LOW_BALANCE,
    Pause.QUERY_IDS_EXHAUSTED, Pause.DRY_RUN,
)  # fmt: skip


class Minter:
    """Leads one wallet's minting while it holds the lease; a context manager.

    `on_change` is called after operations may have changed.
    """

    def __init__(
        self,
        database: Database,
        chain: Chain,
        lease: Lease,
        *,
        tracker: Tracker,
        sender: Sender,
        accountant: Accountant,
        collections: Collection[str],
        max_lag_seconds: int,
        on_change: Callable[[], None],
    ) -> None:
        self._database = database
        self._chain = chain
        self._lease = lease
        self._tracker = tracker
        self._sender = sender
        self._accountant = accountant
        self._collections = collections
        self._max_lag_seconds = max_lag_seconds
        self._on_change = on_change
        self._woken = asyncio.Event()
        self._view: View | None = None
        self._collections_seen = False

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run(), name="minting")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await _end({self._running}, _END_SECONDS)
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
        """Follows and sends side by side, and keeps the lease meanwhile; returns never."""
        self._view, self._collections_seen = None, False
        loops = {
            asyncio.create_task(self._follow(), name="minting follows"),
            asyncio.create_task(self._send(), name="minting sends"),
            asyncio.create_task(self._account(), name="minting accounts"),
            asyncio.create_task(self._keep_lease(), name="minting keeps its lease"),
        }
        try:
            ended, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            for loop in ended:
                loop.result()
        finally:
            await _end(loops, _LOOP_ENDS_SECONDS)

    async def _keep_lease(self) -> None:
        while True:
            await asyncio.sleep(_HEARTBEAT_SECONDS)
            await self._database.run(self._lease.hold)

    async def _follow(self) -> None:
        while True:
            known = self._view.head if self._view else None
            head = await self._chain.wait(known, _POLL_SECONDS)
            if head != known:
                self._view = await self._tracker.follow(head)
                if self._view.minters_changed:
                    self._collections_seen = False  # we may mint no more, or above the chain's
                self._woken.set()
                self._on_change()

    async def _send(self) -> None:
        """Sends what there is at each new view, when woken, and at each poll."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._woken.wait()
            self._woken.clear()
            if (view := self._view) is None:
                continue
            await self._sender.send_again(view)
            paused = await self._paused(view) or await self._sender.send_waiting(view)
            await self._report(view, paused)
            self._on_change()

    async def _account(self) -> None:
        """Charges what is over when nothing is under way; while much is, now and then.

        It reads long histories, and minting must have the machine.
        """
        rested = taken = 0.0
        while True:
            await asyncio.sleep(_ACCOUNT_SECONDS)
            rested += _ACCOUNT_SECONDS
            view = self._view
            if view is None or view.final is None:
                continue
            if view.busy and rested < max(_ACCOUNT_BUSY_SECONDS, _ACCOUNT_RESTS * taken):
                continue
            began = monotonic()
            await self._accountant.account(view.final)
            rested, taken = 0.0, monotonic() - began

    async def _paused(self, view: View) -> str:
        if (utc_now() - view.head.moment).total_seconds() > self._max_lag_seconds:
            return Pause.CHAIN_LAGS
        if not self._collections_seen:
            accounts = await self._chain.accounts(list(self._collections), view.head)
            data = {address: each.data for address, each in accounts.items() if each.data}
            if len(data) < len(accounts):
                return Pause.COLLECTION_MISSING
            if not all(may_mint(stored, self._lease.wallet) for stored in data.values()):
                return Pause.NOT_A_MINTER
            await self._seed_indices(
                {address: read_next_index(stored) for address, stored in data.items()}
            )
        return Pause.NONE

    async def _seed_indices(self, next_indices: Mapping[str, int]) -> None:
        async def write(connection: Connection) -> None:
            await self._lease.hold(connection)
            store = ProgressStore(connection, self._lease.wallet)
            for address, next_index in sorted(next_indices.items()):
                await store.seed_index(address, next_index)

        await self._database.run(write)
        self._collections_seen = True

    async def _report(self, view: View, paused: str) -> None:
        async def write(connection: Connection) -> None:
            await self._lease.hold(connection)
            await ProgressStore(connection, self._lease.wallet).pause(paused)

        await self._database.run(write)
        wallet = {"wallet": self._lease.wallet}
        _balance.set(view.balance, wallet)
        _runway.set(self._sender.runway(view.balance), wallet)
        _lag.set((utc_now() - view.head.moment).total_seconds(), wallet)
        self._measure(paused)

    async def _say_chain_is_out_of_reach(self) -> None:
        self._measure(Pause.CHAIN_LAGS)
        try:
            await self._database.run(
                lambda connection: ProgressStore(connection, self._lease.wallet).pause(
                    Pause.CHAIN_LAGS
                )
            )
        except MeshError as error:
            _log.warning("minting.interrupted", error=error.message)

    def _measure(self, paused: str) -> None:
        for reason in _REASONS:
            attributes = {"reason": reason, "wallet": self._lease.wallet}
            _paused.set(int(reason == paused), attributes)


async def _end(tasks: set[asyncio.Task[None]], seconds: float) -> None:
    """Cancels until all have ended.

    One cancellation may get lost on the way: the library that speaks to the network swallows some,
    and so does the `asyncio.wait_for` that it uses.
    """
    while pending := {task for task in tasks if not task.done()}:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=seconds)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # looked at, or asyncio would complain that nobody did
