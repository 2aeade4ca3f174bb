"""Channels to other services, for plain generated stubs.

    async with open_channel(settings.points_address, settings.tls) as channel:
        response = await points_pb2_grpc.PointsServiceStub(channel).GetBalance(request)

Such a call has a deadline, is repeated where its policy allows, continues the trace, and raises a
`MeshError` of the class the peer raised; never a `grpc.RpcError`.
"""

import ipaddress
import json
import socket
from collections.abc import Sequence
from datetime import timedelta

import grpc

from mesh.client_interceptors import StreamCalls, UnaryCalls
from mesh.config import ConfigurationError, TlsFiles
from mesh.tls import channel_credentials
from mesh.wire import KEEPALIVE_OPTIONS, SIZE_OPTIONS

# Every server answers for itself under the empty name; one that drains is left before it stops.
_SERVICE_CONFIG = json.dumps(
    {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": ""}}
)


def open_channel(
    address: str, tls: TlsFiles, *, retry_for: timedelta | None = None
) -> grpc.aio.Channel:
    """A channel to one service: an async context manager for stubs.

    `address` is "host:port", re-resolved by DNS for ever, or a fixed list "host:port,host:port"
    resolved once, now; calls go round the healthy ones. The certificate of every server must name
    the first host. `retry_for` lets one call repeat its attempts, each within the method's default
    deadline, for longer than that deadline; without it the default deadline covers them all.

    Raises `ConfigurationError` for an address that cannot be understood or resolved.
    """
    endpoints = [_split(endpoint.strip()) for endpoint in address.split(",")]
    return grpc.aio.secure_channel(
        _target(endpoints),
        channel_credentials(tls),
        options=[
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.enable_retries", 0),  # UnaryCalls is the only layer that retries
            ("grpc.default_authority", endpoints[0][0]),
            *SIZE_OPTIONS,
            *KEEPALIVE_OPTIONS,
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ],
        interceptors=[UnaryCalls(retry_for), StreamCalls()],
    )


def _split(endpoint: str) -> tuple[str, str]:
    host, separator, port = endpoint.rpartition(":")
    if not separator or not host or not port.isdigit():
        raise ConfigurationError(
            f"{endpoint!r} is no address; write host:port, or host:port,host:port."
        )
    return host, port


def _target(endpoints: Sequence[tuple[str, str]]) -> str:
    if len(endpoints) == 1:
        return "dns:///{}:{}".format(*endpoints[0])
    return "ipv4:" + ",".join(f"{_resolve(host, port)}:{port}" for host, port in endpoints)


def _resolve(host: str, port: str) -> str:
    try:
        return str(ipaddress.IPv4Address(host))
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigurationError(
            f"Cannot resolve {host}: {error.strerror}; list hosts with an IPv4 address."
        ) from None
    return str(found[0][4][0])
