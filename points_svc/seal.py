"""The hash chain over transactions, made off the hot path and checked by the audit."""

from hashlib import sha256

from mesh.db import Connection, Database
from points_svc.ledger import Seal
from points_svc.store.seals import (
    SealedRange,
    add_seal,
    digest,
    last_seal,
    next_end,
    seals_behind,
    try_to_lead,
)

# One seal's work stays below a second or so, also when a backlog waits.
TRANSACTIONS_PER_SEAL = 5_000

_VERSION = 1


def link(before: bytes, number: int, first: int, end: int, count: int, content: bytes) -> bytes:
    """The hash of a seal: SHA-256 over a version, the hash before it, its range and its content."""
    facts = f"{_VERSION}:{number}:{first}:{end}:{count}:".encode()
    return sha256(facts + before + content).digest()


async def seal_next(database: Database) -> bool:
    """Seals the oldest transactions that no seal covers; True if more wait.

    Any number of replicas may try at once: one seals, the others see to it later.
    """
    return await database.run(_seal_next)


async def check_chain(
    connection: Connection, known: Seal | None
) -> tuple[int, Seal | None, list[str]]:
    """How many seals there are, the newest one, and what contradicts them, a sentence each."""
    findings: list[str] = []
    number, before, first_batch = 0, b"", 0
    missing = known
    while stored := await seals_behind(connection, number):
        for seal in stored:
            findings += await _contradictions(connection, seal, number, before, first_batch)
            number, before, first_batch = seal.number, seal.hash, seal.end_batch
            if known is not None and (seal.number, seal.hash) == (known.number, known.hash):
                missing = None
    if missing is not None:
        findings.append(f"seal {missing.number}: the one noted outside is not in the chain")
    return number, Seal(number, before) if number else None, findings


async def _seal_next(connection: Connection) -> bool:
    if not await try_to_lead(connection):
        return False
    last = await last_seal(connection)
    before, first_batch = last or (Seal(0, b""), 0)
    end = await next_end(connection, first_batch, TRANSACTIONS_PER_SEAL)
    if end is None:
        return False
    end_batch, more = end
    count, content = await digest(connection, first_batch, end_batch)
    number = before.number + 1
    seal = link(before.hash, number, first_batch, end_batch, count, content)
    await add_seal(connection, SealedRange(number, first_batch, end_batch, count, seal))
    return more


async def _contradictions(
    connection: Connection, seal: SealedRange, last: int, before: bytes, first_batch: int
) -> list[str]:
    number, first, end, count, stored = seal
    if number != last + 1 or first != first_batch:
        return [f"seal {number}: it does not continue seal {last}"]
    found, content = await digest(connection, first, end)
    if link(before, number, first, end, found, content) == stored:
        return []
    told = (
        f"it covers {count} transactions and {found} are there"
        if found != count
        else (f"one of its {count} transactions, or the seal itself, was changed")
    )
    return [f"seal {number}: {told}"]
