"""Links between users and wallets, and the challenges that wallets sign."""

import json
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, insert, select, text, update

from chain_gateway.errors import WalletNotLinked
from chain_gateway.operations import State
from chain_gateway.store import reports
from chain_gateway.tables import challenges, idempotency_keys, users
from mesh import idempotency
from mesh.db import Connection
from mesh.errors import RequestIdReused
from mesh.idempotency import Key

# Takes the user's row alone: orders of this user that are being taken finish first, and those that
# come later see the new wallet.
_LINK = text("""
INSERT INTO users AS u (user_id, wallet_address, link_time) VALUES (:user_id, :address, now())
ON CONFLICT (user_id)
    DO UPDATE SET wallet_address = excluded.wallet_address, link_time = excluded.link_time
RETURNING link_time
""")

_RELEASE = text("""
UPDATE operations SET state = :queued, version = version + 1, update_time = now()
WHERE user_id = :user_id AND state = :parked
RETURNING operation_id, version, kind
""")


_UNLINK = text("""
UPDATE users SET wallet_address = NULL, link_time = NULL
WHERE user_id = :user_id AND wallet_address IS NOT NULL RETURNING user_id
""")

# Changes of items need no wallet.
_PARK = text("""
UPDATE operations SET state = :parked, version = version + 1, update_time = now()
WHERE user_id = :user_id AND state = :queued AND kind < 3
RETURNING operation_id, version, kind
""")


class Challenge(NamedTuple):
    """A one-time payload for a wallet to sign."""

    payload: str
    expire_time: datetime


class Link(NamedTuple):
    """A user's wallet, and how many parked operations the linking released."""

    user_id: str
    address: str
    link_time: datetime
    released: int


class LinkStore:
    """Creates and uses challenges, links wallets."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def recall(self, key: Key) -> bytes | None:
        """What the key got before; raises `RequestIdReused`."""
        seen = (await idempotency.recall(self._connection, idempotency_keys, [key])).get(key)
        if isinstance(seen, RequestIdReused):
            raise seen
        return seen

    async def remember(self, key: Key, answer: bytes) -> None:
        """Stores the answer; raises `RetryTransaction` when a rival was faster."""
        await idempotency.remember(self._connection, idempotency_keys, [(key, answer)])

    async def now(self) -> datetime:
        """The database's time."""
        return (await self._connection.execute(select(func.now()))).scalar_one()

    async def create_challenge(self, payload: str, user_id: str, lifetime: timedelta) -> None:
        """Stores a challenge."""
        expire_time = await self.now() + lifetime
        await self._connection.execute(
            insert(challenges).values(payload=payload, user_id=user_id, expire_time=expire_time)
        )

    async def challenge(self, payload: str) -> Challenge:
        """A challenge that exists."""
        found = await self._connection.execute(
            select(challenges.c.payload, challenges.c.expire_time).where(
                challenges.c.payload == payload
            )
        )
        return Challenge._make(found.one())

    async def use_challenge(self, payload: str, user_id: str) -> bool:
        """Uses a challenge up; False if it is unknown, expired, used, or another user's."""
        used = await self._connection.execute(
            update(challenges)
            .values(used_time=func.now())
            .where(
                challenges.c.payload == payload,
                challenges.c.user_id == user_id,
                challenges.c.used_time.is_(None),
                challenges.c.expire_time > func.now(),
            )
        )
        return used.rowcount == 1

    async def link(self, user_id: str, address: str) -> Link:
        """Links in place of any former wallet and releases what was parked."""
        linked = await self._connection.execute(_LINK, {"user_id": user_id, "address": address})
        link_time = linked.scalar_one()
        released = await self._connection.execute(
            _RELEASE,
            {"user_id": user_id, "queued": State.QUEUED, "parked": State.AWAITING_WALLET},
        )
        changed = [(operation_id, version, kind) for operation_id, version, kind in released]
        await reports.enqueue(self._connection, changed)
        return Link(user_id, address, link_time, len(changed))

    async def unlink(self, user_id: str) -> int:
        """Forgets the user's wallet and parks what was not sent; tells how many operations.

        Raises `WalletNotLinked`.
        """
        unlinked = await self._connection.execute(_UNLINK, {"user_id": user_id})
        if unlinked.one_or_none() is None:
            raise WalletNotLinked(user_id)
        parked = await self._connection.execute(
            _PARK,
            {"user_id": user_id, "queued": State.QUEUED, "parked": State.AWAITING_WALLET},
        )
        changed = [(operation_id, version, kind) for operation_id, version, kind in parked]
        await reports.enqueue(self._connection, changed)
        return len(changed)

    async def linked(self, user_id: str) -> Link:
        """The user's wallet; raises `WalletNotLinked`."""
        found = await self._connection.execute(
            select(users.c.wallet_address, users.c.link_time).where(
                users.c.user_id == user_id, users.c.wallet_address.is_not(None)
            )
        )
        row = found.one_or_none()
        if row is None:
            raise WalletNotLinked(user_id)
        return Link(user_id, row.wallet_address, row.link_time, 0)


def pack(link: Link) -> bytes:
    """A link as remembered for its request id."""
    return json.dumps(
        [link.user_id, link.address, link.link_time.isoformat(), link.released]
    ).encode()


def unpack(answer: bytes) -> Link:
    """A link as remembered."""
    user_id, address, link_time, released = json.loads(answer)
    return Link(user_id, address, datetime.fromisoformat(link_time), released)
