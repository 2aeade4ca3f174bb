"""Reports to NFT: durable, repeated for ever, each with an operation's whole present state.

The queue holds a line per change, but what is sent is the operation as it stands: several changes
that wait together become one report, and order does not matter, because versions count up.
"""

from collections.abc import Sequence

from chain_gateway import convert
from chain_gateway.clients import NftClient
from chain_gateway.store import reports
from chain_gateway.store.orders import OrderStore
from mesh.db import Connection, Database
from mesh.errors import MeshError
from mesh.outbox import Claim, Done, Outcome, Retry, Settlement
from mesh.telemetry import logger
from mesh.worker import Worker

_BATCH = 500
_log = logger("gateway.callbacks")


def reporter(database: Database, nft: NftClient) -> Worker:
    """The worker that delivers reports; a context manager."""

    async def handle(claims: Sequence[Claim]) -> Sequence[Outcome]:
        wanted = sorted({claim.payload.decode() for claim in claims})
        async with database.transaction(read_only=True) as connection:
            found = await OrderStore(connection).standings(wanted)
        try:
            await nft.report([convert.report(standing) for standing in found])
        except MeshError as error:
            if error.transient or len(claims) > 1:
                raise  # retried together, or bisected until the one that NFT refuses stands alone
            _log.error("callbacks.refused", operation_id=wanted[0], error=error.message)
            return [Retry(error.message)]
        return [Done() for _ in claims]

    return Worker(
        database, reports.QUEUE, reports.LANE, handle=handle, settle=_nothing, batch=_BATCH
    )


async def _nothing(connection: Connection, settlements: Sequence[Settlement]) -> None:
    """A delivered report leaves nothing to write."""
