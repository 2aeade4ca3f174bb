"""One sender per wallet: a lease in the wallet's row, in the database's time.

Every write of the leader begins with `Lease.hold`: it renews the lease and, because it locks the
wallet's row, lets nobody write who has lost it.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from mesh.db import Connection

LEASE_SECONDS = 6

_TAKE = text("""
INSERT INTO wallets AS w (address, lease_holder, lease_expire_time)
VALUES (:address, :holder, now() + make_interval(secs => :seconds))
ON CONFLICT (address) DO UPDATE
    SET lease_holder = excluded.lease_holder, lease_expire_time = excluded.lease_expire_time
    WHERE w.lease_holder = excluded.lease_holder OR w.lease_expire_time IS NULL
        OR w.lease_expire_time < now()
RETURNING address
""")

_HOLD = text("""
UPDATE wallets SET lease_expire_time = now() + make_interval(secs => :seconds)
WHERE address = :address AND lease_holder = :holder AND lease_expire_time >= now()
RETURNING next_sequence
""")

_DROP = text("""
UPDATE wallets SET lease_expire_time = NULL WHERE address = :address AND lease_holder = :holder
""")


class LeaseLost(Exception):
    """Another process leads now."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to lead one wallet's minting, for `LEASE_SECONDS` of the database's time."""

    wallet: str
    holder: str

    async def take(self, connection: Connection) -> bool:
        """Takes the lease if it is free or ours."""
        taken = await connection.execute(_TAKE, self._named())
        return taken.one_or_none() is not None

    async def hold(self, connection: Connection) -> int:
        """Renews it and gives the wallet's next sequence number; raises `LeaseLost`."""
        held = (await connection.execute(_HOLD, self._named())).one_or_none()
        if held is None:
            raise LeaseLost
        return int(held.next_sequence)

    async def drop(self, connection: Connection) -> None:
        """Lets another process lead at once."""
        await connection.execute(_DROP, self._named())

    def _named(self) -> dict[str, Any]:
        return {"address": self.wallet, "holder": self.holder, "seconds": LEASE_SECONDS}
