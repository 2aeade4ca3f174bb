"""The processes of a small mesh on one cluster: Points, NFT, and any number of Connects."""

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import grpc

from devstack.certificates import Authority
from devstack.health import serving
from devstack.ports import free_port
from devstack.postgres import Cluster
from devstack.process import Process, Spec
from devstack.watchdog import Watchdog
from mesh.client import open_channel
from mesh.migrate import migrate

PACKAGES = {"connect": "connect_svc", "points": "points_svc", "nft": "nft_svc"}


class Services:
    """Starts services; `cleanup` ends them. Logs are in `folder`."""

    def __init__(self, folder: Path, cluster: Cluster, cleanup: ExitStack) -> None:
        self.cluster = cluster
        self._folder = folder
        self._cleanup = cleanup
        self._authority = Authority(folder / "authority")
        self._watchdog = Watchdog()
        cleanup.callback(self._watchdog.close)
        self._nowhere = f"127.0.0.1:{free_port()}"  # for what a benchmark does without

    async def database(self, name: str, kind: str) -> str:
        """A new database of that name with the tables of a service."""
        self.cluster.create_database(name)
        await migrate(PACKAGES[kind], self.cluster.url(name))
        return name

    def start(
        self, kind: str, database: str, *, program: str = "", settings: Mapping[str, str]
    ) -> str:
        """Starts a service on its database and returns the address once it serves.

        `program` is the module to run, the service itself unless given.
        """
        address = f"127.0.0.1:{free_port()}"
        tls, operator = self._authority.issue(f"{kind}/{kind}"), self._authority.issue(OPERATOR)
        environment = {
            "LISTEN": address,
            "DATABASE_URL": self.cluster.url(database, f"{kind}_app"),
            "TLS_CERT": str(tls.cert),
            "TLS_KEY": str(tls.key),
            "TLS_CA": str(tls.ca),
            "LOG_LEVEL": "error",
            **settings,
        }
        process = Process(
            Spec(
                f"{kind} {database}",
                [sys.executable, "-m", program or PACKAGES[kind]],
                ready=lambda: serving(address, operator),
                environment={f"{kind.upper()}_{key}": each for key, each in environment.items()},
            ),
            self._folder / f"{database}-{address.rpartition(':')[2]}.log",
            self._watchdog,
        )
        process.start_and_wait()
        self._cleanup.callback(process.stop)
        return address

    def points(self) -> dict[str, str]:
        """Starts Points; returns what a Connect must know of it."""
        return {"POINTS_ADDRESS": self.start("points", "points", settings={})}

    def nft(self) -> dict[str, str]:
        """Starts NFT; returns what a Connect must know of it."""
        settings = {"GATEWAY_ADDRESS": self._nowhere}
        return {"NFT_ADDRESS": self.start("nft", "nft", settings=settings)}

    def connect(self, database: str, known: Mapping[str, str], *, program: str = "") -> str:
        """Starts a Connect, or `program` in its place, that knows the others."""
        settings = {**known, "NATS_URL": f"tls://{self._nowhere}"}
        return self.start("connect", database, program=program, settings=settings)

    def channel(self, address: str, identity: str) -> grpc.aio.Channel:
        """A channel of `<role>/<name>`, over all addresses if there are several."""
        return open_channel(address, self._authority.issue(identity))


OPERATOR = "operator/bench"
