"""grpc.health.v1 for a server: what its probes say, and NOT_SERVING from the first moment of drain.

The empty service name stands for the whole server.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2

from mesh import telemetry

Probe = Callable[[], Awaitable[None]]

PROBE_EVERY_SECONDS = 1.0
PROBE_TIMEOUT_SECONDS = 2.0

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = telemetry.logger("health")


class Health(health.aio.HealthServicer):
    """The health servicer of one server.

    `probes` by the name of the dependency; each raises, or hangs, when that one is gone.
    """

    def __init__(self, services: Sequence[str], probes: Mapping[str, Probe]) -> None:
        super().__init__()
        self._names = ("", *services)
        self._probes = probes
        self._ailing: dict[str, str] | None = None

    async def List(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802
        """All services and their states."""
        states = {
            name: await self.Check(health_pb2.HealthCheckRequest(service=name), context)
            for name in self._names
        }
        # The published type stubs predate List.
        return health_pb2.HealthListResponse(statuses=states)  # type: ignore[attr-defined]

    async def probe(self) -> None:
        """Asks every dependency once, all at the same time, and shows the outcome."""
        answers = await asyncio.gather(*(self._ask(ask) for ask in self._probes.values()))
        ailing = {name: fault for name, fault in zip(self._probes, answers, strict=True) if fault}
        if ailing == self._ailing:
            return
        for name in self._names:
            await self.set(name, _NOT_SERVING if ailing else _SERVING)
        if ailing:
            _log.warning("not_serving", ailing=ailing)
        else:
            _log.info("serving")
        self._ailing = ailing

    async def watch_dependencies(self) -> None:
        """Probes for ever."""
        while True:
            await asyncio.sleep(PROBE_EVERY_SECONDS)
            await self.probe()

    @staticmethod
    async def _ask(ask: Probe) -> str:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_SECONDS):
                await ask()
        except TimeoutError:
            return f"no answer within {PROBE_TIMEOUT_SECONDS:.0f} s"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return ""
