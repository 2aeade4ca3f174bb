"""The whole stack as one object: start it, find your way in it, break it, stop it."""

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from devstack.certificates import Authority
from devstack.composition import ROOT, SERVICES, Composition, standard_ports
from devstack.nats import permissions
from devstack.ports import LOOPBACK, choose_ports
from devstack.postgres import Cluster
from devstack.state import StateFolder, take
from devstack.supervisor import Supervisor
from devstack.watchdog import Watchdog
from mesh.config import TlsFiles

DEFAULT_STATE = ROOT / ".dev"
Report = Callable[[str, str], None]


class Progress:
    """Prints one line per event, with the seconds since the start."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __call__(self, name: str, event: str) -> None:
        # The reader of a pipe may end on the same Ctrl-C; we still have to stop in order.
        with contextlib.suppress(BrokenPipeError):
            print(f"{time.monotonic() - self._began:6.1f} s  {name:<18} {event}", flush=True)


class Stack:
    """A running stack on a state folder; may be used from any thread.

    Processes are named `connect`, `points`, `nft`, `gateway`, `postgres-<service>`, `nats` and
    `devnet`.
    """

    def __init__(
        self, folder: StateFolder, watchdog: Watchdog, services: Collection[str], report: Report
    ) -> None:
        self._folder = folder
        self._report = report
        self._watchdog = watchdog
        self._publishing = threading.Lock()
        self._supervisor = Supervisor(self.logs, watchdog, self._event)
        self._composition = Composition(
            folder.path,
            choose_ports(standard_ports(), folder.path / "ports.json"),
            Authority(folder.path / "certificates"),
            self._supervisor,
            services,
        )

    @classmethod
    @contextmanager
    def running(
        cls,
        state: Path = DEFAULT_STATE,
        *,
        services: Collection[str] = SERVICES,
        report: Report | None = None,
    ) -> Iterator[Self]:
        """A stack that is started on entry and stopped on exit.

        `services` limits it to some services and what these need; `report` hears a name and what
        happened to it (default: printed). Raises StackRunningError when the state folder is in
        use, and StartError when a part does not start; nothing is left running then.
        """
        with take(state) as folder, Watchdog(folder.lock) as watchdog:
            stack = cls(folder, watchdog, services, report or Progress())
            try:
                stack._supervisor.start(stack._composition.parts())
                yield stack
            finally:
                stack._supervisor.stop()

    @property
    def guarded(self) -> bool:
        """Whether everything would be cleared away if this process were killed now."""
        return self._watchdog.alive

    @property
    def logs(self) -> Path:
        """The folder with one `<name>.log` per process."""
        return self._folder.folder("logs")

    @property
    def certificates(self) -> Path:
        """The folder with `ca.pem` and `<role>/<name>.{pem,key}`."""
        return self._folder.folder("certificates")

    @property
    def nats_url(self) -> str:
        """Where the event bus listens."""
        return self._composition.nats.url

    @property
    def ton_config(self) -> Path:
        """The global-config JSON of the local TON network."""
        return self._composition.ton_config

    def address(self, service: str) -> str:
        """host:port of a service's gRPC server."""
        return self._composition.address(service)

    def metrics_url(self, service: str) -> str:
        """Where Prometheus would scrape a service."""
        return f"http://{LOOPBACK}:{self._composition.ports[f'{service}-metrics']}/metrics"

    def cluster(self, service: str) -> Cluster:
        """The Postgres cluster of a service; `cluster.url(service)` is the superuser's."""
        return self._composition.clusters[service]

    def tls(self, identity: str) -> TlsFiles:
        """The certificate of `<role>/<name>`; one that is new is let onto the event bus too."""
        known = identity in self._composition.authority.identities()
        files = self._composition.authority.issue(identity)
        if not known and permissions(identity) and "nats" in self._supervisor.processes:
            self._admit(files)
        return files

    def pid(self, name: str) -> int | None:
        """The process id of a process; None while it is not running."""
        return self._supervisor.processes[name].process.pid

    def restarts(self, name: str) -> int:
        """How often a process was restarted."""
        return self._supervisor.processes[name].restarts

    def kill(self, name: str, sign: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to a process; after SIGKILL it is restarted, see `wait_healthy`."""
        self._supervisor.processes[name].kill(sign)

    def wait_healthy(self, name: str, within: float = 30) -> None:
        """Wait until a process is ready (again).

        Raises TimeoutError when it is not after `within` seconds.
        """
        if not self._supervisor.processes[name].wait_healthy(within):
            raise TimeoutError(
                f"{name} is not healthy after {within} s; see {self.logs}/{name}.log"
            )

    def status(self) -> list[dict[str, Any]]:
        """name, state, pid and restarts of every process."""
        return [
            {
                "name": name,
                "state": supervised.state,
                "pid": supervised.process.pid,
                "restarts": supervised.restarts,
                "port": self._composition.ports[name],
            }
            for name, supervised in self._supervisor.processes.items()
        ]

    def _admit(self, files: TlsFiles) -> None:
        nats = self._composition.nats
        self._composition.configure_nats()
        self.kill("nats", signal.SIGHUP)
        deadline = time.monotonic() + 10
        while not nats.admits(files):
            if time.monotonic() > deadline:
                raise TimeoutError(f"NATS does not let {files.cert} in; see {self.logs}/nats.log.")
            time.sleep(0.02)

    def _event(self, name: str, event: str) -> None:
        with self._publishing:
            self._report(name, event)
            self._folder.publish({"processes": self.status()})
