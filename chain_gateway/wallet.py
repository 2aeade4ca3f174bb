"""The highload wallet v3: key, address, external messages, what its data says.

https://github.com/ton-blockchain/highload-wallet-contract-v3

The library's wallet ignores its time-out argument and reads the wall clock, so state-init and
messages are built here.
"""

import stat
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pytoniq.contract.wallets.highload_v3 import HIGHLOAD_V3_WALLET_CODE
from pytoniq_core.boc.cell import Cell
from pytoniq_core.boc.slice import Slice
from pytoniq_core.tlb.account import StateInit
from pytoniq_core.tlb.transaction import ExternalMsgInfo, MessageAny

from chain_gateway import query_id
from chain_gateway.cells import EMPTY, address_of, build, internal, parse, read
from mesh.config import ConfigurationError

MAX_ACTIONS = 254
MAX_MESSAGE_BYTES = 65_535
MAX_MESSAGE_DEPTH = 512

# What surrounds the actions: signature, two message headers, and the state-init of the first one.
_ENVELOPE_BYTES = 1_024
_ENVELOPE_DEPTH = 8

_SUBWALLET = 0x10AD
_OP_INTERNAL_TRANSFER = 0xAE42E5A4
_OP_SEND = 0x0EC3C86D  # action_send_msg (block.tlb)
# Pay fees apart from the value; skip what cannot be sent instead of undoing the others.
_SEND_MODE = 1 + 2
# The wallet sends its actions from a message to itself; this pays for that, the rest comes back.
_SELF_VALUE = 100_000_000
_DEPLOYMENT_VALUE = 50_000_000


class MintingKey:
    """The key of the minting wallet; the only object that holds it, and it never shows it."""

    def __init__(self, seed: bytes) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads a file of 64 hex digits; raises `ConfigurationError` if it is not one."""
        try:
            readable_by_others = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            seed = bytes.fromhex(path.read_text().strip())
        except OSError as error:
            raise ConfigurationError(
                f"Cannot read the wallet key {path}: {error.strerror}. Set GATEWAY_WALLET_KEY_FILE "
                "to a file that holds an ed25519 seed as 64 hex digits."
            ) from None
        except ValueError:
            seed, readable_by_others = b"", 0
        if readable_by_others:
            raise ConfigurationError(f"Others may read the wallet key {path}; chmod 600 it.")
        if len(seed) != 32:
            raise ConfigurationError(
                f"{path} holds no ed25519 seed; it should hold 64 hex digits and nothing else."
            )
        return cls(seed)

    def sign(self, digest: bytes) -> bytes:
        """The ed25519 signature."""
        return self._key.sign(digest)

    def __repr__(self) -> str:
        return f"MintingKey(public={self.public.hex()}, seed=<redacted>)"


class MessageTooLarge(ValueError):
    """The external message is beyond what the network takes."""


class ActionList:
    """Messages for the wallet to send, grown while they fit into one external message.

    Cells that occur more than once take room once, as in the bag of cells that travels.
    """

    def __init__(self) -> None:
        self._cell = EMPTY
        self._seen: set[bytes] = {self._cell.hash}
        self._size = _ENVELOPE_BYTES + _cell_size(self._cell)
        self.count = 0

    def add(self, message: Cell) -> bool:
        """Adds a message; False, and nothing changes, if it does not fit any more."""
        action = (
            build()
            .store_ref(self._cell)
            .store_uint(_OP_SEND, 32)
            .store_uint(_SEND_MODE, 8)
            .store_ref(message)
            .end_cell()
        )
        new = _unseen([action], self._seen)
        size = self._size + sum(_cell_size(cell) for cell in new)
        depth = action.get_depth(0) + _ENVELOPE_DEPTH
        if self.count == MAX_ACTIONS or size > MAX_MESSAGE_BYTES or depth > MAX_MESSAGE_DEPTH:
            return False
        self._seen.update(cell.hash for cell in new)
        self._cell, self._size = action, size
        self.count += 1
        return True

    @property
    def cell(self) -> Cell:
        """The list, as an `OutList` (block.tlb)."""
        return self._cell


class WalletState:
    """What the wallet contract stores, as of one block."""

    def __init__(self, data: Cell) -> None:
        stored = read(data)
        stored.skip_bits(256 + 32)
        self._old: dict[int, Cell] = _shifts(stored)
        self._current: dict[int, Cell] = _shifts(stored)
        self.last_clean_time: int = stored.load_uint(64)
        self.timeout: int = stored.load_uint(22)

    def processed(self, query: int, now: int) -> bool:
        """Whether the wallet ran this query and would still refuse it at chain time `now`.

        The same answer as the get method `processed?` with need_clean.
        """
        remembered = [self._old, self._current]
        if self.last_clean_time < now - self.timeout:
            remembered = [self._current]
        if self.last_clean_time < now - 2 * self.timeout:
            remembered = []
        shift, bit = query_id.unpack(query)
        return any(shift in bits and bits[shift].bits[bit] for bits in remembered)


class HighloadWallet:
    """The minting wallet of one key and one time-out, which together make its address."""

    def __init__(self, key: MintingKey, timeout: int) -> None:
        self._key = key
        self.timeout = timeout
        data = (
            build()
            .store_bytes(key.public)
            .store_uint(_SUBWALLET, 32)
            .store_dict(None)
            .store_dict(None)
            .store_uint(0, 64)
            .store_uint(timeout, 22)
            .end_cell()
        )
        self._init = StateInit(code=HIGHLOAD_V3_WALLET_CODE, data=data)
        self.address = address_of(self._init)

    def deployment(self) -> Cell:
        """The message of another wallet that creates this one; sent again, it changes nothing."""
        return internal(self.address, _DEPLOYMENT_VALUE, EMPTY, init=self._init, bounce=False)

    def external(
        self, actions: ActionList, *, query: int, created_at: int, deploy: bool = False
    ) -> bytes:
        """The signed external message as a bag of cells; with `deploy` it also creates the wallet.

        `created_at` is chain time and must not be ahead of it. Raises `MessageTooLarge`.
        """
        transfer = build().store_uint(_OP_INTERNAL_TRANSFER, 32).store_uint(query, 64)
        transfer.store_ref(actions.cell)
        to_self = internal(self.address, _SELF_VALUE, transfer.end_cell())
        signed = (
            build()
            .store_uint(_SUBWALLET, 32)
            .store_ref(to_self)
            .store_uint(_SEND_MODE, 8)
            .store_uint(query, 23)
            .store_uint(created_at, 64)
            .store_uint(self.timeout, 22)
            .end_cell()
        )
        sealed = build().store_bytes(self._key.sign(signed.hash)).store_ref(signed).end_cell()
        info = ExternalMsgInfo(None, parse(self.address), 0)
        message = MessageAny(
            info=info, init=self._init if deploy else None, body=sealed
        ).serialize()
        return _checked(message)


def _checked(message: Cell) -> bytes:
    boc: bytes = message.to_boc()
    depth = message.get_depth(0)
    if len(boc) > MAX_MESSAGE_BYTES or depth > MAX_MESSAGE_DEPTH:
        raise MessageTooLarge(
            f"{len(boc)} bytes, depth {depth}; the network takes {MAX_MESSAGE_BYTES} bytes and "
            f"depth {MAX_MESSAGE_DEPTH}: put fewer mints into one message"
        )
    return boc


def _shifts(stored: Slice) -> dict[int, Cell]:
    return stored.load_dict(13, value_deserializer=lambda leaf: leaf.load_ref()) or {}


def _cell_size(cell: Cell) -> int:
    """Bytes in a bag of cells with up to 65,535 cells: descriptors, data, references."""
    return 2 + (len(cell.bits) + 7) // 8 + 2 * len(cell.refs)


def _unseen(roots: list[Cell], seen: set[bytes]) -> list[Cell]:
    found: dict[bytes, Cell] = {}
    stack = list(roots)
    while stack:
        cell = stack.pop()
        if cell.hash not in seen and cell.hash not in found:
            found[cell.hash] = cell
            stack.extend(cell.refs)
    return list(found.values())
