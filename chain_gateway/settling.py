"""Settling: what came true where no block tells by itself, and what is to be sent again, and why.

Items are read by their addresses, and what the wallet sent is read from its own transactions. That
something did not come true is judged as of a final block alone.
"""

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from chain_gateway import effects, executions
from chain_gateway.accounts import Account
from chain_gateway.delivery import Message, Timing
from chain_gateway.effects import Awaited, Effect
from chain_gateway.errors import ChainUnavailable
from chain_gateway.operations import FailureReason, Kind
from chain_gateway.store.progress import ProgressStore
from chain_gateway.ton import Block, Chain
from mesh.db import Database
from mesh.telemetry import logger, meter

_READ_AT_ONCE = 200
# As the end of an operation; with the others another attempt could only repeat it.
_RETRYABLE = frozenset({FailureReason.INDEX_TAKEN})

_log = logger("gateway.settling")
_setbacks = meter.create_counter(
    "gateway.setbacks",
    unit="{operation}",
    description="Operations whose message came to nothing, by reason.",
)


@dataclass(slots=True)
class Outcome:
    """Operations by what became of them: seen at the head, seen at the final block, to be sent
    again by reason, failed by reason.
    """

    arrived: list[str] = field(default_factory=list)
    there: list[str] = field(default_factory=list)
    again: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    failed: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


class _Word(NamedTuple):
    """What the wallet says of an operation that its message carried: "" if it went out, else why
    not; said by its transaction with this `lt`, or by there being none.
    """

    lt: int
    reason: str


class Final(NamedTuple):
    """The newest block beyond rollback, and the wallet's account as of it."""

    block: Block
    wallet: Account


class Settler:
    """Reads what became of one wallet's operations."""

    def __init__(self, database: Database, chain: Chain, wallet: str, timing: Timing) -> None:
        self._database = database
        self._chain = chain
        self._wallet = wallet
        self._timing = timing

    async def settle(
        self,
        messages: Sequence[Message],
        ended: Collection[int],
        wallet: Account,
        final: Final | None,
    ) -> Outcome:
        """Judges what the `ended` ones among the open messages carry, and transfers at any time.

        `wallet` is the wallet's account at the head. Raises `ChainUnavailable`.
        """
        outcome = Outcome()
        awaited = await self._awaited([message.message_id for message in messages])
        transfers = [each for each in awaited if each.kind is Kind.TRANSFER]
        to_read = {each.message_id for each in transfers} | set(ended)
        words = await self._words([m for m in messages if m.message_id in to_read], wallet, final)
        final_lt = 0 if final is None else final.wallet.last_lt
        for transfer in transfers:
            _judge_transfer(transfer, words.get(transfer.operation_id), final_lt, outcome)
        if ended and final is not None:
            on_items = [each for each in awaited if each.message_id in ended and each.address]
            for each, effect in await self._effects(on_items, final.block):
                _judge_item(each, effect, words.get(each.operation_id), outcome)
            _log.warning(
                "settling.settled",
                messages=list(ended),
                there=len(outcome.there),
                again={reason: len(ids) for reason, ids in outcome.again.items()},
                failed={reason: len(ids) for reason, ids in outcome.failed.items()},
            )
        return outcome

    async def there(self, messages: Sequence[Message], at: Block) -> list[str]:
        """The operations in these messages that came true, as items show at a block."""
        awaited = await self._awaited([message.message_id for message in messages])
        found = await self._effects([each for each in awaited if each.address], at)
        return [each.operation_id for each, effect in found if effect is Effect.THERE]

    async def _awaited(self, message_ids: Sequence[int]) -> list[Awaited]:
        if not message_ids:
            return []
        async with self._database.transaction(read_only=True) as connection:
            return await ProgressStore(connection, self._wallet).in_flight(message_ids)

    async def _effects(self, awaited: Sequence[Awaited], at: Block) -> list[tuple[Awaited, Effect]]:
        found: list[tuple[Awaited, Effect]] = []
        for start in range(0, len(awaited), _READ_AT_ONCE):
            part = awaited[start : start + _READ_AT_ONCE]
            addresses = sorted({each.address for each in part if each.address is not None})
            accounts = await self._chain.accounts(addresses, at)
            for each in part:
                account = accounts[each.address or ""]
                found.append((each, effects.of_item(each, account.code_hash, account.data)))
        return found

    async def _words(
        self, messages: Sequence[Message], wallet: Account, final: Final | None
    ) -> dict[str, _Word]:
        """What the wallet says, by operation; those it says nothing of yet are missing.

        A wallet that sends has transactions: one that has none says nothing of anything.
        """
        if not messages or not wallet.last_lt:
            return {}
        since = min(message.created_at for message in messages)
        try:
            history = await self._chain.history(self._wallet, wallet, since)
        except ChainUnavailable as error:
            _log.error("settling.history_unread", since=since, error=error.message)
            return {}
        async with self._database.transaction(read_only=True) as connection:
            contents = await ProgressStore(connection, self._wallet).carried(
                [m.message_id for m in messages]
            )
        words: dict[str, _Word] = {}
        for message in messages:
            boc, operation_ids = contents[message.message_id]
            ran = executions.execution(history, self._wallet, message.query_id, message.created_at)
            if ran is None:
                expiry = message.created_at + self._timing.timeout
                if final is not None and final.wallet.time >= expiry:
                    words |= dict.fromkeys(operation_ids, _Word(0, FailureReason.EXPIRED))
            elif ran.sent is not None:
                reasons = executions.missing(ran, executions.carried(boc))
                told = [_Word(ran.lt, reason) for reason in reasons]
                words |= zip(operation_ids, told, strict=True)
        return words


def _judge_transfer(transfer: Awaited, word: _Word | None, final_lt: int, outcome: Outcome) -> None:
    """Sent again only where it is final that it did not go out, and will not."""
    if word is None:
        return
    if not word.reason:
        outcome.arrived.append(transfer.operation_id)
    elif word.lt <= final_lt:
        outcome.again[word.reason].append(transfer.operation_id)


def _judge_item(awaited: Awaited, effect: Effect, word: _Word | None, outcome: Outcome) -> None:
    match effect:
        case Effect.THERE:
            outcome.there.append(awaited.operation_id)
        case Effect.ABSENT:
            reason = word.reason if word is not None else ""
            outcome.again[reason or FailureReason.NO_EFFECT].append(awaited.operation_id)
        case _:
            outcome.failed[effect.name].append(awaited.operation_id)


async def write_outcome(
    store: ProgressStore, outcome: Outcome, head: Block, final: Block | None
) -> None:
    """Writes an outcome down, in the transaction of the store."""
    if outcome.arrived:
        await store.fulfilled(outcome.arrived, head.seqno, head.root_hash)
    if outcome.there and final is not None:
        await store.fulfilled(outcome.there, final.seqno, final.root_hash)
    for reason, operation_ids in outcome.again.items():
        _setbacks.add(len(operation_ids), {"reason": reason})
        await store.requeue(operation_ids, reason)
    for reason, operation_ids in outcome.failed.items():
        await store.fail(operation_ids, reason, retryable=reason in _RETRYABLE)
