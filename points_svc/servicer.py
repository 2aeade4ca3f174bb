"""The RPCs of PointsService: convert, hand over, convert back."""

from functools import partial
from typing import Any

import grpc
from go2asia.mesh.v1.item_error_pb2 import ItemError
from go2asia.points.v1 import points_pb2, points_pb2_grpc
from google.protobuf.message import Message

from mesh import idempotency, validation
from mesh.db import Database
from mesh.errors import InvalidArgument
from mesh.identity import caller
from mesh.items import Batch
from mesh.wire import FILL_BYTES, MAX_MESSAGE_BYTES
from points_svc import convert
from points_svc.holding import Vault, Wish
from points_svc.ledger import Transaction
from points_svc.posting import Answer, Desk, Order
from points_svc.reading import Library
from points_svc.reversing import Name, Return, Reverser

# Answers repeat the items and add some; both directions have the chassis's limit of 4 MiB, and a
# batch must not be booked whose answer, abridged if need be, cannot be sent.
MAX_BATCH_BYTES = FILL_BYTES

_PLACE = "place-hold"

Context = grpc.aio.ServicerContext[Any, Any]


class PointsServicer(points_pb2_grpc.PointsServiceServicer):
    """Serves the ledger; what may be raised is documented in the contract."""

    def __init__(self, desk: Desk, database: Database) -> None:
        self._desk = desk
        self._vault = Vault(database)
        self._reverser = Reverser(database)
        self._library = Library(database)

    async def Award(
        self, request: points_pb2.AwardRequest, context: Context
    ) -> points_pb2.AwardResponse:
        """Gives points to a user."""
        booked = await self._desk.book(_order(request))
        return points_pb2.AwardResponse(transaction=convert.answer(booked))

    async def Spend(
        self, request: points_pb2.SpendRequest, context: Context
    ) -> points_pb2.SpendResponse:
        """Takes points from a user."""
        booked = await self._desk.book(_order(request))
        return points_pb2.SpendResponse(transaction=convert.answer(booked))

    async def Transfer(
        self, request: points_pb2.TransferRequest, context: Context
    ) -> points_pb2.TransferResponse:
        """Moves points from one user to another."""
        booked = await self._desk.book(_order(request))
        return points_pb2.TransferResponse(transaction=convert.answer(booked))

    async def BatchPost(
        self, request: points_pb2.BatchPostRequest, context: Context
    ) -> points_pb2.BatchPostResponse:
        """Posts items that succeed or fail each by itself, or all together."""
        if request.ByteSize() > MAX_BATCH_BYTES:
            raise InvalidArgument(
                f"The batch is larger than {MAX_BATCH_BYTES} bytes; split it.", field="items"
            )
        batch = Batch("items", request.items, _checked)
        book = self._desk.book_many
        if request.atomic:
            first = batch.first_refused
            together, refuse = self._desk.book_together, self._desk.refuse_together
            book = together if first is None else partial(refuse, first)
        outcomes = await batch.answers(book)
        answer = points_pb2.BatchPostResponse(results=[_result(outcome) for outcome in outcomes])
        if answer.ByteSize() > MAX_MESSAGE_BYTES:
            convert.abridge(answer)
        return answer

    async def PlaceHold(
        self, request: points_pb2.PlaceHoldRequest, context: Context
    ) -> points_pb2.PlaceHoldResponse:
        """Reserves points."""
        wish = Wish(
            request.request_id,
            request.user_id,
            request.unit,
            request.amount,
            request.reason,
            request.reference,
            request.time_to_live.ToTimedelta(),
        )
        placed = await self._vault.place(_key(_PLACE, request), wish)
        return points_pb2.PlaceHoldResponse(hold=convert.hold(placed))

    async def CaptureHold(
        self, request: points_pb2.CaptureHoldRequest, context: Context
    ) -> points_pb2.CaptureHoldResponse:
        """Spends a hold, whole or in part."""
        captured = await self._vault.capture(
            _key("capture", request),
            request.hold_id.lower(),
            request.user_id,
            request.amount,
            request.reason,
        )
        return points_pb2.CaptureHoldResponse(
            hold=convert.hold(captured.hold), transaction=convert.answer(captured.transaction)
        )

    async def ReleaseHold(
        self, request: points_pb2.ReleaseHoldRequest, context: Context
    ) -> points_pb2.ReleaseHoldResponse:
        """Gives a hold's points back."""
        key, user_id = _key("release-hold", request), request.user_id
        if request.HasField("hold_id"):
            released = await self._vault.release(key, request.hold_id.lower(), user_id)
            return points_pb2.ReleaseHoldResponse(hold=convert.hold(released))
        released_or_none = await self._vault.release_placed(
            key, _scope(_PLACE), request.placed_request_id, user_id
        )
        return points_pb2.ReleaseHoldResponse(hold=convert.hold(released_or_none))

    async def ReverseTransaction(
        self, request: points_pb2.ReverseTransactionRequest, context: Context
    ) -> points_pb2.ReverseTransactionResponse:
        """Takes a transaction back, whole or in part."""
        original: str | Name = request.transaction_id.lower()
        if request.HasField("original_request"):
            named = request.original_request
            original = Name(_scope(convert.kind(named.kind)), named.request_id)
        wanted = Return(original, request.amount, request.reason)
        made = await self._reverser.reverse(_key("reversal", request), wanted)
        return points_pb2.ReverseTransactionResponse(transaction=convert.answer(made))

    async def SetOverdraftLimit(
        self, request: points_pb2.SetOverdraftLimitRequest, context: Context
    ) -> points_pb2.SetOverdraftLimitResponse:
        """Sets how far a user may spend what is not there."""
        key = _key("set-overdraft-limit", request)
        await self._vault.limit_overdraft(key, request.user_id, request.unit, request.limit)
        return points_pb2.SetOverdraftLimitResponse()

    async def GetBalance(
        self, request: points_pb2.GetBalanceRequest, context: Context
    ) -> points_pb2.GetBalanceResponse:
        """Reads a user's balance of one unit."""
        return await self._library.balance(request)

    async def BatchGetBalances(
        self, request: points_pb2.BatchGetBalancesRequest, context: Context
    ) -> points_pb2.BatchGetBalancesResponse:
        """Reads many users' balances of one unit."""
        return await self._library.balances(request)

    async def GetTransaction(
        self, request: points_pb2.GetTransactionRequest, context: Context
    ) -> points_pb2.GetTransactionResponse:
        """Reads one transaction."""
        return await self._library.transaction(request.transaction_id.lower())

    async def ListTransactions(
        self, request: points_pb2.ListTransactionsRequest, context: Context
    ) -> points_pb2.ListTransactionsResponse:
        """Lists transactions, newest first."""
        return await self._library.transactions(request)

    async def GetStatement(
        self, request: points_pb2.GetStatementRequest, context: Context
    ) -> points_pb2.GetStatementResponse:
        """Reads a user's account over a period."""
        return await self._library.statement(request)

    async def ListLots(
        self, request: points_pb2.ListLotsRequest, context: Context
    ) -> points_pb2.ListLotsResponse:
        """Lists a user's lots, oldest first."""
        return await self._library.lots(request)

    async def VerifyLedger(
        self, request: points_pb2.VerifyLedgerRequest, context: Context
    ) -> points_pb2.VerifyLedgerResponse:
        """Recomputes the ledger, as of one moment, while it goes on being written."""
        return await self._library.verify(request)


def _scope(operation: str) -> str:
    # The operation's name, not the RPC's: a request id is the same one alone and in a batch.
    return f"{caller()}:{operation}"


def _key(operation: str, request: Message) -> idempotency.Key:
    request_id: str = request.request_id  # type: ignore[attr-defined]
    return idempotency.Key(_scope(operation), request_id, idempotency.fingerprint(request))


def _order(request: convert.Posted) -> Order:
    instruction = convert.instruction(request)
    return Order(_key(instruction.kind, request), instruction)


def _checked(item: points_pb2.PostItem) -> Order:
    validation.check(item)
    return _order(convert.operation(item))


def _result(outcome: Answer | ItemError) -> points_pb2.PostResult:
    if outcome is None:
        return points_pb2.PostResult(cancelled=True)
    if isinstance(outcome, Transaction):
        return points_pb2.PostResult(transaction=convert.transaction(outcome))
    return points_pb2.PostResult(error=outcome)
