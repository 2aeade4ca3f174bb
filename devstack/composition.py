"""What the stack consists of: which processes and steps, in which order, with which environment."""

import enum
import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from devstack.certificates import Authority
from devstack.files import secret
from devstack.health import serving
from devstack.nats import NatsServer
from devstack.ports import LOOPBACK, answers
from devstack.postgres import Cluster
from devstack.process import Spec
from devstack.supervisor import Step, Supervisor

ROOT = Path(__file__).parents[1]


class Service(enum.StrEnum):
    """Our services, by the name that their certificates, databases and variables use."""

    CONNECT = "connect"
    POINTS = "points"
    NFT = "nft"
    GATEWAY = "gateway"


SERVICES = tuple(Service)
MODULES = {
    "connect": "connect_svc",
    "points": "points_svc",
    "nft": "nft_svc",
    "gateway": "chain_gateway",
}
IDENTITIES = (
    *(f"{service}/{service}" for service in SERVICES),
    "nats/nats",
    "domain-service/quest",
    "domain-service/booking",
    "bff/bff",
    "operator/ops",
    "economy-manager/manager",
)
OPERATOR = "operator/ops"
PORT_SHIFT = "DEVSTACK_PORT_SHIFT"
_PORTS = {
    **{service: 7101 + number for number, service in enumerate(SERVICES)},
    **{f"{service}-metrics": 7201 + number for number, service in enumerate(SERVICES)},
    **{f"postgres-{service}": 7301 + number for number, service in enumerate(SERVICES)},
    "nats": 7401,
    "devnet": 7501,
}

GATEWAY_FUNDS_TON = 1000  # enough for some ten thousand mints on the devnet
DRAIN_SECONDS = 5  # a developer does not wait longer for a stop
ON_PATH = {
    "PYTHONPATH": os.pathsep.join(
        filter(None, (str(ROOT), str(ROOT / "gen"), os.environ.get("PYTHONPATH")))
    )
}


def standard_ports() -> dict[str, int]:
    """The ports that a stack takes if it can.

    DEVSTACK_PORT_SHIFT moves them all, so that stacks which start at the same moment, each taking a
    port for free, do not meet.
    """
    shift = int(os.environ.get(PORT_SHIFT, "0"))
    return {name: port + shift for name, port in _PORTS.items()}


class Composition:
    """The parts of a stack that runs `services` (and only what these need) in a state folder."""

    def __init__(
        self,
        state: Path,
        ports: Mapping[str, int],
        authority: Authority,
        supervisor: Supervisor,
        services: Collection[str] = SERVICES,
    ) -> None:
        self.state = state
        self.ports = ports
        self.authority = authority
        self.services = services
        for identity in IDENTITIES:
            authority.issue(identity)
        self.clusters = {
            service: Cluster(state / "postgres" / service, ports[f"postgres-{service}"])
            for service in services
        }
        self.nats = NatsServer(state / "nats", ports["nats"], authority.issue("nats/nats"))
        self._supervisor = supervisor

    @property
    def devnet(self) -> Path:
        """The state folder of the local TON network."""
        return self.state / "devnet"

    @property
    def ton_config(self) -> Path:
        """The global-config JSON by which TON clients find the local network."""
        return self.devnet / "global.config.json"

    def address(self, service: str) -> str:
        """host:port of a service's gRPC server."""
        return f"{LOOPBACK}:{self.ports[service]}"

    def parts(self) -> list[Spec | Step]:
        """Everything to start, for the supervisor."""
        parts: list[Spec | Step] = []
        for service, cluster in self.clusters.items():
            parts.append(cluster.spec(f"postgres-{service}"))
            parts.append(self._database(service, cluster))
            parts.append(self._service(service))
        if "connect" in self.services:
            parts.append(self.nats.spec("nats", prepare=lambda _group: self.configure_nats()))
        if "gateway" in self.services:
            parts += [self._devnet(), *self._wallet()]
        return parts

    def configure_nats(self) -> None:
        """Let everybody who has a certificate onto the event bus, within their role's rights."""
        self.nats.configure(self.authority.identities())

    def environment(self, service: str) -> dict[str, str]:
        """The environment variables of a service."""
        cluster = self.clusters[service]
        tls = self.authority.issue(f"{service}/{service}")
        settings = {
            "LISTEN": self.address(service),
            "DATABASE_URL": cluster.url(service, f"{service}_app"),
            "MIGRATION_URL": cluster.url(service, f"{service}_owner"),
            "TLS_CERT": str(tls.cert),
            "TLS_KEY": str(tls.key),
            "TLS_CA": str(tls.ca),
            "METRICS_PORT": str(self.ports[f"{service}-metrics"]),
            "DRAIN_SECONDS": str(DRAIN_SECONDS),
            **self._neighbours(service),
        }
        return ON_PATH | {f"{service.upper()}_{name}": value for name, value in settings.items()}

    def _neighbours(self, service: str) -> dict[str, str]:
        match service:
            case "connect":
                return {
                    "POINTS_ADDRESS": self.address("points"),
                    "NFT_ADDRESS": self.address("nft"),
                    "GATEWAY_ADDRESS": self.address("gateway"),
                    "NATS_URL": self.nats.url,
                }
            case "nft":
                return {"GATEWAY_ADDRESS": self.address("gateway")}
            case "gateway":
                return {
                    "NFT_ADDRESS": self.address("nft"),
                    "TON_CONFIG": str(self.ton_config),
                    "WALLET_KEY_FILE": str(self.state / "gateway-wallet.key"),
                }
            case _:
                return {}

    def _database(self, service: str, cluster: Cluster) -> Step:
        def provision() -> None:
            cluster.provision(service)

        return Step(f"database-{service}", provision, after=(f"postgres-{service}",))

    def _service(self, service: str) -> Spec:
        also = {"connect": ("nats",), "gateway": ("collection",)}
        operator = self.authority.issue(OPERATOR)
        return Spec(
            service,
            [sys.executable, "-m", MODULES[service]],
            ready=lambda: serving(self.address(service), operator),
            after=(f"database-{service}", *also.get(service, ())),
            environment=self.environment(service),
        )

    def _devnet(self) -> Spec:
        port = self.ports["devnet"]
        serve = ["serve", "--state", str(self.devnet), "--port", str(port)]
        return Spec(
            "devnet",
            [sys.executable, "-m", "ton_devnet", *serve],
            ready=lambda: self.ton_config.exists() and answers(port),
            environment=ON_PATH,
        )

    def _wallet(self) -> list[Step]:
        secret(self.state / "gateway-wallet.key", size=32)
        environment = self.environment("gateway")

        def gateway(task: str, command: str) -> str:
            line = [sys.executable, "-m", MODULES["gateway"], command]
            return self._supervisor.run(task, line, environment)

        def fund() -> None:
            address = gateway("funds", "address").split()[-1]
            line = [
                sys.executable,
                "-m",
                "ton_devnet",
                "fund",
                "--up-to",
                "--state",
                str(self.devnet),
            ]
            self._supervisor.run("funds", [*line, address, str(GATEWAY_FUNDS_TON)], ON_PATH)

        def deploy() -> None:
            gateway("collection", "setup")

        return [
            Step("funds", fund, after=("devnet",)),
            Step("collection", deploy, after=("funds",)),
        ]
