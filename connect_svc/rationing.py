"""Deciding with the limits and variants that the database knows, one transaction for any number.

Events whose rules have neither cost no statement. Decisions in one transaction follow each other:
what one gives, the next finds gone.
"""

from collections.abc import Sequence
from itertools import chain

from connect_svc.deciding import Proposal, Trial, propose, settle
from connect_svc.limits import Counter, Usage
from connect_svc.pacing import paced
from connect_svc.rules import Decision
from connect_svc.store import LimitStore
from connect_svc.variants import Assignee, Weights, assign_all
from mesh.db import Connection


async def ration(connection: Connection, trials: Sequence[Trial]) -> list[Decision]:
    """Decides the first events, in order, as many as there is time for, and counts what they get.

    All counters that any of them may need are locked at once and held until the transaction ends,
    so no number of replicas can give more than a limit allows. Raises `RetryTransaction` when
    another replica assigned one of the variants meanwhile.
    """
    store = LimitStore(connection)
    assignees = _assignees(trials)
    stored = await store.assigned(assignees)
    variants = assign_all(assignees, stored)
    await store.assign(variants, stored)
    proposals = await paced(lambda trial: propose(trial, variants), trials)
    usage = Usage(await store.lock(_counters(proposals)))
    decisions = [settle(proposal, usage) for proposal in proposals]
    charges = {
        trial.event_id: decision.charges
        for trial, decision in zip(trials, decisions, strict=False)
        if decision.charges
    }
    await store.charge(usage.added, charges)
    return decisions


async def foresee(connection: Connection, trials: Sequence[Trial]) -> list[Decision]:
    """Decides the first events as `ration` would now, were each alone; writes and locks nothing."""
    store = LimitStore(connection)
    assignees = _assignees(trials)
    variants = assign_all(assignees, await store.assigned(assignees))
    proposals = await paced(lambda trial: propose(trial, variants), trials)
    used = await store.read(_counters(proposals))
    return [settle(proposal, Usage(used)) for proposal in proposals]


def _assignees(trials: Sequence[Trial]) -> dict[Assignee, Weights]:
    return {who: weights for trial in trials for who, weights in trial.assignees.items()}


def _counters(proposals: Sequence[Proposal]) -> set[Counter]:
    return set(chain.from_iterable(proposal.counters for proposal in proposals))
