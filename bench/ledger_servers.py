"""What the ledger is measured against, behind the same chassis: `python -m bench.ledger_servers`.

`empty` answers at once. `naive` books one transaction a request with SQLAlchemy Core, on the same
tables and with the same checks, as one would write it first.
"""

import sys
from typing import Any

from go2asia.points.v1 import points_pb2, points_pb2_grpc
from sqlalchemy import func, insert, select, tuple_, update

from mesh import idempotency, telemetry
from mesh.clock import new_id
from mesh.db import Connection, Database
from mesh.identity import caller
from mesh.server import Registration, run, serve
from points_svc.config import PointsSettings
from points_svc.errors import InsufficientFunds
from points_svc.tables import (
    accounts,
    entries,
    idempotency_keys,
    lot_changes,
    lots,
    transactions,
)

# The type stubs want every method of the service; here one is enough.
_Base: Any = points_pb2_grpc.PointsServiceServicer


class Empty(_Base):  # type: ignore[misc]
    """Does nothing."""

    async def Transfer(  # noqa: N802
        self, request: points_pb2.TransferRequest, context: Any
    ) -> points_pb2.TransferResponse:
        """Answers."""
        return points_pb2.TransferResponse()


class Naive(_Base):  # type: ignore[misc]
    """One transaction a request; knows lots that suffice alone, which is all the benchmark has."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def Transfer(  # noqa: N802
        self, request: points_pb2.TransferRequest, context: Any
    ) -> points_pb2.TransferResponse:
        """Books a transfer between existing accounts."""
        key = idempotency.Key(
            f"{caller()}:transfer", request.request_id, idempotency.fingerprint(request)
        )
        await self._database.run(lambda connection: _transfer(connection, key, request))
        return points_pb2.TransferResponse()


async def _transfer(
    connection: Connection, key: idempotency.Key, request: points_pb2.TransferRequest
) -> None:
    asked, made = request.posting, new_id()
    names = [(f"user:{user}", asked.unit) for user in (asked.user_id, request.recipient_user_id)]
    found = await connection.execute(
        select(accounts)
        .where(tuple_(accounts.c.owner, accounts.c.unit).in_(names))
        .order_by(accounts.c.account_id)
        .with_for_update(key_share=True)
    )
    by_owner = {row.owner: row for row in found}
    if await idempotency.recall(connection, idempotency_keys, [key]):
        return
    giver, taker = (by_owner[owner] for owner, _ in names)
    if giver.posted - giver.held < asked.amount:
        raise InsufficientFunds(available=giver.posted - giver.held, amount=asked.amount)
    now = (await connection.execute(select(func.clock_timestamp()))).scalar_one()
    lot = (
        await connection.execute(
            select(lots)
            .where(lots.c.account_id == giver.account_id, lots.c.open)
            .order_by(lots.c.expire_time, lots.c.transaction_id, lots.c.ordinal)
            .limit(1)
        )
    ).one()
    await connection.execute(
        insert(transactions).values(
            transaction_id=made, request_id=request.request_id, kind="transfer",
            user_id=asked.user_id, recipient=request.recipient_user_id, unit=asked.unit,
            amount=asked.amount, reason=asked.reason, reference=asked.reference, metadata={},
            effective_time=now, booked_time=now,
        )
    )  # fmt: skip
    sides = [(giver, -asked.amount), (taker, asked.amount)]
    await connection.execute(
        insert(entries).values(
            [
                {
                    "transaction_id": made, "ordinal": ordinal, "account_id": account.account_id,
                    "amount": amount, "balance_after": account.posted + amount,
                    "account_version": account.version + 1,
                }
                for ordinal, (account, amount) in enumerate(sides)
            ]
        )
    )  # fmt: skip
    for account, amount in sides:
        await connection.execute(
            update(accounts)
            .where(accounts.c.account_id == account.account_id)
            .values(posted=account.posted + amount, version=account.version + 1)
        )
    await connection.execute(
        update(lots)
        .where(lots.c.transaction_id == lot.transaction_id, lots.c.ordinal == lot.ordinal)
        .values(remaining=lot.remaining - asked.amount)
    )
    await connection.execute(
        insert(lots).values(
            transaction_id=made, ordinal=0, account_id=taker.account_id, amount=asked.amount,
            remaining=asked.amount, held=0, expire_time=lot.expire_time,
        )
    )  # fmt: skip
    await connection.execute(
        insert(lot_changes).values(
            transaction_id=made, lot_transaction_id=lot.transaction_id, lot_ordinal=lot.ordinal,
            amount=-asked.amount,
        )
    )  # fmt: skip
    await idempotency.remember(connection, idempotency_keys, [(key, made.encode())])


async def main(kind: str) -> None:
    """Serves until told to stop."""
    settings = PointsSettings()
    telemetry.start("points", settings)
    url = settings.database_url.get_secret_value()
    async with Database(url, application_name=kind, pool_size=32) as database:
        servicer = Empty() if kind == "empty" else Naive(database)
        service = Registration(
            points_pb2.DESCRIPTOR.services_by_name["PointsService"].full_name,
            points_pb2_grpc.add_PointsServiceServicer_to_server,
            servicer,
        )
        await serve(settings, [service], probes={})


if __name__ == "__main__":
    run(main(sys.argv[1]))
