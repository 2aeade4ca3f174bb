"""What the chassis does around every call a service answers.

One interceptor instead of one per concern: in grpc.aio each layer costs as much as validating the
message. A call is admitted (identity, role, deadline), checked against its field rules, served, and
whatever it raises becomes a status; around that run its span, its metrics and its log line.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import grpc
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind

from mesh import deadline, status, telemetry, validation
from mesh.clock import monotonic
from mesh.errors import DeadlineExceeded, Internal, Kind, MeshError, PermissionDenied, Unavailable
from mesh.identity import Identity, identify, set_caller
from mesh.policy import Policy
from mesh.wire import REQUEST_ID_KEY, TRACEPARENT_KEY

# Every authenticated member may ask for these; they belong to gRPC and carry no policy.
OPEN_SERVICES = frozenset({"grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"})
_ADMITS_NOBODY = Policy(frozenset(), None, None, retryable=False, streaming=False)
_LONGEST_REQUEST_ID = 128
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Context = grpc.aio.ServicerContext[Any, Any]
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]  # generic in the type stubs only
else:
    Handler = grpc.RpcMethodHandler

_log = telemetry.logger("rpc.server")
_duration = telemetry.meter.create_histogram(
    "rpc.server.duration",
    unit="s",
    description="Time to answer a call, by method and status code; its count is the calls.",
    explicit_bucket_boundaries_advisory=_BUCKETS,
)


class Chassis(grpc.aio.ServerInterceptor):
    """The interceptor of one server; `policies` by RPC path, from `mesh.policy`."""

    def __init__(self, policies: Mapping[str, Policy]) -> None:
        self._policies = policies
        self._handlers: dict[str, Handler] = {}
        self.endless: set[asyncio.Task[Any]] = set()  # streams that only a drain ends
        self.draining = False
        self.in_flight = 0
        telemetry.meter.create_observable_gauge(
            "rpc.server.in_flight",
            callbacks=[self._observe_in_flight],
            description="Calls being answered, streams included.",
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wraps a method's handler at its first call and remembers the result."""
        path = handler_call_details.method
        known = self._handlers.get(path)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None or path.split("/")[1] in OPEN_SERVICES:
            return handler
        return self._handlers.setdefault(path, self._wrap(path, handler))

    def end_streams(self) -> None:
        """Ends the streams that would live for ever, with UNAVAILABLE: resume on another replica.

        Others are left to finish within the drain.
        """
        self.draining = True
        for task in self.endless:
            task.cancel()

    def _wrap(self, path: str, handler: Handler) -> Handler:
        policy = self._policies.get(path, _ADMITS_NOBODY)
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._stream(path, policy, handler.unary_stream),
                request_deserializer=handler.request_deserializer,
                response_serializer=handler.response_serializer,
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(path, policy, handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _unary(self, path: str, policy: Policy, behaviour: Any) -> Any:
        async def serve(request: Any, context: Context) -> Any:
            with Call(self, path, context, request) as call:
                cap = call.admit(policy)
                validation.check(request)
                async with asyncio.timeout(cap) as call.limit:
                    return await behaviour(request, context)
            return await call.abort()

        return serve

    def _stream(self, path: str, policy: Policy, behaviour: Any) -> Any:
        async def serve(request: Any, context: Context) -> None:
            with Call(self, path, context, request) as call:
                cap = call.admit(policy)
                validation.check(request)
                if policy.max_deadline is None:
                    call.live_until_drain()
                async with (
                    asyncio.timeout(cap) as call.limit,
                    aclosing(behaviour(request, context)) as responses,
                ):
                    async for response in responses:
                        await context.write(response)
                return
            await call.abort()

        return serve

    def _observe_in_flight(self, _: CallbackOptions) -> list[Observation]:
        return [Observation(self.in_flight)]


class Call:
    """One call being served; a context manager that turns failures into `failure`.

    Cancellation, by the client or its deadline, is no failure and passes through.
    """

    def __init__(self, chassis: Chassis, path: str, context: Context, request: Any) -> None:
        self._chassis = chassis
        self._path = path
        self._context = context
        self._request = request
        self._caller: Identity | None = None
        self._task: asyncio.Task[Any] | None = None
        self._started = monotonic()
        self._span: telemetry.continue_trace
        self.limit: asyncio.Timeout | None = None
        self.failure: MeshError | None = None

    def __enter__(self) -> Self:
        parent = request_id = None
        for key, value in self._context.invocation_metadata() or ():
            if key == TRACEPARENT_KEY:
                parent = str(value)
            elif key == REQUEST_ID_KEY:
                request_id = str(value)[:_LONGEST_REQUEST_ID]
        telemetry.bind_request_id(request_id or telemetry.new_request_id())
        self._span = telemetry.continue_trace(parent, self._path, SpanKind.SERVER)
        self._span.__enter__()
        self._chassis.in_flight += 1
        return self

    def admit(self, policy: Policy) -> float | None:
        """Binds caller and deadline; returns the seconds after which to cut the call, if any.

        gRPC itself cuts it at the client's deadline; we do so only when the method allows less.
        Raises `Unauthenticated`, `PermissionDenied` or `DeadlineExceeded`.
        """
        (uri,) = self._context.auth_context().get("peer_spiffe_id") or (b"",)
        self._caller = identify(uri.decode())
        if self._caller.role not in policy.roles:
            raise PermissionDenied(
                f"Role {self._caller.role} may not call {self._path}; "
                f"allowed: {', '.join(sorted(policy.roles)) or 'nobody'}.",
                role=self._caller.role,
                method=self._path,
                allowed_roles=",".join(sorted(policy.roles)),
            )
        set_caller(self._caller)
        offered = self._context.time_remaining()
        budget = deadline.accepted(offered, policy.max_deadline)
        deadline.bind(budget)
        return None if budget == offered else budget

    def live_until_drain(self) -> None:
        """Marks a stream without end as one that a drain may cut."""
        if self._chassis.draining:
            raise _draining()
        self._task = asyncio.current_task()
        if self._task is not None:
            self._chassis.endless.add(self._task)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self.failure = None if error is None else self._judge(error)
        code = self.failure.kind.name if self.failure else "OK" if error is None else "CANCELLED"
        elapsed = monotonic() - self._started
        _duration.record(elapsed, {"rpc.method": self._path, "rpc.grpc.status": code})
        self._write_log(code, elapsed, error)
        self._chassis.in_flight -= 1
        if self._task is not None:
            self._chassis.endless.discard(self._task)
        self._span.__exit__(kind, error, traceback)
        return self.failure is not None

    async def abort(self) -> None:
        """Answers with the status of `failure`."""
        await self._context.abort_with_status(status.to_grpc(self.failure or Internal()))

    def _judge(self, error: BaseException) -> MeshError | None:
        """What to answer for what was raised; None if there is nothing to answer."""
        if isinstance(error, MeshError):
            return status.told(error, self._request)
        if isinstance(error, TimeoutError) and self.limit is not None and self.limit.expired():
            return DeadlineExceeded("The work took longer than the deadline; try again, or later.")
        if isinstance(error, asyncio.CancelledError) and self._task and self._chassis.draining:
            self._task.uncancel()
            return _draining()
        if isinstance(error, Exception) and not self._context.cancelled():
            return status.told(error, self._request)
        return None

    def _write_log(self, code: str, elapsed: float, error: BaseException | None) -> None:
        facts = {"method": self._path, "caller": self._caller, "code": code, "seconds": elapsed}
        if self.failure is None:
            _log.debug("call_served", **facts)
        elif self.failure.kind is Kind.INTERNAL:
            _log.error("call_broke", **facts, exc_info=error)
        else:
            write = _log.warning if self.failure.transient else _log.info
            write("call_refused", **facts, reason=self.failure.reason, error=self.failure.message)


def _draining() -> Unavailable:
    return Unavailable("This replica is shutting down; resume on another one.")
