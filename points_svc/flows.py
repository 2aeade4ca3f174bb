"""Which accounts a transaction moves amounts between, and how they pair up; pure."""

from collections.abc import Sequence
from datetime import datetime
from typing import TypeAlias

from points_svc.ledger import (
    AccountKey,
    Instruction,
    Kind,
    Part,
    Posting,
    debt_account,
    issuance,
    redemption,
)

Flow: TypeAlias = tuple[AccountKey, int]
"""An account and how much leaves or reaches it."""


def touched(instruction: Instruction) -> tuple[set[AccountKey], set[AccountKey]]:
    """The accounts an award, spend or transfer may change, and which of them it may open.

    A giver is not opened, who would have nothing to give; nor is a debt, which only a reversal or
    an overdraft limit begins.
    """
    user = instruction.user
    match instruction.kind:
        case Kind.AWARD:
            opened = {user, issuance(instruction.unit)}
        case Kind.SPEND:
            opened = {redemption(instruction.unit)}
        case _:
            opened = {instruction.receiver}
            return {user, debt_account(user), debt_account(instruction.receiver), *opened}, opened
    return {user, debt_account(user), *opened}, opened


def pair(sources: Sequence[Flow], sinks: Sequence[Flow]) -> list[Posting]:
    """The postings that bring what leaves `sources` to `sinks`, in order; both sum to the same."""
    postings: list[Posting] = []
    waiting = [flow for flow in reversed(sinks) if flow[1]]
    for source, amount in sources:
        while amount:
            sink, wanted = waiting.pop()
            moved = min(amount, wanted)
            postings.append(Posting(source, sink, moved))
            amount -= moved
            if wanted > moved:
                waiting.append((sink, wanted - moved))
    return postings


def without(parts: Sequence[Part], amount: int) -> list[Part]:
    """What is left of `parts` when `amount` is taken off their front."""
    left: list[Part] = []
    for part in parts:
        taken = min(part.amount, amount)
        amount -= taken
        if part.amount > taken:
            left.append(Part(part.amount - taken, part.expire_time))
    return left


def merged(parts: Sequence[Part]) -> list[Part]:
    """One part for each expiry; they come sorted by it."""
    if len(parts) < 2:
        return list(parts)
    amounts: dict[datetime | None, int] = {}
    for amount, expire_time in parts:
        amounts[expire_time] = amounts.get(expire_time, 0) + amount
    return [Part(amount, expire_time) for expire_time, amount in amounts.items()]
