"""Serving: one grpc.aio server with health, reflection, mutual TLS and an orderly end."""

import asyncio
import gc
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from mesh import telemetry
from mesh.config import ConfigurationError, ServiceSettings
from mesh.health import Health, Probe
from mesh.interceptors import Chassis
from mesh.policy import service_policies
from mesh.tls import server_credentials
from mesh.wire import KEEPALIVE_OPTIONS, KEEPALIVE_TOLERATED_MS, SIZE_OPTIONS

# Between "not serving" and the end of new calls, so that balancers look elsewhere first.
LAME_DUCK_SECONDS = 0.3
Hook: TypeAlias = Callable[[], Awaitable[None]]

_log = telemetry.logger("server")


@dataclass(frozen=True, slots=True)
class Registration:
    """A service to serve: its full name, the generated `add_…_to_server`, and the servicer."""

    service: str
    add: Callable[[Any, Any], None]
    servicer: object


async def serve(
    settings: ServiceSettings,
    registrations: Sequence[Registration],
    *,
    probes: Mapping[str, Probe],
    before_streams_end: Hook | None = None,
) -> None:
    """Serves until SIGTERM or SIGINT, then drains.

    `before_streams_end` may close streams with a reason of the service's own, before the drain
    cuts those that are left.

    Raises `PolicyError` if a contract lacks a policy, `ConfigurationError` if the address or the
    certificates cannot be used.
    """
    asked_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, asked_to_stop.set)
    async with running(
        settings, registrations, probes=probes, before_streams_end=before_streams_end
    ):
        await asked_to_stop.wait()


@asynccontextmanager
async def running(
    settings: ServiceSettings,
    registrations: Sequence[Registration],
    *,
    probes: Mapping[str, Probe],
    before_streams_end: Hook | None = None,
) -> AsyncIterator[int]:
    """Serves during the block, which receives the port, then drains. The rest is as in `serve`."""
    names = [registration.service for registration in registrations]
    chassis = Chassis(
        {path: policy for name in names for path, policy in service_policies(name).items()}
    )
    health = Health(names, probes)
    server = build(chassis, health, registrations, settings)
    port = _bind(server, settings)
    await health.probe()
    await server.start()
    _log.info("started", port=port, services=names)
    watching = asyncio.create_task(health.watch_dependencies())
    try:
        yield port
    finally:
        watching.cancel()
        await _drain(server, chassis, health, settings.drain_seconds, before_streams_end)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a service's main on uvloop."""
    # A batch makes tens of thousands of objects that live until its commit, and open streams hold a
    # million: by the usual thresholds the collector walks them over and over, a tenth of the time.
    # The first threshold is small all the same, because nothing else runs while it walks.
    gc.freeze()  # what was imported stays
    gc.set_threshold(10_000, 50, 100)
    uvloop.run(main)


def build(
    chassis: Chassis,
    health: Health,
    registrations: Sequence[Registration],
    settings: ServiceSettings,
) -> grpc.aio.Server:
    """The server with everything registered, neither bound nor started."""
    server = grpc.aio.server(
        interceptors=[chassis],
        options=_options(settings),
        maximum_concurrent_rpcs=settings.max_concurrent_calls,
    )
    for registration in registrations:
        registration.add(registration.servicer, server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    reflection.enable_server_reflection(
        (
            *(registration.service for registration in registrations),
            health_pb2.DESCRIPTOR.services_by_name["Health"].full_name,
            reflection.SERVICE_NAME,
        ),
        server,
    )
    return server


def _options(settings: ServiceSettings) -> list[tuple[str, Any]]:
    return [
        ("grpc.so_reuseport", 0),
        *SIZE_OPTIONS,
        *KEEPALIVE_OPTIONS,
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_TOLERATED_MS),
        # Beyond these gRPC drops calls that nobody took up yet, without saying why; a crowd that
        # comes back after a restart may wait its turn instead.
        ("grpc.server.max_pending_requests", settings.max_concurrent_calls),
        ("grpc.server.max_pending_requests_hard_limit", settings.max_concurrent_calls),
        # Connections end now and then, so that clients learn of new replicas.
        ("grpc.max_connection_age_ms", int(settings.max_connection_age_seconds * 1000)),
        ("grpc.max_connection_age_grace_ms", int(settings.drain_seconds * 1000)),
    ]


def _bind(server: grpc.aio.Server, settings: ServiceSettings) -> int:
    credentials = server_credentials(settings.tls)
    try:
        return server.add_secure_port(settings.listen, credentials)
    except RuntimeError as error:
        raise ConfigurationError(
            f"Cannot serve on {settings.listen}: {error}. Choose a free port, and check that the "
            "certificate and key belong together."
        ) from None


async def _drain(
    server: grpc.aio.Server,
    chassis: Chassis,
    health: Health,
    seconds: float,
    before_streams_end: Hook | None,
) -> None:
    _log.info("draining", in_flight=chassis.in_flight, seconds=seconds)
    await health.enter_graceful_shutdown()
    await asyncio.sleep(min(LAME_DUCK_SECONDS, seconds))
    if before_streams_end is not None:
        await before_streams_end()
    chassis.end_streams()
    await server.stop(seconds)
    _log.info("stopped")
