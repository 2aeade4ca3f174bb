"""The public key of a user's wallet, read from the state-init that made its address."""

from pytoniq_core.boc.cell import Cell
from pytoniq_core.tlb.account import StateInit

from chain_gateway.cells import read
from chain_gateway.errors import ProofInvalid

# Bits before the public key in the data of each known wallet, by the hash of its code.
_KEY_OFFSETS = {
    # v3r1, v3r2: seqno:uint32 wallet_id:uint32
    "b61041a58a7980b946e8fb9e198e3c904d24799ffa36574ea4251c41a566f581": 64,
    "84dafa449f98a6987789ba232358072bc0f76dc4524002a5d0918b9a75d2d599": 64,
    # v4r2: seqno:uint32 wallet_id:uint32
    "feb5ff6820e2ff0d9483e7e0d62c817d846789fb4ae580c878866d959dabd5c0": 64,
    # v5r1: is_signature_allowed:Bool seqno:uint32 wallet_id:uint32
    "20834b7b72b112147e1b2fb457b84e74d1a30f04f737d4f62a668e9552d2b72f": 65,
}


def public_key(state_init: bytes, account: bytes) -> bytes:
    """The ed25519 key of the wallet at `account` (the address's 32 bytes).

    Raises `ProofInvalid` if the state-init is not the one behind the address, or not of a wallet
    whose data we can read: then nothing proves that a key belongs to the address.
    """
    try:
        cell = Cell.one_from_boc(state_init)
        init = StateInit.deserialize(read(cell))
        offset = _KEY_OFFSETS[init.code.hash.hex()]
        data = read(init.data).skip_bits(offset)
        key = bytes(data.load_bytes(32))
    except Exception:  # foreign bytes make the parser raise whatever it likes
        raise ProofInvalid("state_init") from None
    if bytes(cell.hash) != account:
        raise ProofInvalid("state_init")
    return key
