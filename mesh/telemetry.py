"""Logs, traces and metrics: one JSON object a line on stdout, W3C trace context, Prometheus.

Trace ids travel from hop to hop even when nothing exports them, so a log line of one service leads
to those of the others.
"""

import logging
import random
import re
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any

import prometheus_client
import structlog
from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode

from mesh.config import ServiceSettings

tracer = trace.get_tracer("go2asia")
meter = metrics.get_meter("go2asia")

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_SECRET_NAME = re.compile(r"password|secret|seed|mnemonic|private_key|authorization|_url$", re.I)
_URL_PASSWORD = re.compile(r"(://[^:/\s\"]*):[^@/\s\"]+@")
_MASK = "**********"

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def start(service: str, settings: ServiceSettings) -> None:
    """Sets up logging, tracing and metrics; called once, first thing in a service's main."""
    _start_logging(service, settings.log_level)
    resource = Resource.create({SERVICE_NAME: service})
    if settings.traces == "otlp":
        sampler = ParentBased(TraceIdRatioBased(settings.trace_sample_ratio))
        traces = TracerProvider(resource=resource, sampler=sampler)
        traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        trace.set_tracer_provider(traces)
    if settings.metrics_port:
        metrics.set_meter_provider(MeterProvider([PrometheusMetricReader()], resource=resource))
        prometheus_client.start_http_server(settings.metrics_port, addr=settings.listen_host)


def logger(name: str) -> Any:
    """A structlog logger whose lines carry `component`: log events in dotted snake_case words."""
    return structlog.get_logger(component=name)


def bind_request_id(request_id: str) -> None:
    """Names the call being served in every log line and outgoing call of this context."""
    _request_id.set(request_id)


def new_request_id() -> str:
    """An id for logs to share; unlike ids of things it needs neither order nor secrecy."""
    return f"{random.getrandbits(128):032x}"


def current_request_id() -> str | None:
    """The id of the call being served, or None outside of one."""
    return _request_id.get()


def traceparent() -> str | None:
    """The current span as a W3C traceparent header, to continue the trace elsewhere or later."""
    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return None
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


class continue_trace:  # noqa: N801 - reads as a verb in a with statement
    """Runs the block in a span below `parent`, a W3C traceparent; the block receives the span.

    Without a parent, or with a malformed one, the span is below the current span, or begins a
    trace of its own. A class, because every call passes here and a generator costs twice as much.
    """

    __slots__ = ("_span", "_token")

    def __init__(self, parent: str | None, name: str, kind: SpanKind = SpanKind.INTERNAL) -> None:
        span = tracer.start_span(name, context=_remote(parent), kind=kind)
        if not span.get_span_context().is_valid:
            span = NonRecordingSpan(_fresh_ids())
        self._span: Span = span

    def __enter__(self) -> Span:
        self._token = otel_context.attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception) and self._span.is_recording():
            self._span.record_exception(error)
            self._span.set_status(StatusCode.ERROR, str(error))
        otel_context.detach(self._token)
        self._span.end()


def _remote(parent: str | None) -> otel_context.Context | None:
    match = _TRACEPARENT.fullmatch(parent) if parent else None
    if match is None:
        return None
    trace_id, span_id, flags = (int(part, 16) for part in match.groups())
    remote = SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(flags))
    return trace.set_span_in_context(NonRecordingSpan(remote)) if remote.is_valid else None


def _fresh_ids() -> SpanContext:
    return SpanContext(random.getrandbits(128) or 1, random.getrandbits(64) or 1, is_remote=False)


def _start_logging(service: str, level: str) -> None:
    def name_service(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
        _name_call,
        structlog.processors.format_exc_info,
        redact,
    ]
    render = structlog.processors.JSONRenderer(default=str)
    number = logging.getLevelNamesMapping()[level.upper()]
    writer = structlog.WriteLogger(sys.stdout)  # one for all: making one takes a lock
    structlog.configure(
        processors=[*shared, render, redact_text],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: writer,
    )
    # Libraries log through the standard library; their lines leave in the same shape.
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                render,
                redact_text,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(number, logging.INFO), force=True)


def _name_call(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Adds the ids that lead from this line to the rest of the story."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event["trace_id"] = f"{span.trace_id:032x}"
        event["span_id"] = f"{span.span_id:016x}"
    if (request_id := _request_id.get()) is not None:
        event.setdefault("request_id", request_id)
    return event


def redact(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Masks values whose name says secret, at any depth of dictionaries."""
    for name, value in event.items():
        if _SECRET_NAME.search(name):
            event[name] = _MASK
        elif isinstance(value, dict):
            event[name] = redact(_, __, dict(value))
    return event


def redact_text(_: Any, __: str, line: Any) -> str:
    """Masks passwords inside URLs anywhere in the finished line, tracebacks included."""
    return _URL_PASSWORD.sub(rf"\1:{_MASK}@", line)
