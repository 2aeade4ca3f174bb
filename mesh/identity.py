"""Who is calling: read from the URI SAN of the client's certificate, nothing else is believed."""

import functools
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Self

from mesh.errors import Unauthenticated

TRUST_DOMAIN = "spiffe://go2asia.local/"


@dataclass(frozen=True, slots=True)
class Identity:
    """A member of the mesh: its role decides what it may do, its name tells replicas' owners apart.

    >>> str(Identity.parse("spiffe://go2asia.local/connect/connect"))
    'connect/connect'
    """

    role: str
    name: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Reads `spiffe://go2asia.local/<role>/<name>`; raises `Unauthenticated` for other URIs."""
        role, _, name = uri.removeprefix(TRUST_DOMAIN).partition("/")
        if not uri.startswith(TRUST_DOMAIN) or not role or not name or "/" in name:
            raise Unauthenticated(
                f"The client certificate's URI SAN is {uri or 'missing'!r}; use a certificate "
                f"issued for {TRUST_DOMAIN}<role>/<name>."
            )
        return cls(role, name)

    @property
    def uri(self) -> str:
        """The SPIFFE ID to put in this member's certificate."""
        return f"{TRUST_DOMAIN}{self.role}/{self.name}"

    def __str__(self) -> str:
        return f"{self.role}/{self.name}"


# One parse per distinct peer; bounded, since a stranger with our CA could present many names.
identify = functools.lru_cache(maxsize=1024)(Identity.parse)

_caller: ContextVar[Identity] = ContextVar("caller")


def caller() -> Identity:
    """The caller of the RPC being served; raises `Unauthenticated` outside of one."""
    try:
        return _caller.get()
    except LookupError:
        raise Unauthenticated(
            "No RPC is being served here; read caller() in the servicer and pass it on."
        ) from None


def set_caller(identity: Identity) -> None:
    """Binds the caller for the rest of the current RPC's context."""
    _caller.set(identity)
