"""The Mint Orchestrator: hands queued mints to the Gateway until each is taken or refused.

The mint's id is the order's idempotency key, so handing one over twice is harmless. The answer is a
report like any other: if a callback with a higher version came first, that one stays.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from go2asia.gateway.v1 import minting_pb2

from mesh.breaker import Breaker
from mesh.db import Connection, Database
from mesh.errors import Kind, MeshError
from mesh.outbox import Claim, Dead, Done, Outcome, Queue, Retry, Settlement
from mesh.telemetry import logger
from mesh.worker import Worker
from nft_svc.audit import Origin
from nft_svc.convert_orders import Order, operation_report, read_order
from nft_svc.mints import MintKind
from nft_svc.reports import News, Refusal, Reports
from nft_svc.submissions import LANES

ACTOR = "nft/orchestrator"
# These judge the order itself; anything else judges us, the peer, or the moment.
_FINAL = frozenset(
    {
        Kind.INVALID_ARGUMENT,
        Kind.NOT_FOUND,
        Kind.ALREADY_EXISTS,
        Kind.FAILED_PRECONDITION,
        Kind.OUT_OF_RANGE,
    }
)
Answer = minting_pb2.Operation | MeshError
_log = logger("nft.orchestrator")


class Gateway(Protocol):
    """What the orchestrator needs of the Gateway; `clients.GatewayClient` has it."""

    async def submit_mints(self, orders: Sequence[minting_pb2.MintOrder]) -> Sequence[Answer]:
        """For each order its operation or why it was refused; raises if the call failed."""

    async def submit(self, order: Order) -> minting_pb2.Operation:
        """The operation of an order; raises what the order is refused with."""


class Orchestrator:
    """Builds the workers of the submission queue, and judges what the Gateway answers."""

    def __init__(self, gateway: Gateway, reports: Reports) -> None:
        self._gateway = gateway
        self._reports = reports
        self._breaker = Breaker()  # one for all kinds: it is one Gateway that they call

    def worker(self, database: Database, queue: Queue, kind: MintKind = MintKind.MINT) -> Worker:
        """The worker to run for a kind of mints; wake it when mints were queued."""
        in_batches = kind is MintKind.MINT
        return Worker(
            database,
            queue,
            LANES[kind],
            handle=self.submit if in_batches else self._one_by_one(kind),
            settle=_settle,
            batch=200 if in_batches else 20,
            concurrency=2,
            breaker=self._breaker,
        )

    async def submit(self, claims: Sequence[Claim]) -> Sequence[Outcome]:
        """Orders the claimed mints and applies what the Gateway answers.

        The mints change in a transaction of their own before the claims end; a crash in between
        only repeats an order that the Gateway knows. Raises a transient `MeshError` when the call
        failed, so that all claims are tried again.
        """
        orders = [minting_pb2.MintOrder.FromString(claim.payload) for claim in claims]
        try:
            answers = await self._gateway.submit_mints(orders)
        except MeshError as error:
            if error.transient:
                raise
            # The call was refused, not a mint: certificates, roles or versions are at fault.
            _log.error("submission.call_refused", reason=error.reason, error=error.message)
            return [Retry(f"{error.reason}: {error.message}")] * len(claims)
        return await self._apply(claims, answers)

    def _one_by_one(
        self, kind: MintKind
    ) -> Callable[[Sequence[Claim]], Awaitable[Sequence[Outcome]]]:
        """Orders claimed changes of items, for which the Gateway has no batch."""

        async def ask(claim: Claim) -> Answer:
            try:
                return await self._gateway.submit(read_order(kind, claim.payload))
            except MeshError as error:
                return error

        async def submit(claims: Sequence[Claim]) -> Sequence[Outcome]:
            answers = await asyncio.gather(*map(ask, claims))
            failures = [each for each in answers if isinstance(each, MeshError) and each.transient]
            if len(failures) == len(claims):
                raise failures[0]  # the peer is sick, not an order
            return await self._apply(claims, answers)

        return submit

    async def _apply(self, claims: Sequence[Claim], answers: Sequence[Answer]) -> Sequence[Outcome]:
        judged = [_judge(claim, answer) for claim, answer in zip(claims, answers, strict=True)]
        await self._reports.apply([news for news, _ in judged if news is not None])
        return [outcome for _, outcome in judged]


def _judge(claim: Claim, answer: Answer) -> tuple[News | None, Outcome]:
    origin = Origin(ACTOR, traceparent=claim.traceparent)
    if isinstance(answer, minting_pb2.Operation):
        return News(operation_report(answer), origin), Done()
    if answer.kind not in _FINAL:
        return None, Retry(f"{answer.reason}: {answer.message}")
    refusal = Refusal(claim.item_id, answer.reason)
    return News(refusal, origin), Dead(f"{answer.reason}: {answer.message}")


async def _settle(_: Connection, __: Sequence[Settlement]) -> None:
    """Nothing is left to write: what the answers mean was committed by `submit`."""
