"""What the wallet did with one of its messages, told by the wallet's own transactions. Pure.

The wallet runs an external message, keeps its query id, and sends itself the list of messages; when
that arrives, it sends what is on the list. So a query id alone proves nothing: without balance the
wallet keeps the id and sends nothing, and of the list it leaves out what it cannot pay for. The
transaction that the list arrived in tells, once and for all, what went out.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pytoniq_core.boc.cell import Cell

from chain_gateway.cells import read
from chain_gateway.operations import FailureReason
from chain_gateway.transactions import Message, Transaction, read_message


class Parcel(NamedTuple):
    """A message that the wallet sends, as it can be recognised on the chain."""

    to: str | None
    value: int
    body_hash: bytes


@dataclass(frozen=True, slots=True)
class Execution:
    """How far a message has come, as of the wallet's transaction with this `lt`.

    `sent` is None while the list is on its way.
    """

    lt: int
    sent: Counter[Parcel] | None


def execution(
    history: Sequence[Transaction], wallet: str, query_id: int, created_at: int
) -> Execution | None:
    """The execution of a message, by the wallet's history; None if the wallet did not run it."""
    for ran in history:
        if ran.incoming is None or ran.incoming.source is not None:
            continue
        if _signed(ran.incoming.body) == (query_id, created_at):
            return _arrival(history, wallet, ran)
    return None


def missing(execution: Execution, carried: Sequence[Parcel]) -> list[str]:
    """For each parcel of a message that ran: "" if it went out, else why not.

    Two parcels that look the same are the same to their recipient: if one went out, the first one
    did. Only for executions whose list has arrived.
    """
    assert execution.sent is not None
    left = execution.sent.copy()
    reasons = []
    for parcel in carried:
        if left[parcel]:
            left[parcel] -= 1
            reasons.append("")
        elif execution.sent:
            reasons.append(FailureReason.LOW_BALANCE)
        else:
            reasons.append(FailureReason.NOTHING_SENT)
    return reasons


def carried(boc: bytes) -> list[Parcel]:
    """What an external message of the wallet carries, in its order."""
    to_self = read_message(_order(read_message(Cell.one_from_boc(boc)).body))
    actions = read(to_self.body).load_ref()
    parcels = []
    while actions.refs:
        before, message = actions.refs
        parcels.append(_parcel(read_message(message)))
        actions = before
    return parcels[::-1]


def _arrival(history: Sequence[Transaction], wallet: str, ran: Transaction) -> Execution:
    lists = [message.created_lt for message in ran.outgoing if message.to == wallet]
    if not lists:
        return Execution(ran.lt, Counter())
    for arrived in history:
        came = arrived.incoming
        if came is not None and came.source == wallet and came.created_lt == lists[0]:
            went = () if arrived.aborted else arrived.outgoing
            return Execution(arrived.lt, Counter(map(_parcel, went)))
    return Execution(ran.lt, None)


def _parcel(message: Message) -> Parcel:
    return Parcel(message.to, message.value, bytes(message.body.hash))


def _signed(body: Cell) -> tuple[int, int] | None:
    """Query id and creation time of an external message's body."""
    if len(body.refs) != 1:
        return None
    signed = read(body.refs[0])
    if signed.remaining_bits < 32 + 8 + 23 + 64:
        return None
    signed.skip_bits(32 + 8)
    return signed.load_uint(23), signed.load_uint(64)


def _order(body: Cell) -> Cell:
    """The wallet's message to itself, within an external message's body."""
    order: Cell = body.refs[0].refs[0]
    return order
