"""The RPCs of PointsService: convert, hand over, convert back."""

from typing import Any

import grpc
from go2asia.points.v1 import points_pb2, points_pb2_grpc

from mesh import idempotency, pagination, status, validation
from mesh.db import Database
from mesh.errors import Internal, InvalidArgument, MeshError
from mesh.identity import caller
from points_svc import convert
from points_svc.audit import verify
from points_svc.errors import TransactionNotFound
from points_svc.ledger import Instruction, Transaction, user_account
from points_svc.posting import Desk, Order
from points_svc.store import Store

# Answers repeat the items and add some; both directions have the chassis's limit of 4 MiB, and a
# batch must not be booked whose answer cannot be sent.
MAX_BATCH_BYTES = 3 * 1024 * 1024

Context = grpc.aio.ServicerContext[Any, Any]


class PointsServicer(points_pb2_grpc.PointsServiceServicer):
    """Serves the ledger; what may be raised is documented in the contract."""

    def __init__(self, desk: Desk, database: Database) -> None:
        self._desk = desk
        self._database = database

    async def Award(
        self, request: points_pb2.AwardRequest, context: Context
    ) -> points_pb2.AwardResponse:
        """Gives points to a user."""
        booked = await self._desk.book(_order(request, convert.award(request)))
        return points_pb2.AwardResponse(transaction=convert.transaction(booked))

    async def Spend(
        self, request: points_pb2.SpendRequest, context: Context
    ) -> points_pb2.SpendResponse:
        """Takes points from a user."""
        booked = await self._desk.book(_order(request, convert.spend(request)))
        return points_pb2.SpendResponse(transaction=convert.transaction(booked))

    async def BatchPost(
        self, request: points_pb2.BatchPostRequest, context: Context
    ) -> points_pb2.BatchPostResponse:
        """Posts items that succeed or fail each by itself."""
        if request.ByteSize() > MAX_BATCH_BYTES:
            raise InvalidArgument(
                f"The batch is larger than {MAX_BATCH_BYTES} bytes; split it.", field="items"
            )
        orders = [_checked(item, number) for number, item in enumerate(request.items)]
        sound = [order for order in orders if isinstance(order, Order)]
        outcomes = iter(await self._desk.book_many(sound))
        return points_pb2.BatchPostResponse(
            results=[
                _result(next(outcomes) if isinstance(order, Order) else order) for order in orders
            ]
        )

    async def GetBalance(
        self, request: points_pb2.GetBalanceRequest, context: Context
    ) -> points_pb2.GetBalanceResponse:
        """Reads a user's balance of one unit."""
        key = user_account(request.user_id, request.unit)
        async with self._database.transaction(read_only=True) as connection:
            account = await Store(connection).balance(key)
        return points_pb2.GetBalanceResponse(balance=convert.balance(request.user_id, account))

    async def GetTransaction(
        self, request: points_pb2.GetTransactionRequest, context: Context
    ) -> points_pb2.GetTransactionResponse:
        """Reads one transaction."""
        async with self._database.transaction(read_only=True) as connection:
            found = await Store(connection).transactions([request.transaction_id])
        if not found:
            raise TransactionNotFound(request.transaction_id)
        [booked] = found.values()
        return points_pb2.GetTransactionResponse(transaction=convert.transaction(booked))

    async def ListTransactions(
        self, request: points_pb2.ListTransactionsRequest, context: Context
    ) -> points_pb2.ListTransactionsResponse:
        """Lists a user's transactions, newest first."""
        page = pagination.open_page(request)
        async with self._database.transaction(read_only=True) as connection:
            found = await Store(connection).page(
                request.user_id,
                request.unit,
                before=convert.seen_up_to(page),
                size=page.size + 1,  # one more tells whether there is a next page
            )
        shown = found[: page.size]
        more = len(found) > len(shown)
        return points_pb2.ListTransactionsResponse(
            transactions=[convert.transaction(booked) for booked in shown],
            next_page_token=(
                pagination.next_token(request, (shown[-1].transaction_id,)) if more else ""
            ),
        )

    async def VerifyLedger(
        self, request: points_pb2.VerifyLedgerRequest, context: Context
    ) -> points_pb2.VerifyLedgerResponse:
        """Recomputes the ledger, as of one moment, while it goes on being written."""
        async with self._database.transaction(
            read_only=True, isolation="REPEATABLE READ"
        ) as connection:
            report = await verify(connection)
        return convert.report(report)


def _order(
    request: points_pb2.AwardRequest | points_pb2.SpendRequest, instruction: Instruction
) -> Order:
    # The operation's name, not the RPC's: a request id is the same one in both forms.
    scope = f"{caller()}:{instruction.kind}"
    key = idempotency.Key(scope, request.request_id, idempotency.fingerprint(request))
    return Order(key, instruction)


def _checked(item: points_pb2.PostItem, number: int) -> Order | MeshError:
    try:
        validation.check(item, f"items[{number}]")
        if item.HasField("award"):
            return _order(item.award, convert.award(item.award))
        return _order(item.spend, convert.spend(item.spend))
    except MeshError as error:
        return error


def _result(outcome: Transaction | Exception) -> points_pb2.PostResult:
    if isinstance(outcome, Transaction):
        return points_pb2.PostResult(transaction=convert.transaction(outcome))
    error = outcome if isinstance(outcome, MeshError) else Internal()
    return points_pb2.PostResult(error=status.to_item_error(error))
