"""For tests: our servicers, behind our interceptors and mutual TLS, under pytest-grpc's fixtures.

pytest-grpc drives a blocking server. Override its one fixture `_grpc_server` with a `LoopServer`
and give its channels the credentials of the caller to act as (`mesh.tls.channel_credentials`).
"""

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health_pb2_grpc

from mesh.config import TlsFiles
from mesh.health import Health
from mesh.interceptors import Chassis
from mesh.policy import Policy, service_policies
from mesh.tls import server_credentials

Result = TypeVar("Result")

_PATIENCE_SECONDS = 30.0


class LoopServer:
    """A grpc.aio server on an event loop thread of its own, with the surface pytest-grpc uses.

    Services are registered by the generated `add_…_to_server`, their policies are read then.
    `close` ends the thread.
    """

    def __init__(self, tls: TlsFiles) -> None:
        self._tls = tls
        self._policies: dict[str, Policy] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self.run(self._build())

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Runs a coroutine on the server's loop, to open or inspect what the servicer uses."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_PATIENCE_SECONDS)

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Part of what generated code calls."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Any]) -> None:
        """Part of what generated code calls; it tells which service comes."""
        self._policies.update(service_policies(service))
        self._server.add_registered_method_handlers(service, handlers)

    def add_insecure_port(self, address: str) -> int:
        """Binds with mutual TLS all the same; the name is the one pytest-grpc calls."""
        return self._server.add_secure_port(address, server_credentials(self._tls))

    def start(self) -> None:
        """Starts serving."""
        self.run(self._server.start())

    def stop(self, grace: float | None = None) -> None:
        """Stops serving; calls in flight get `grace` seconds."""
        self.run(self._server.stop(grace))

    def close(self) -> None:
        """Ends the loop and its thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_PATIENCE_SECONDS)
        self._loop.close()

    async def _build(self) -> grpc.aio.Server:
        server = grpc.aio.server(interceptors=[Chassis(self._policies)])
        health_pb2_grpc.add_HealthServicer_to_server(Health((), {}), server)  # clients ask
        return server
