"""Transactions and their messages, read from the cells of blocks and of histories (block.tlb)."""

from dataclasses import dataclass
from typing import Any

from pytoniq_core.boc.cell import Cell
from pytoniq_core.tlb import transaction as tlb

from chain_gateway.cells import raw, read

_ACTIVE = 0b10


@dataclass(frozen=True, slots=True)
class Message:
    """A message; an external one comes from nobody, and one not yet sent has nobody's name on it.

    `value` is in nanoton.
    """

    source: str | None
    to: str | None
    value: int
    created_lt: int
    bounced: bool
    body: Cell

    @property
    def op(self) -> int | None:
        """The first 32 bits of the body; None for an empty one."""
        body = read(self.body)
        return int(body.load_uint(32)) if body.remaining_bits >= 32 else None


@dataclass(frozen=True, slots=True)
class Transaction:
    """A transaction of an account; `time` is chain time in seconds, `fees` are in nanoton.

    `exit_code` is None if the contract did not run at all, for want of gas or of code. An aborted
    transaction changed nothing but the balance.
    """

    lt: int
    hash: bytes
    time: int
    fees: int
    aborted: bool
    exit_code: int | None
    incoming: Message | None
    outgoing: tuple[Message, ...]


def read_transaction(cell: Cell) -> Transaction:
    """Reads a transaction's cell."""
    found = tlb.Transaction.deserialize(read(cell))
    computed = getattr(found.description, "compute_ph", None)
    return Transaction(
        lt=found.lt,
        hash=bytes(cell.hash),
        time=found.now,
        fees=found.total_fees.grams,
        aborted=bool(getattr(found.description, "aborted", False)),
        exit_code=getattr(computed, "exit_code", None),
        incoming=None if found.in_msg is None else _message(found.in_msg),
        outgoing=tuple(_message(message) for message in found.out_msgs),
    )


def activated(transaction: Cell) -> bool:
    """Whether an account became a contract by this transaction; reads nothing else of it."""
    header = read(transaction)
    header.skip_bits(4 + 256 + 64 + 256 + 64 + 32 + 15)
    before, after = header.load_uint(2), header.load_uint(2)
    return bool(before != _ACTIVE and after == _ACTIVE)


def aborted(transaction: Cell) -> bool:
    """Whether this transaction was aborted; reads nothing else of it."""
    description = tlb.TransactionDescr.deserialize(read(transaction.refs[-1]))
    return bool(getattr(description, "aborted", False))


def read_message(cell: Cell) -> Message:
    """Reads a message's cell."""
    return _message(tlb.MessageAny.deserialize(read(cell)))


def _message(found: Any) -> Message:
    info, internal = found.info, found.is_internal
    return Message(
        source=raw(info.src) if internal and info.src is not None else None,
        to=None if found.is_external_out else raw(info.dest),
        value=info.value_coins if internal else 0,
        created_lt=info.created_lt if internal else 0,
        bounced=internal and info.bounced,
        body=found.body,
    )
