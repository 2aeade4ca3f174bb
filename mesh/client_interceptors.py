"""What the chassis does around every call that leaves: deadline, trace, retries, typed errors."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import Any

import grpc
from opentelemetry.trace import SpanKind
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from mesh import deadline, status, telemetry
from mesh.errors import MeshError
from mesh.policy import method_policy
from mesh.wire import REQUEST_ID_KEY, TRACEPARENT_KEY

_BACKOFF = wait_random_exponential(multiplier=0.05, max=2.0)  # seconds, with full jitter

Details = grpc.aio.ClientCallDetails
Continuation = Callable[[Details, Any], Awaitable[Any]]

_log = telemetry.logger("rpc.client")
_retries = telemetry.meter.create_counter(
    "rpc.client.retries", description="Attempts after the first, by method and reason."
)


class UnaryCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Unary calls; the only layer of the mesh that repeats one."""

    def __init__(self, retry_for: timedelta | None = None) -> None:
        self._retry_for = retry_for and retry_for.total_seconds()

    async def intercept_unary_unary(
        self, continuation: Continuation, client_call_details: Details, request: Any
    ) -> Any:
        """Returns the response; raises a `MeshError`."""
        path = _path(client_call_details)
        policy = method_policy(path)
        repeatable = policy is not None and policy.retryable
        longest = _wanted(client_call_details)
        # grpc runs interceptors in a task of their own, so this binds nobody else's deadline.
        deadline.bind(deadline.outgoing((repeatable and self._retry_for) or longest))
        with telemetry.continue_trace(None, path, SpanKind.CLIENT):
            metadata = _metadata(client_call_details)

            async def attempt() -> Any:
                left = deadline.remaining()
                timeout = min((t for t in (longest, left) if t is not None), default=None)
                call = await continuation(_details(client_call_details, timeout, metadata), request)
                try:
                    return await call
                except grpc.aio.AioRpcError as error:
                    raise status.from_grpc(error) from error

            try:
                return await attempt()
            except MeshError as error:
                if not repeatable or not error.transient:
                    raise
                failure = error
            return await _repeat(attempt, failure, path)


class StreamCalls(grpc.aio.UnaryStreamClientInterceptor):
    """Streams; never repeated, because only their reader knows where to resume."""

    async def intercept_unary_stream(
        self, continuation: Continuation, client_call_details: Details, request: Any
    ) -> AsyncIterator[Any]:
        """Returns the responses; reading them raises a `MeshError`."""
        timeout = deadline.outgoing(_wanted(client_call_details))
        with telemetry.continue_trace(None, _path(client_call_details), SpanKind.CLIENT):
            metadata = _metadata(client_call_details)
            call = await continuation(_details(client_call_details, timeout, metadata), request)
        return _typed(call)


async def _repeat(attempt: Callable[[], Awaitable[Any]], failure: MeshError, path: str) -> Any:
    """Goes on after a first attempt that ended in `failure`.

    The first one stays outside of tenacity, whose bookkeeping costs a tenth of a call.
    """
    failures = [failure]

    async def first_as_it_was_then_again() -> Any:
        if failures:
            raise failures.pop()
        return await attempt()

    def note(state: RetryCallState) -> None:
        error = state.outcome and state.outcome.exception()
        reason = error.reason if isinstance(error, MeshError) else ""
        _retries.add(1, {"rpc.method": path, "reason": reason})
        _log.debug("call_retried", method=path, attempt=state.attempt_number, error=str(error))

    return await AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, MeshError) and error.transient),
        wait=_BACKOFF,
        stop=_out_of_time,
        before_sleep=note,
        reraise=True,
    )(first_as_it_was_then_again)


def _out_of_time(state: RetryCallState) -> bool:
    left = deadline.remaining()
    return left is not None and left - state.upcoming_sleep < deadline.USEFUL_SECONDS


async def _typed(call: Any) -> AsyncIterator[Any]:
    try:
        async for response in call:
            yield response
    except grpc.aio.AioRpcError as error:
        raise status.from_grpc(error) from error


def _path(details: Details) -> str:
    method: str | bytes = details.method
    return method.decode() if isinstance(method, bytes) else method


def _wanted(details: Details) -> float | None:
    """The caller's explicit timeout, else the default deadline of the method's policy."""
    if details.timeout is not None:
        return details.timeout
    policy = method_policy(_path(details))
    return policy.default_deadline if policy else None


def _metadata(details: Details) -> grpc.aio.Metadata:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add(REQUEST_ID_KEY, telemetry.current_request_id() or telemetry.new_request_id())
    if (parent := telemetry.traceparent()) is not None:
        metadata.add(TRACEPARENT_KEY, parent)
    return metadata


def _details(details: Details, timeout: float | None, metadata: grpc.aio.Metadata) -> Details:
    return Details(details.method, timeout, metadata, details.credentials, details.wait_for_ready)
