"""What minting costs: told by the wallet's own transactions, once they are beyond rollback.

Whatever leaves the wallet for a message is charged to the operations in it: fees and forwarding in
equal shares, and the value that went out with each. Of a mint's value a part stays on the item, and
what its gas left over with the collection.
"""

from chain_gateway import executions
from chain_gateway.errors import ChainUnavailable
from chain_gateway.store.costs import Bill, CostStore, Due
from chain_gateway.store.lease import Lease
from chain_gateway.ton import Block, Chain
from chain_gateway.transactions import Transaction
from mesh.db import Connection, Database
from mesh.telemetry import logger, meter

_AT_ONCE = 50

_log = logger("gateway.accounting")
_cost = meter.create_histogram(
    "gateway.operation.cost", unit="nTON", description="What an operation cost, by kind."
)


class Accountant:
    """Accounts for one wallet's messages; only the holder of the lease may."""

    def __init__(self, database: Database, chain: Chain, lease: Lease, timeout: int) -> None:
        self._database = database
        self._chain = chain
        self._lease = lease
        self._timeout = timeout

    async def account(self, final: Block) -> None:
        """Charges what is over as of a block beyond rollback. Raises `LeaseLost`."""
        async with self._database.transaction(read_only=True) as connection:
            due = await CostStore(connection, self._lease.wallet).due(_AT_ONCE)
        if not due:
            return
        try:
            wallet = await self._chain.account(self._lease.wallet, final)
            if not wallet.last_lt:
                return  # a wallet that sent has transactions
            since = min(each.created_at for each in due)
            history = await self._chain.history(self._lease.wallet, wallet, since)
        except ChainUnavailable as error:
            _log.warning("accounting.history_unread", messages=len(due), error=error.message)
            return
        bills = [
            bill for each in due if (bill := self._bill(each, history, wallet.time)) is not None
        ]

        async def write(connection: Connection) -> None:
            await self._lease.hold(connection)
            store = CostStore(connection, self._lease.wallet)
            for bill in bills:
                for kind, cost in await store.write(bill):
                    _cost.record(cost, {"kind": kind.name})

        if bills:
            await self._database.run(write)

    def _bill(self, due: Due, history: list[Transaction], final_time: int) -> Bill | None:
        """None while the final block, at which the wallet's shard has that time, does not tell."""
        ran = executions.execution(history, self._lease.wallet, due.query_id, due.created_at)
        if ran is None:
            return Bill(due, []) if final_time >= due.created_at + self._timeout else None
        if ran.sent is None:
            return None
        return Bill(due, executions.shares(ran, executions.carried(due.boc)))
