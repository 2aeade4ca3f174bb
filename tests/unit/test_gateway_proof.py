"""ton_proof: the standard's bytes, and every way in which a proof does not hold."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pytoniq.contract.wallets.wallet import WALLET_V3_R2_CODE, WALLET_V4_R2_CODE
from pytoniq.contract.wallets.wallet_v5 import WALLET_V5_R1_CODE
from pytoniq_core.boc.cell import Cell
from pytoniq_core.tlb.account import StateInit

from chain_gateway.cells import build
from chain_gateway.errors import ProofInvalid
from chain_gateway.proof import Proof, digest, verify
from chain_gateway.user_wallets import public_key

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DOMAIN = "app.go2asia.test"


def signed(**changes: object) -> Proof:
    proof = Proof(0, b"\xab" * 32, NOW, DOMAIN, "challenge", b"")
    proof = replace(proof, **changes)  # type: ignore[arg-type]
    return replace(proof, signature=KEY.sign(digest(proof)))


def part_at_fault(proof: Proof, key: bytes = PUBLIC) -> str | None:
    try:
        verify(proof, key, domains=frozenset({DOMAIN}), now=NOW, leeway=timedelta(minutes=15))
    except ProofInvalid as error:
        return error.metadata["part"]
    return None


def test_the_digest_is_made_of_the_bytes_the_standard_lists() -> None:
    item = bytes.fromhex(
        "746f6e2d70726f6f662d6974656d2d76322f"  # ton-proof-item-v2/
        "ffffffff" + "ab" * 32  # workchain -1, big endian; account id
        + "03000000" + "612e62"  # domain: length, little endian; "a.b"
        + "0102000000000000"  # time 513, little endian
        + "70"  # payload "p"
    )  # fmt: skip
    expected = hashlib.sha256(b"\xff\xffton-connect" + hashlib.sha256(item).digest()).digest()
    proof = Proof(-1, b"\xab" * 32, datetime.fromtimestamp(513, UTC), "a.b", "p", b"")
    assert digest(proof) == expected


def test_a_good_proof_holds() -> None:
    assert part_at_fault(signed()) is None


@pytest.mark.parametrize(
    ("proof", "part"),
    [
        (signed(domain="evil.test"), "domain"),
        (signed(sign_time=NOW - timedelta(minutes=16)), "time"),
        (signed(sign_time=NOW + timedelta(minutes=16)), "time"),
        (replace(signed(), payload="another"), "signature"),
        (replace(signed(), account=b"\xac" * 32), "signature"),
        (replace(signed(), workchain=-1), "signature"),
        (replace(signed(), sign_time=NOW + timedelta(seconds=1)), "signature"),
        (replace(signed(), signature=bytes(64)), "signature"),
    ],
)
def test_a_bad_proof_names_its_fault(proof: Proof, part: str) -> None:
    assert part_at_fault(proof) == part


def test_another_key_does_not_fit() -> None:
    other = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert part_at_fault(signed(), other) == "signature"


def state_init(code: Cell, head: str) -> Cell:
    data = build().store_bits(head).store_bytes(PUBLIC).store_bit_int(0).end_cell()
    return StateInit(code=code, data=data).serialize()


@pytest.mark.parametrize(
    ("code", "head"),
    [(WALLET_V3_R2_CODE, "0" * 64), (WALLET_V4_R2_CODE, "01" * 32), (WALLET_V5_R1_CODE, "1" * 65)],
)
def test_the_key_is_read_from_known_wallets(code: Cell, head: str) -> None:
    init = state_init(code, head)
    assert public_key(init.to_boc(), init.hash) == PUBLIC


def test_a_state_init_that_proves_nothing_is_refused() -> None:
    good = state_init(WALLET_V4_R2_CODE, "0" * 64)
    unknown = state_init(build().store_uint(1, 8).end_cell(), "0" * 64)
    for boc, account in (
        (good.to_boc(), b"\x01" * 32),  # somebody else's address
        (unknown.to_boc(), unknown.hash),  # a contract whose data may say anything
        (b"not a bag of cells", good.hash),
        (build().end_cell().to_boc(), good.hash),
    ):
        with pytest.raises(ProofInvalid) as caught:
            public_key(boc, account)
        assert caught.value.metadata == {"part": "state_init"}
