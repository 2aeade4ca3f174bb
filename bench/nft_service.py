"""One NFT process to measure: started, killed and started again; and channels to it."""

import os
import signal
import sys
from pathlib import Path

import grpc

from devstack.certificates import Authority
from devstack.health import serving
from devstack.ports import free_port
from devstack.postgres import Cluster
from devstack.process import Process, Spec
from devstack.watchdog import Watchdog
from mesh.client import open_channel


class NftService:
    """`python -m nft_svc` on a database of the cluster; its log is in `folder`."""

    def __init__(
        self,
        folder: Path,
        cluster: Cluster,
        database: str,
        authority: Authority,
        watchdog: Watchdog,
        **settings: int | float,
    ) -> None:
        port = free_port()
        self.address = f"localhost:{port}"
        self._authority = authority
        tls, operator = authority.issue("nft/nft"), authority.issue("operator/bench")
        environment = {
            "LISTEN": f"127.0.0.1:{port}",
            "DATABASE_URL": cluster.url(database, "nft_app"),
            "TLS_CERT": str(tls.cert),
            "TLS_KEY": str(tls.key),
            "TLS_CA": str(tls.ca),
            "GATEWAY_ADDRESS": f"localhost:{free_port()}",  # never called: nothing is queued
            "LOG_LEVEL": "warning",
            **{name.upper(): str(value) for name, value in settings.items()},
        }
        self._process = Process(
            Spec(
                f"nft-{database}",
                [sys.executable, "-m", "nft_svc"],
                ready=lambda: serving(f"127.0.0.1:{port}", operator),
                environment={f"NFT_{name}": value for name, value in environment.items()},
            ),
            folder / f"nft-{database}.log",
            watchdog,
        )

    def start(self) -> None:
        """Returns once it serves."""
        self._process.start_and_wait()

    def kill(self) -> None:
        """As `kill -9` does; returns once it is gone."""
        self._process.send(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ends it in order."""
        self._process.stop()

    def channel(self, identity: str) -> grpc.aio.Channel:
        """A channel of `<role>/<name>`."""
        return open_channel(self.address, self._authority.issue(identity))

    @property
    def resident_bytes(self) -> int:
        """What of its memory is in RAM."""
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
