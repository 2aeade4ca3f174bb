"""The way to the network: lite-servers through pytoniq, with typed errors and a head that moves.

A peer of pytoniq can stop following the chain without a word, so the head is followed here, and
when it stands still for too long all connections are made anew.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar

from pytoniq.liteclient.balancer import LiteBalancer
from pytoniq.liteclient.client import LiteClient, LiteServerError, RunGetMethodError
from pytoniq.liteclient.sync import sync
from pytoniq_core.boc.address import Address
from pytoniq_core.boc.cell import Cell
from pytoniq_core.proof.check_proof import check_shard_proof
from pytoniq_core.tl.block import BlockIdExt

from chain_gateway import blocks
from chain_gateway.accounts import Account, read_account
from chain_gateway.cells import parse
from chain_gateway.errors import ChainUnavailable
from chain_gateway.transactions import Transaction, read_transaction
from mesh.clock import monotonic
from mesh.telemetry import logger

T = TypeVar("T")

MASTERCHAIN, MASTER_SHARD = -1, -(2**63)

_MAINNET_ZERO_STATE = "F6OpKZKqvqeFp6CQmFomXNMfMj2EnaUSOXN+Mh+wVWk="

# Below the ten seconds after which pytoniq gives a request up.
_WAIT_BLOCK_SECONDS = 8.0
_FROZEN_SECONDS = 20.0
_REQUEST_SECONDS = 10.0
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0
_CLOSE_SECONDS = 2.0
_PARALLEL_READS = 32
# Lite-servers pass an external message on by themselves; more than one, in case one is cut off.
_SEND_TO_PEERS = 3
_LONGEST_WALK = 64
# The most transactions that lite-servers give at once.
_HISTORY_PAGE = 16

_log = logger("gateway.ton")

# pytoniq tells of every request, and warns of every get method.
for _name in ("_Peer", "LiteBalancer", "sync"):
    logging.getLogger(_name).setLevel(logging.ERROR)


class MessageRefused(Exception):
    """No lite-server takes the external message; usually because the wallet already ran it."""


class GetMethodFailed(Exception):
    """A get method ended with an exit code other than 0, or there is no such contract (-256)."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True)
class Block:
    """A masterchain block; `time` is chain time in seconds."""

    seqno: int
    root_hash: bytes
    time: int
    id: BlockIdExt = field(repr=False, compare=False)

    @property
    def moment(self) -> datetime:
        """Its time."""
        return datetime.fromtimestamp(self.time, UTC)


@dataclass(frozen=True, slots=True)
class Scan:
    """Roots of basechain blocks, and the root hashes of the newest among them."""

    roots: tuple[Cell, ...]
    tips: frozenset[bytes]


class _Peer(LiteClient):  # type: ignore[misc]
    """A lite-server that can be connected to at trust level 0 though nothing is new, and that has
    to prove also what is not there.

    pytoniq learns the key block that it checks signatures by from proofs of newer blocks alone.
    When the block that another peer has just stored is still the head, there are none.
    """

    last_key_block: BlockIdExt | None

    async def proven_account(self, address: Address, block: BlockIdExt) -> Account:
        """The account as of a masterchain block, or that there is none."""
        asked = {"id": block.to_dict(), "account": address.to_tl_account_id()}
        answer = await self.liteserver_request("getAccountState", asked)
        if self.trust_level < 2:
            check_shard_proof(
                answer["shard_proof"], block, BlockIdExt.from_dict(answer["shardblk"])
            )
        if not self.trust_level and block != self.last_mc_block:
            await self.get_mc_block_proof(known_block=self.last_key_block, target_block=block)
        return read_account(answer, address)

    async def get_trusted_last_mc_block(self) -> BlockIdExt:
        if not self.trust_level and self.last_key_block is None:
            last = (await self.get_masterchain_info())["last"]
            await sync(self, BlockIdExt.from_dict(last), self.init_key_block)
            self.last_key_block = self.last_key_block or self.init_key_block
        return await super().get_trusted_last_mc_block()


class Chain:
    """The network behind a global-config JSON, as an async context manager.

    Connects in the background and again after a loss; until then reads raise `ChainUnavailable`.
    `trust_level` is pytoniq's: 2 trusts the lite-server, 1 checks proofs against the head it names,
    0 also checks validators' signatures (and keeps a `.blockstore` in the working directory).
    """

    def __init__(self, config: dict[str, Any], trust_level: int) -> None:
        self._config = config
        self._trust_level = trust_level
        self._balancer: LiteBalancer | None = None
        self._head: Block | None = None
        self._closing = False
        self._moved = asyncio.Condition()
        self._reads = asyncio.Semaphore(_PARALLEL_READS)

    async def __aenter__(self) -> Self:
        self._following = asyncio.create_task(self._follow_for_ever(), name="follow the chain")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing = True
        while not self._following.done():
            # More than once: pytoniq swallows a cancellation that meets it closing a connection.
            self._following.cancel()
            await asyncio.wait({self._following}, timeout=_CLOSE_SECONDS)

    @property
    def is_mainnet(self) -> bool:
        """Whether this is the network where addresses marked as of a test network mean nothing."""
        zero_state = self._config.get("validator", {}).get("zero_state", {})
        return bool(zero_state.get("root_hash") == _MAINNET_ZERO_STATE)

    @property
    def head(self) -> Block:
        """The newest masterchain block; raises `ChainUnavailable` while there is no connection."""
        if self._head is None or self._balancer is None:
            raise ChainUnavailable
        return self._head

    async def wait(self, after: Block | None, seconds: float) -> Block:
        """Waits for a head other than `after`; the head as it is when the time is over.

        Raises `ChainUnavailable` when there is none.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self._moved:
                await self._moved.wait_for(lambda: self._head is not None and self._head != after)
        return self.head

    async def block_at(self, seqno: int) -> Block:
        """The masterchain block of this number, on the chain as it is now."""
        block_id, block = await self._ask("lookup_block", MASTERCHAIN, MASTER_SHARD, seqno=seqno)
        return Block(seqno, bytes(block_id.root_hash), block.info.gen_utime, block_id)

    async def account(self, address: str, at: Block) -> Account:
        """The account as of a block."""
        account: Account = await self._ask("proven_account", parse(address), at.id)
        return account

    async def history(self, address: str, account: Account, since: int) -> list[Transaction]:
        """The account's `transactions` since that chain time, newest first."""
        found: list[Transaction] = []
        async for transaction in self.transactions(address, account):
            if transaction.time < since:
                break
            found.append(transaction)
        return found

    async def transactions(self, address: str, account: Account) -> AsyncIterator[Transaction]:
        """The account's transactions, newest first, asked for as they are taken.

        Each names the one before it by its hash, so that none can be left out. Raises
        `ChainUnavailable` also when no lite-server keeps them any more.
        """
        lt, digest = account.last_lt, account.last_hash
        while lt:
            page, _ = await self._ask(
                "raw_get_transactions", parse(address), _HISTORY_PAGE, lt, digest
            )
            if not page:
                raise ChainUnavailable("A lite-server keeps too little of an account's history.")
            for transaction in page:
                # The whole of it: a part that is left out would keep the hash that pytoniq checks.
                if transaction.cell.hash != digest:
                    raise ChainUnavailable("A lite-server sent another transaction than asked for.")
                yield read_transaction(transaction.cell)
                lt, digest = transaction.prev_trans_lt, transaction.prev_trans_hash

    async def accounts(self, addresses: Sequence[str], at: Block) -> dict[str, Account]:
        """Many accounts as of a block, read side by side; raises `ChainUnavailable`."""
        try:
            async with asyncio.TaskGroup() as group:
                reads = [group.create_task(self._read(address, at)) for address in addresses]
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return dict(zip(addresses, (read.result() for read in reads), strict=True))

    async def run_get_method(
        self, address: str, method: str, stack: Sequence[Any], at: Block
    ) -> list[Any]:
        """The stack that a get method leaves; raises `GetMethodFailed`."""
        result = await self._ask("run_get_method", parse(address), method, list(stack), block=at.id)
        return list(result)

    async def send(self, boc: bytes) -> None:
        """Hands an external message to lite-servers; raises `MessageRefused` if none takes it."""
        balancer = self._connected()
        copies = min(_SEND_TO_PEERS, max(1, balancer.alive_peers_num))
        sendings = (
            self._answer(balancer.execute_method("raw_send_message", boc, choose_random=True))
            for _ in range(copies)
        )
        outcomes = await asyncio.gather(*sendings, return_exceptions=True)
        if all(isinstance(outcome, BaseException) for outcome in outcomes):
            refusal = outcomes[0]
            if isinstance(refusal, LiteServerError):
                raise MessageRefused(refusal.message) from refusal
            raise ChainUnavailable from refusal

    async def shard_tips(self, at: Block) -> frozenset[bytes]:
        """Root hashes of the newest basechain blocks that `at` commits to."""
        return frozenset(bytes(tip.root_hash) for tip in await self._tips(at))

    async def scan(self, at: Block, known: frozenset[bytes]) -> Scan | None:
        """The basechain blocks that `at` commits to, back to those whose root hash is in `known`.

        None when it cannot get there, because a shard was split or merged, or lies too far back, or
        the chain was rolled back.
        """
        roots: dict[bytes, Cell] = {}
        tips = await self._tips(at)
        for tip in tips:
            walked = await self._walk(tip, known)
            if walked is None:
                return None
            roots |= walked
        return Scan(tuple(roots.values()), frozenset(bytes(tip.root_hash) for tip in tips))

    async def _tips(self, at: Block) -> list[BlockIdExt]:
        tips: list[BlockIdExt] = await self._ask("get_all_shards_info", block=at.id)
        return tips

    async def _walk(self, tip: BlockIdExt, known: frozenset[bytes]) -> dict[bytes, Cell] | None:
        found: dict[bytes, Cell] = {}
        block: BlockIdExt | None = tip
        while block is not None and bytes(block.root_hash) not in known:
            if len(found) == _LONGEST_WALK or block.seqno == 0:
                return None
            answer = await self._ask("liteserver_request", "getBlock", {"id": block.to_dict()})
            root = await asyncio.to_thread(Cell.one_from_boc, answer["data"])
            if root.hash != block.root_hash:
                raise ChainUnavailable("A lite-server sent a block that is not the one asked for.")
            found[bytes(block.root_hash)] = root
            block = blocks.previous(block, root)
        return None if block is None else found

    async def _read(self, address: str, at: Block) -> Account:
        async with self._reads:
            return await self.account(address, at)

    def _connected(self) -> LiteBalancer:
        if self._balancer is None:
            raise ChainUnavailable
        return self._balancer

    async def _ask(self, method: str, *arguments: Any, **named: Any) -> Any:
        balancer = self._connected()
        try:
            return await self._answer(balancer.execute_method(method, *arguments, **named))
        except RunGetMethodError as error:
            raise GetMethodFailed(error.exit_code) from error
        except ChainUnavailable:
            raise
        except Exception as error:  # transports, proofs and parsers each raise their own
            _log.warning("ton.request_failed", method=method, error=repr(error))
            raise ChainUnavailable from error

    @staticmethod
    async def _answer(request: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                return await request
        except Exception:
            raise
        except BaseException as error:
            # pytoniq's own errors may derive from BaseException; a cancellation must pass.
            if isinstance(error, asyncio.CancelledError | KeyboardInterrupt | SystemExit):
                raise
            raise ChainUnavailable from error

    async def _follow_for_ever(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        while not self._closing:
            try:
                async with self._connection():
                    pause = _FIRST_PAUSE_SECONDS
                    await self._follow()
            except Exception as error:
                _log.warning("ton.connection_lost", error=repr(error), retry_seconds=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[None]:
        balancer = LiteBalancer(
            [
                _Peer.from_config(self._config, number, self._trust_level)
                for number in range(len(self._config["liteservers"]))
            ]
        )
        try:
            await balancer.start_up()
            if not balancer.alive_peers_num:
                raise ChainUnavailable
            self._balancer = balancer
            yield
        finally:
            self._balancer = None
            await balancer.close_all()

    async def _follow(self) -> None:
        """Moves the head with the chain; returns when it stands still for too long."""
        newest = (await self._ask("get_masterchain_info"))["last"]
        moved_at = monotonic()
        while monotonic() - moved_at < _FROZEN_SECONDS:
            head = await self._verified(BlockIdExt.from_dict(newest))
            if head != self._head:
                moved_at = monotonic()
                await self._announce(head)
            newest = await self._next(head.seqno + 1)
        _log.warning("ton.head_frozen", seconds=_FROZEN_SECONDS)

    async def _next(self, seqno: int) -> dict[str, Any]:
        """The head once it has reached `seqno`, or as it is when that takes too long."""
        balancer = self._connected()
        waiting = balancer.wait_masterchain_seqno(
            seqno, int(_WAIT_BLOCK_SECONDS * 1000), "getMasterchainInfo", {}
        )
        try:
            answer = await self._answer(waiting)
        except TimeoutError:
            answer = await self._ask("get_masterchain_info")
        last: dict[str, Any] = answer["last"]
        return last

    async def _verified(self, block_id: BlockIdExt) -> Block:
        header = await self._ask("raw_get_block_header", block_id)
        return Block(block_id.seqno, bytes(block_id.root_hash), header.info.gen_utime, block_id)

    async def _announce(self, head: Block) -> None:
        async with self._moved:
            self._head = head
            self._moved.notify_all()
