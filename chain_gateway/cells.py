"""Cells, addresses and internal messages: what every contract here is built from.

The library is only half annotated; `build`, `read` and `EMPTY` give it types.
"""

from functools import lru_cache

from pytoniq_core.boc.address import Address
from pytoniq_core.boc.builder import Builder
from pytoniq_core.boc.cell import Cell
from pytoniq_core.boc.slice import Slice
from pytoniq_core.tlb.account import StateInit

EMPTY: Cell = Cell.empty()
"""The cell without data and references."""

# int_msg_info$0 with ihr_disabled, bounce or not, not bounced, and an empty source: the wallet
# fills it in (block.tlb, CommonMsgInfoRelaxed).
_BOUNCEABLE, _PLAIN = 0x18, 0x10
# No extra currencies, no ihr_fee, no fwd_fee, created_lt, created_at: 1 + 4 + 4 + 64 + 32 bits.
_ZEROS = 105
_ACCOUNT_BYTES = 32


def build() -> Builder:
    """A new cell in the making."""
    return Builder()


def read(cell: Cell) -> Slice:
    """A cell, opened for reading."""
    opened: Slice = cell.begin_parse()
    return opened


@lru_cache(maxsize=4096)
def parse(address: str) -> Address:
    """A raw or user-friendly address as the library's; raises ValueError for anything else."""
    try:
        parsed = Address(address)
    except Exception as error:  # the library raises whatever the text makes it raise
        raise ValueError(f"{address!r} is no TON address") from error
    if len(parsed.hash_part) != _ACCOUNT_BYTES:
        raise ValueError(f"{address!r} is no TON address")
    return parsed


def raw(address: Address) -> str:
    """The raw form `0:<hex>`."""
    return f"{address.wc}:{address.hash_part.hex()}"


def friendly(address: str) -> str:
    """The user-friendly form for sending to a wallet that may not exist yet."""
    shown: str = parse(address).to_str(is_bounceable=False)
    return shown


def internal(
    to: str, value: int, body: Cell, *, init: StateInit | None = None, bounce: bool = True
) -> Cell:
    """An internal message of `value` nanoton; the body goes inline where it fits.

    With `bounce` the value comes back if no contract takes it.
    """
    message = (
        build()
        .store_uint(_BOUNCEABLE if bounce else _PLAIN, 6)
        .store_address(parse(to))
        .store_coins(value)
        .store_uint(0, _ZEROS)
    )
    if init is None:
        message.store_bit_int(0)
    else:
        message.store_uint(0b11, 2).store_ref(init.serialize())
    if len(body.bits) < message.available_bits and len(body.refs) <= message.available_refs:
        return message.store_bit_int(0).store_cell(body).end_cell()
    return message.store_bit_int(1).store_ref(body).end_cell()


def address_of(init: StateInit) -> str:
    """The raw address in workchain 0 of a contract deployed with this state-init."""
    return f"0:{init.serialize().hash.hex()}"
