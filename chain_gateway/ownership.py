"""Who owns which wallet: TON Connect challenges and links."""

import secrets
from collections.abc import Callable
from datetime import timedelta

from chain_gateway import user_wallets
from chain_gateway.errors import ChallengeInvalid, InvalidAddress
from chain_gateway.proof import Proof, verify
from chain_gateway.store.links import Challenge, Link, LinkStore, pack, unpack
from mesh.db import Connection, Database
from mesh.idempotency import Key

CHALLENGE_LIFETIME = timedelta(minutes=15)
SIGN_TIME_LEEWAY = timedelta(minutes=15)

# Our items live in workchain 0 and go to nobody outside of it.
_WORKCHAIN = 0


class WalletLinks:
    """Creates challenges and links wallets; `wake` is called when parked mints were released."""

    def __init__(
        self, database: Database, domains: frozenset[str], wake: Callable[[], None]
    ) -> None:
        self._database = database
        self._domains = domains
        self._wake = wake

    async def create_challenge(self, key: Key, user_id: str) -> Challenge:
        """A one-time payload for the user's wallet to sign. Raises `RequestIdReused`."""

        async def create(connection: Connection) -> Challenge:
            store = LinkStore(connection)
            if (known := await store.recall(key)) is not None:
                return await store.challenge(known.decode())
            payload = secrets.token_hex(32)
            await store.create_challenge(payload, user_id, CHALLENGE_LIFETIME)
            await store.remember(key, payload.encode())
            return await store.challenge(payload)

        return await self._database.run(create)

    async def link(self, key: Key, user_id: str, proof: Proof, state_init: bytes) -> Link:
        """Links the wallet that signed, in place of any former one, and releases parked mints.

        Raises `InvalidAddress`, `ProofInvalid`, `ChallengeInvalid` or `RequestIdReused`; then
        nothing was changed, and the challenge can still be used.
        """
        address = f"{proof.workchain}:{proof.account.hex()}"
        if proof.workchain != _WORKCHAIN:
            raise InvalidAddress(address, "address")
        public_key = user_wallets.public_key(state_init, proof.account)

        async def link(connection: Connection) -> Link:
            store = LinkStore(connection)
            if (known := await store.recall(key)) is not None:
                return unpack(known)
            now = await store.now()
            verify(proof, public_key, domains=self._domains, now=now, leeway=SIGN_TIME_LEEWAY)
            if not await store.use_challenge(proof.payload, user_id):
                raise ChallengeInvalid
            linked = await store.link(user_id, address)
            await store.remember(key, pack(linked))
            return linked

        linked = await self._database.run(link)
        self._wake()
        return linked

    async def unlink(self, key: Key, user_id: str) -> int:
        """Forgets a user's wallet and parks what was not sent to it; tells how many operations.

        What is being sent at this moment goes on. Raises `WalletNotLinked` or `RequestIdReused`.
        """

        async def unlink(connection: Connection) -> int:
            store = LinkStore(connection)
            if (known := await store.recall(key)) is not None:
                return int(known)
            parked = await store.unlink(user_id)
            await store.remember(key, str(parked).encode())
            return parked

        return await self._database.run(unlink)

    async def linked(self, user_id: str) -> Link:
        """The user's wallet; raises `WalletNotLinked`."""
        async with self._database.transaction(read_only=True) as connection:
            return await LinkStore(connection).linked(user_id)
