"""The reads: each one transaction, answered as the contract shows it."""

from contextlib import AbstractAsyncContextManager
from datetime import datetime

from go2asia.points.v1 import points_pb2

from mesh import pagination
from mesh.db import Connection, Database
from points_svc import convert
from points_svc.audit import verify
from points_svc.errors import (
    FilterRequired,
    PeriodReversed,
    TimeInFuture,
    TransactionNotFound,
)
from points_svc.ledger import USER, AccountKey, Seal, user_account
from points_svc.store.booking import Store
from points_svc.store.history import Filter
from points_svc.store.reading import Balance, Reader


class Library:
    """Answers questions about the ledger; each method is the RPC of that name."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def balance(self, request: points_pb2.GetBalanceRequest) -> points_pb2.GetBalanceResponse:
        """Now, or as the ledger had it at a moment of the past."""
        key = user_account(request.user_id, request.unit)
        moment = None
        if request.HasField("as_of_time"):
            moment = convert.moment(request.as_of_time, "as_of_time")
            _require_past("as_of_time", moment, await self._settled(key))
        async with self._snapshot() as connection:
            reader = Reader(connection)
            if moment is None:
                [found] = await reader.balances([key], request.unit)
            else:
                found = await reader.balance_before(key, moment + convert.SMALLEST_STEP)
        return points_pb2.GetBalanceResponse(balance=_balance(found))

    async def balances(
        self, request: points_pb2.BatchGetBalancesRequest
    ) -> points_pb2.BatchGetBalancesResponse:
        """Of many users, from one snapshot."""
        keys = [user_account(user_id, request.unit) for user_id in request.user_ids]
        async with self._snapshot() as connection:
            found = await Reader(connection).balances(keys, request.unit)
        return points_pb2.BatchGetBalancesResponse(balances=[_balance(one) for one in found])

    async def transaction(self, transaction_id: str) -> points_pb2.GetTransactionResponse:
        """Raises `TransactionNotFound`."""
        async with self._database.transaction(read_only=True) as connection:
            found = await Reader(connection).transactions([transaction_id])
        if not found:
            raise TransactionNotFound(transaction_id)
        [booked] = found.values()
        return points_pb2.GetTransactionResponse(transaction=convert.transaction(booked))

    async def transactions(
        self, request: points_pb2.ListTransactionsRequest
    ) -> points_pb2.ListTransactionsResponse:
        """Raises `FilterRequired`, `PageTokenInvalid`."""
        if not (request.user_id or request.reference or request.reason):
            raise FilterRequired
        page = pagination.open_page(request)
        wanted = Filter(
            request.user_id,
            request.unit,
            request.reference,
            request.reason,
            page.after_id(),
        )
        async with self._database.transaction(read_only=True) as connection:
            found = await Reader(connection).page(wanted, page.limit)
        shown, token = page.fill(found, convert.transaction, lambda one: (one.transaction_id,))
        return points_pb2.ListTransactionsResponse(transactions=shown, next_page_token=token)

    async def statement(
        self, request: points_pb2.GetStatementRequest
    ) -> points_pb2.GetStatementResponse:
        """Raises `TimeInFuture`, `PeriodReversed`, `PageTokenInvalid`, `UnknownUnit`."""
        key = user_account(request.user_id, request.unit)
        page = pagination.open_page(request)
        shown_up_to, shown_end = convert.lines_up_to(page)
        start, end = _period(request, shown_end, await self._settled(key))
        async with self._snapshot() as connection:
            reader = Reader(connection)
            period = await reader.period(key, start, end)
            lines = await reader.lines(key, period, shown_up_to, page.limit)
            booked = await reader.transactions({transaction_id for _, transaction_id in lines})
        shown, token = page.fill(
            [(line, booked[transaction_id]) for line, transaction_id in lines],
            lambda row: points_pb2.StatementLine(
                entry=convert.entry(row[0]), transaction=convert.transaction(row[1])
            ),
            lambda row: convert.line_key(row[0].account_version, end),
        )
        return points_pb2.GetStatementResponse(
            opening_balance=period.opening,
            closing_balance=period.closing,
            lines=shown,
            next_page_token=token,
        )

    async def lots(self, request: points_pb2.ListLotsRequest) -> points_pb2.ListLotsResponse:
        """Raises `PageTokenInvalid`, `UnknownUnit`."""
        page = pagination.open_page(request)
        async with self._database.transaction(read_only=True) as connection:
            found = await Reader(connection).lots(
                user_account(request.user_id, request.unit),
                include_empty=request.include_empty,
                after=convert.lots_up_to(page),
                size=page.limit,
            )
        shown, token = page.fill(found, convert.lot, lambda lot: lot.lot_id)
        return points_pb2.ListLotsResponse(lots=shown, next_page_token=token)

    async def verify(
        self, request: points_pb2.VerifyLedgerRequest
    ) -> points_pb2.VerifyLedgerResponse:
        """Recomputes the ledger, as of one moment, while it goes on being written."""
        noted = request.known_seal
        known = Seal(noted.number, noted.hash) if request.HasField("known_seal") else None
        async with self._snapshot() as connection:
            return convert.report(await verify(connection, known))

    def _snapshot(self) -> AbstractAsyncContextManager[Connection]:
        """A transaction all of whose statements see the same moment."""
        return self._database.transaction(read_only=True, isolation="REPEATABLE READ")

    async def _settled(self, user: AccountKey) -> datetime:
        """The database's time, when whatever is booked on a user's account until then can be seen.

        A booking has its time before it is committed, under the account's lock, even if it opens
        the account; so who gets that lock has waited for all bookings with an earlier time.
        """
        async with self._database.transaction() as connection:
            store = Store(connection)
            await store.lock([user], opening=[user])
            now, _ = await store.moment()
            await connection.rollback()  # so that nothing was opened
        return now


def _period(
    request: points_pb2.GetStatementRequest, shown_end: datetime | None, now: datetime
) -> tuple[datetime | None, datetime]:
    """Where a statement begins and ends; without an end, where its first page ended.

    Raises `TimeInFuture`, `PeriodReversed`.
    """
    start, end = None, shown_end or now
    if request.HasField("end_time"):
        end = convert.moment(request.end_time, "end_time")
    _require_past("end_time", end, now)
    if request.HasField("start_time"):
        start = convert.moment(request.start_time, "start_time")
        _require_past("start_time", start, now)
        if start > end:
            raise PeriodReversed(start.isoformat(), end.isoformat())
    return start, end


def _require_past(field: str, moment: datetime, now: datetime) -> None:
    if moment > now:
        raise TimeInFuture(field, moment.isoformat())


def _balance(found: Balance) -> points_pb2.Balance:
    account = found.account
    message = points_pb2.Balance(
        user_id=account.key.owner.removeprefix(USER),
        unit=account.key.unit,
        posted=account.posted,
        held=account.held,
        available=account.available - found.expired,
        version=account.version,
        expired=found.expired,
        owed=found.owed,
        overdraft_limit=found.overdraft_limit,
    )
    if found.next_time is not None:
        message.expiring_next.amount = found.next_amount
        message.expiring_next.expire_time.CopyFrom(convert.timestamp(found.next_time))
    return message
