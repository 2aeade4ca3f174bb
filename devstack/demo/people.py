"""The demo's people: each has a TON wallet and proves it, as TON Connect wallets do."""

import hashlib
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nacl.signing
from go2asia.gateway.v1 import wallets_pb2 as pb
from pytoniq.contract.wallets.wallet import WALLET_V4_R2_CODE
from pytoniq_core import StateInit, begin_cell

from mesh.clock import utc_now
from mesh.errors import MeshError

if TYPE_CHECKING:
    from go2asia.gateway.v1.wallets_pb2_grpc import WalletLinkServiceAsyncStub

DOMAIN = "localhost"
WALLET_ID = 698983191  # the default wallet id of v4r2 in workchain 0


@dataclass(frozen=True)
class Person:
    """A user with the key of a wallet v4r2."""

    user_id: str
    key: nacl.signing.SigningKey

    @property
    def state_init(self) -> StateInit:
        """The wallet contract as it would be deployed."""
        data = (
            begin_cell()
            .store_uint(0, 32)
            .store_uint(WALLET_ID, 32)
            .store_bytes(bytes(self.key.verify_key))
            .store_bit(0)
            .end_cell()
        )
        return StateInit(code=WALLET_V4_R2_CODE, data=data)

    @property
    def address(self) -> str:
        """The wallet's address, raw form."""
        return f"0:{self.state_init.serialize().hash.hex()}"

    def prove(self, payload: str) -> pb.TonProof:
        """Sign a challenge as TON Connect's `ton_proof` item says."""
        proof = pb.TonProof(domain=DOMAIN, payload=payload)
        proof.sign_time.FromSeconds(int(utc_now().timestamp()))
        message = b"".join(
            (
                b"ton-proof-item-v2/",
                (0).to_bytes(4, "big"),
                self.state_init.serialize().hash,
                len(DOMAIN).to_bytes(4, "little"),
                DOMAIN.encode(),
                proof.sign_time.seconds.to_bytes(8, "little"),
                payload.encode(),
            )
        )
        digest = hashlib.sha256(b"\xff\xffton-connect" + hashlib.sha256(message).digest()).digest()
        proof.signature = self.key.sign(digest).signature
        return proof


def read_secret(folder: Path) -> bytes:
    """Return the secret that all demo keys derive from; made once per state folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "people.secret"
    if not path.exists():
        unfinished = path.with_suffix(".new")
        unfinished.touch(mode=0o600)
        unfinished.write_bytes(secrets.token_bytes(32))
        unfinished.rename(path)
    return path.read_bytes()


def make_person(user_id: str, secret: bytes) -> Person:
    """Return the person of that id: same secret, same wallet."""
    seed = hashlib.sha256(secret + user_id.encode()).digest()
    return Person(user_id, nacl.signing.SigningKey(seed))


async def link_wallet(person: Person, wallets: "WalletLinkServiceAsyncStub") -> None:
    """Link the person's wallet unless it is linked already."""
    try:
        known = await wallets.GetLinkedWallet(pb.GetLinkedWalletRequest(user_id=person.user_id))
        if known.wallet.address == person.address:
            return
    except MeshError as error:
        if error.reason != "WALLET_NOT_LINKED":
            raise
    attempt = secrets.token_hex(8)
    challenge = await wallets.CreateChallenge(
        pb.CreateChallengeRequest(request_id=f"challenge-{attempt}", user_id=person.user_id)
    )
    await wallets.LinkWallet(
        pb.LinkWalletRequest(
            request_id=f"link-{attempt}",
            user_id=person.user_id,
            address=person.address,
            state_init=person.state_init.serialize().to_boc(),
            proof=person.prove(challenge.payload),
        )
    )
