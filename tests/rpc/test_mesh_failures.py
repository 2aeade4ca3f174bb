"""Failures and time: typed errors, deadlines from hop to hop, and the one layer that retries."""

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stdout
from datetime import timedelta

import grpc
import pytest
import structlog
from go2asia.nft.v1 import nft_pb2, nft_pb2_grpc
from go2asia.points.v1 import points_pb2, points_pb2_grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from devstack.certificates import Authority
from mesh import deadline, telemetry
from mesh.client import open_channel
from mesh.clock import monotonic
from mesh.errors import (
    DeadlineExceeded,
    Internal,
    InvalidArgument,
    Kind,
    MeshError,
    MessageTooLarge,
    NotFound,
    Overloaded,
    Unavailable,
    Unstorable,
)
from mesh.tls import channel_credentials
from mesh.wire import MAX_MESSAGE_BYTES
from tests.rpc.mesh_probe import (
    BALANCE,
    WATCH,
    Answer,
    call_probe,
    feed,
    points,
    probe,
    serving,
    settings,
)

EMPTY = points_pb2.GetBalanceResponse()


class PurseLostError(MeshError):
    """The purse is lost; look under the table."""

    kind = Kind.FAILED_PRECONDITION
    reason = "PURSE_LOST"
    domain = "test.go2asia"


class Flaky:
    """Fails with the given errors, one a call, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self, request: object = None) -> points_pb2.GetBalanceResponse:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return EMPTY


@pytest.fixture
def logged(authority: Authority) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """What the service `points` logged so far, a dictionary a line."""
    with redirect_stdout(io.StringIO()) as lines:
        telemetry.start("points", settings(authority))
    yield lambda: [json.loads(line) for line in lines.getvalue().splitlines()]
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()


@asynccontextmanager
async def stub(
    authority: Authority, answer: Answer, *, retry_for: timedelta | None = None
) -> AsyncIterator[points_pb2_grpc.PointsServiceStub]:
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(authority, points(answer)))
        channel = await stack.enter_async_context(
            open_channel(address, authority.issue("bff/web"), retry_for=retry_for)
        )
        yield points_pb2_grpc.PointsServiceStub(channel)


async def test_an_error_arrives_as_the_class_that_was_raised(authority: Authority) -> None:
    async with stub(authority, Flaky(PurseLostError(field="user_id", purse="red"))) as client:
        with pytest.raises(PurseLostError) as lost:
            await client.GetBalance(BALANCE)
    assert lost.value.message == "The purse is lost; look under the table."
    assert (lost.value.field, lost.value.metadata) == ("user_id", {"purse": "red"})


async def test_a_defect_is_logged_whole_and_answered_blandly(
    authority: Authority, logged: Callable[[], list[dict[str, str]]]
) -> None:
    async with stub(authority, Flaky(ValueError("secret detail"))) as client:
        with pytest.raises(Internal) as broken:
            await client.GetBalance(BALANCE)
    assert "secret detail" not in broken.value.message
    [line] = [line for line in logged() if line["event"] == "call_broke"]
    assert "secret detail" in line["exception"]
    assert line["request_id"] == broken.value.metadata["request_id"]
    assert (line["service"], line["caller"], line["code"]) == ("points", "bff/web", "INTERNAL")


async def test_an_answer_too_large_to_be_sent_is_not_asked_for_again(authority: Authority) -> None:
    calls = 0

    async def answer(request: object) -> points_pb2.GetBalanceResponse:
        nonlocal calls
        calls += 1
        balance = points_pb2.Balance(user_id="x" * (MAX_MESSAGE_BYTES + 1))
        return points_pb2.GetBalanceResponse(balance=balance)

    async with stub(authority, answer) as client:
        with pytest.raises(MessageTooLarge, match="smaller page"):
            await client.GetBalance(BALANCE)
    assert calls == 1


async def test_a_request_too_large_to_be_sent_is_not_repeated(authority: Authority) -> None:
    async with stub(authority, Flaky()) as client:
        with pytest.raises(MessageTooLarge, match="split"):
            await client.GetBalance(
                points_pb2.GetBalanceRequest(user_id="x" * (MAX_MESSAGE_BYTES + 1))
            )


async def test_a_text_that_cannot_be_stored_is_the_callers_mistake(authority: Authority) -> None:
    async def updates() -> AsyncIterator[nft_pb2.WatchMintStatusResponse]:
        raise Unstorable
        yield

    request = nft_pb2.WatchMintStatusRequest(user_id="ada", resume_token="a\0")
    async with (
        serving(authority, feed(updates)) as address,
        open_channel(address, authority.issue("bff/web")) as channel,
    ):
        watch = nft_pb2_grpc.NftServiceStub(channel).WatchMintStatus
        with pytest.raises(InvalidArgument, match="NUL") as refused:
            await anext(aiter(watch(request)))
        assert refused.value.field == "resume_token"
        with pytest.raises(Internal):
            await anext(aiter(watch(WATCH)))


async def test_a_passing_failure_is_repeated(authority: Authority) -> None:
    answer = Flaky(Unavailable(), Overloaded())
    async with stub(authority, answer) as client:
        await client.GetBalance(BALANCE)
    assert answer.calls == 3


async def test_a_lasting_failure_is_not(authority: Authority) -> None:
    answer = Flaky(NotFound())
    async with stub(authority, answer) as client:
        with pytest.raises(NotFound):
            await client.GetBalance(BALANCE)
    assert answer.calls == 1


async def test_never_means_never(authority: Authority) -> None:
    once = Flaky(Unavailable())
    async with (
        serving(authority, probe(once)) as address,
        open_channel(
            address, authority.issue("operator/ops"), retry_for=timedelta(seconds=5)
        ) as channel,
    ):
        with pytest.raises(Unavailable):
            await call_probe(channel, "Once")
    assert once.calls == 1


async def test_retries_end_with_the_deadline(authority: Authority) -> None:
    answer = Flaky(*[Unavailable() for _ in range(1000)])
    async with stub(authority, answer) as client:
        started = monotonic()
        with pytest.raises(Unavailable):
            await client.GetBalance(BALANCE, timeout=0.5)
        assert monotonic() - started < 0.6
    assert answer.calls > 2


async def test_retry_for_outlives_one_attempts_deadline(authority: Authority) -> None:
    naps = [1.0, 1.0, 0.0]

    async def nap() -> None:
        await asyncio.sleep(naps.pop(0))

    async with (
        serving(authority, probe(nap)) as address,
        open_channel(
            address, authority.issue("operator/ops"), retry_for=timedelta(seconds=5)
        ) as channel,
    ):
        await call_probe(channel, "Brief")
    assert naps == []


async def test_a_server_nobody_runs_is_unavailable(authority: Authority) -> None:
    async with open_channel("localhost:1", authority.issue("bff/web")) as channel:
        with pytest.raises(Unavailable):
            await points_pb2_grpc.PointsServiceStub(channel).GetBalance(BALANCE, timeout=0.3)


async def test_the_server_caps_the_deadline(authority: Authority) -> None:
    cut = asyncio.Event()

    async def sleep() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            cut.set()
            raise

    async with (
        serving(authority, probe(sleep)) as address,
        open_channel(address, authority.issue("operator/ops")) as channel,
    ):
        started = monotonic()
        with pytest.raises(DeadlineExceeded):
            await call_probe(channel, "Once", timeout=5)
        assert 0.85 < monotonic() - started < 1.5
        assert cut.is_set()


async def test_the_clients_deadline_stops_the_work(authority: Authority) -> None:
    stopped = asyncio.Event()

    async def sleep(request: object) -> points_pb2.GetBalanceResponse:
        try:
            await asyncio.sleep(10)
        finally:
            stopped.set()
        return EMPTY

    async with stub(authority, sleep) as client:
        with pytest.raises(DeadlineExceeded):
            await client.GetBalance(BALANCE, timeout=0.2)
        async with asyncio.timeout(1):
            await stopped.wait()


async def test_the_default_deadline_is_the_policys(authority: Authority) -> None:
    budgets: list[float | None] = []

    async def note(request: object) -> points_pb2.GetBalanceResponse:
        budgets.append(deadline.remaining())
        return EMPTY

    async with stub(authority, note) as client:
        await client.GetBalance(BALANCE)
        await client.GetBalance(BALANCE, timeout=1000)
    [default, capped] = budgets
    assert default is not None
    assert 4 < default <= 5
    assert capped is not None
    assert 29 < capped <= 30


async def test_a_second_hop_inherits_what_is_left(authority: Authority) -> None:
    budgets: list[float] = []

    async def last(request: object) -> points_pb2.GetBalanceResponse:
        budgets.append(deadline.remaining() or 0)
        return EMPTY

    async with stub(authority, last) as behind:

        async def first(request: points_pb2.GetBalanceRequest) -> points_pb2.GetBalanceResponse:
            await asyncio.sleep(0.2)
            return await behind.GetBalance(request)

        async with stub(authority, first) as client:
            await client.GetBalance(BALANCE, timeout=1)
            with pytest.raises(DeadlineExceeded):
                await client.GetBalance(BALANCE, timeout=0.212)
    [left] = budgets
    assert 0.5 < left < 1 - 0.2 - deadline.HOP_MARGIN_SECONDS + 0.002


async def test_the_trace_and_the_request_id_go_along(authority: Authority) -> None:
    seen: list[tuple[str | None, str | None]] = []

    async def last(request: object) -> points_pb2.GetBalanceResponse:
        seen.append((telemetry.traceparent(), telemetry.current_request_id()))
        return EMPTY

    async with stub(authority, last) as behind:

        async def first(request: points_pb2.GetBalanceRequest) -> points_pb2.GetBalanceResponse:
            seen.append((telemetry.traceparent(), telemetry.current_request_id()))
            return await behind.GetBalance(request)

        async with stub(authority, first) as client:
            with telemetry.continue_trace(f"00-{'ab' * 16}-{'cd' * 8}-01", "test"):
                await client.GetBalance(BALANCE)
    [(one, first_id), (two, second_id)] = seen
    assert one is not None
    assert two is not None
    assert one.split("-")[1] == two.split("-")[1] == "ab" * 16
    assert first_id == second_id is not None


async def test_a_stream_raises_typed_errors_while_it_is_read(authority: Authority) -> None:
    async def updates() -> AsyncIterator[nft_pb2.WatchMintStatusResponse]:
        yield nft_pb2.WatchMintStatusResponse(resume_token="1")
        raise PurseLostError(purse="blue")

    read: list[str] = []
    async with (
        serving(authority, feed(updates)) as address,
        open_channel(address, authority.issue("bff/web")) as channel,
    ):
        stream = nft_pb2_grpc.NftServiceStub(channel).WatchMintStatus(WATCH)
        read.append((await anext(aiter(stream))).resume_token)
        with pytest.raises(PurseLostError) as lost:
            await anext(aiter(stream))
    assert read == ["1"]
    assert lost.value.metadata == {"purse": "blue"}


async def test_a_cancelled_call_stops_the_work_and_is_no_error(
    authority: Authority, logged: Callable[[], list[dict[str, str]]]
) -> None:
    begun, stopped = asyncio.Event(), asyncio.Event()

    async def work(request: object) -> points_pb2.GetBalanceResponse:
        begun.set()
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()
        return EMPTY

    async with stub(authority, work) as client:
        call = asyncio.ensure_future(client.GetBalance(BALANCE))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(2):
            await stopped.wait()
    assert not [line for line in logged() if line["level"] in ("warning", "error")]


async def test_a_plain_grpc_client_reads_the_same_facts(authority: Authority) -> None:
    """Clients without our chassis get the standard details (AIP-193)."""
    async with (
        serving(authority, points(Flaky(PurseLostError(purse="red")))) as address,
        grpc.aio.secure_channel(
            address, channel_credentials(authority.issue("bff/web"))
        ) as channel,
    ):
        call = points_pb2_grpc.PointsServiceStub(channel).GetBalance(BALANCE)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call
        status = await rpc_status.aio.from_call(call)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == ("PURSE_LOST", "test.go2asia")
    assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
