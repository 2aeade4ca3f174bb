"""Reading messages, accounts and transactions (TL-B: block.tlb), as far as a network must."""

from collections.abc import Iterator
from dataclasses import dataclass

from ton_devnet.cells import BocError, Builder, Cell, Reader, from_boc
from ton_devnet.trie import read_dictionary

MAX_EXTERNAL_BYTES = 65_535
MAX_EXTERNAL_DEPTH = 512
"""Limits on external messages: `ext_msg_limits` of the reference node."""


class MessageRejectedError(ValueError):
    """An external message this network refuses; the text says why."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """An inbound external message: destination in the basechain, state-init and body."""

    address: bytes
    init: Cell | None
    body: Cell


@dataclass(frozen=True, slots=True)
class AccountState:
    """Balance in nanotons; code is None unless the account is active."""

    balance: int
    code: Cell | None
    data: Cell | None


@dataclass(frozen=True, slots=True)
class Transaction:
    """What sealing a block needs of a transaction; `end_lt` is above all its messages' times."""

    cell: Cell
    lt: int
    end_lt: int
    sent: list[tuple[bytes, Cell]]
    """(address, message) of internal messages to the basechain, in the order they were sent."""


def parse_external(boc: bytes) -> Inbound:
    """Check form and limits of an external message. Raises MessageRejectedError."""
    if len(boc) > MAX_EXTERNAL_BYTES:
        raise MessageRejectedError(
            f"external message too large: {len(boc)} bytes, at most {MAX_EXTERNAL_BYTES};"
            " split it into several messages"
        )
    try:
        roots = from_boc(boc)
        if len(roots) != 1:
            raise BocError(f"it has {len(roots)} roots instead of one")
        if roots[0].depth > MAX_EXTERNAL_DEPTH:
            raise MessageRejectedError(
                f"external message too deep: {roots[0].depth} cells, at most {MAX_EXTERNAL_DEPTH};"
                " use a flatter layout or fewer messages in one chain"
            )
        return read_inbound(roots[0])
    except (BocError, TypeError) as error:
        raise MessageRejectedError(f"cannot parse the external message: {error}") from None


def read_inbound(message: Cell) -> Inbound:
    reader = Reader(message)
    if reader.uint(2) != 0b10:
        raise BocError("only inbound external messages (tag ext_in_msg_info$10) may be sent")
    _skip_external_address(reader)
    address = _basechain_address(reader)
    if address is None:
        raise BocError("the destination must be a plain address in workchain 0")
    reader.coins()
    init: Cell | None = None
    if reader.uint(1):
        if not reader.uint(1):
            init, reader = _inline_state_init(reader)
        else:
            init = reader.ref()
    body = reader.ref() if reader.uint(1) else reader.rest()
    return Inbound(address, init, body)


def _skip_external_address(reader: Reader) -> None:
    kind = reader.uint(2)
    if kind == 0b01:
        reader.uint(reader.uint(9))
    elif kind:
        raise BocError("the source of an external message must be an external address")


def _basechain_address(reader: Reader) -> bytes | None:
    """A MsgAddressInt: its 256 bits when it is addr_std without anycast in workchain 0."""
    kind, anycast = reader.uint(2), 0
    if kind != 0b10:
        return None
    anycast = reader.uint(1)
    if anycast:
        return None
    workchain = reader.uint(8)
    address = reader.raw(32)
    return address if workchain == 0 else None


def _inline_state_init(reader: Reader) -> tuple[Cell, Reader]:
    """Cut a StateInit out of the message's own bits."""
    init = Builder()
    for width in (5, 2):  # split_depth, special
        present = reader.uint(1)
        init.uint(present, 1)
        if present:
            init.uint(reader.uint(width), width)
    for _ in range(3):  # code, data, library
        init.maybe_ref(reader.maybe_ref())
    return init.cell(), reader


def read_state_init(cell: Cell) -> tuple[Cell | None, Cell | None]:
    """(code, data) of a StateInit."""
    return _code_and_data(Reader(cell))


def _code_and_data(reader: Reader) -> tuple[Cell | None, Cell | None]:
    if reader.uint(1):
        reader.uint(5)
    if reader.uint(1):
        reader.uint(2)
    return reader.maybe_ref(), reader.maybe_ref()


def read_account(cell: Cell) -> AccountState:
    """An Account; one that does not exist has balance 0 and no code."""
    reader = Reader(cell)
    if not reader.uint(1):
        return AccountState(0, None, None)
    if _basechain_address(reader) is None:
        raise BocError("the account is not in the basechain")
    for _ in range(2):  # StorageUsed: cells, bits
        reader.uint(8 * reader.uint(3))
    if reader.uint(3):  # StorageExtraInfo, with the hash of the storage dictionary
        reader.uint(256)
    reader.uint(32)
    if reader.uint(1):
        reader.coins()
    reader.uint(64)
    balance = reader.coins()
    reader.maybe_ref()
    if not reader.uint(1):
        return AccountState(balance, None, None)
    return AccountState(balance, *_code_and_data(reader))


def read_transaction(cell: Cell) -> Transaction:
    reader = Reader(cell)
    reader.uint(4 + 256)
    lt = reader.uint(64)
    reader.uint(256 + 64 + 32)
    sent = reader.uint(15)
    messages = Reader(reader.ref())
    messages.maybe_ref()
    outgoing = messages.maybe_ref()
    return Transaction(cell, lt, lt + sent + 1, list(_internal(outgoing)))


def _internal(outgoing: Cell | None) -> Iterator[tuple[bytes, Cell]]:
    for _, leaf in read_dictionary(outgoing, 15):
        message = leaf.ref()
        reader = Reader(message)
        if reader.uint(1):  # an external message out: a log, delivered to nobody
            continue
        reader.uint(3)
        if _basechain_address(reader) is None:
            continue
        destination = _basechain_address(reader)
        if destination is not None:
            yield destination, message
