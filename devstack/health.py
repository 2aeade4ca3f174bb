"""Asks a service whether it serves, the way an operator would: grpc.health.v1 over mTLS."""

from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mesh.config import TlsFiles
from mesh.tls import channel_credentials


def serving(address: str, tls: TlsFiles, *, timeout: float = 2) -> bool:
    """Whether the server at `address` answers SERVING within `timeout` seconds."""
    with grpc.secure_channel(address, channel_credentials(tls)) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)  # its stubs do not list the methods
        try:
            answer = health.Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
