"""TON Connect's ton_proof: that somebody holds the key of a wallet. Pure.

https://docs.ton.org/ecosystem/ton-connect/verify (address proof, "ton-proof-item-v2/")
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chain_gateway.errors import ProofInvalid

_ITEM_PREFIX = b"ton-proof-item-v2/"
_CONNECT_PREFIX = b"\xff\xffton-connect"


@dataclass(frozen=True, slots=True)
class Proof:
    """What a wallet signed; `account` is the account id of its address, 32 bytes."""

    workchain: int
    account: bytes
    sign_time: datetime
    domain: str
    payload: str
    signature: bytes


def digest(proof: Proof) -> bytes:
    """What is signed: sha256(0xffff ++ "ton-connect" ++ sha256(item))."""
    domain = proof.domain.encode()
    item = b"".join(
        (
            _ITEM_PREFIX,
            proof.workchain.to_bytes(4, "big", signed=True),
            proof.account,
            len(domain).to_bytes(4, "little"),
            domain,
            int(proof.sign_time.timestamp()).to_bytes(8, "little"),
            proof.payload.encode(),
        )
    )
    return hashlib.sha256(_CONNECT_PREFIX + hashlib.sha256(item).digest()).digest()


def verify(
    proof: Proof,
    public_key: bytes,
    *,
    domains: frozenset[str],
    now: datetime,
    leeway: timedelta,
) -> None:
    """Raises `ProofInvalid` unless the key's holder signed for one of `domains` around `now`."""
    if proof.domain not in domains:
        raise ProofInvalid("domain")
    if abs(now - proof.sign_time) > leeway:
        raise ProofInvalid("time")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(proof.signature, digest(proof))
    except (InvalidSignature, ValueError):
        raise ProofInvalid("signature") from None
