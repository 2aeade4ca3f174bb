"""TCP ports on the loopback interface: the wanted one when it is free, another one when not."""

import json
import socket
from collections.abc import Mapping
from pathlib import Path

from devstack.files import write

LOOPBACK = "127.0.0.1"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether a server could listen on this port now."""
    with socket.socket() as probe:
        # Servers set the same option, so a connection in TIME_WAIT does not count as taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    """Whether somebody accepts connections on this port."""
    try:
        socket.create_connection((LOOPBACK, port), timeout=2).close()
    except OSError:
        return False
    return True


def choose_ports(standard: Mapping[str, int], memory: Path) -> dict[str, int]:
    """One free port per name: the one of the last run, else the standard one, else any.

    The choice is kept in `memory` (JSON), so that addresses stay the same from run to run.
    """
    last: dict[str, int] = json.loads(memory.read_text()) if memory.exists() else {}
    chosen: dict[str, int] = {}
    for name, wanted in standard.items():
        candidates = (last.get(name, wanted), wanted)
        taken = set(chosen.values())
        chosen[name] = next(
            (port for port in candidates if port not in taken and is_free(port)), 0
        ) or _unused(taken | set(standard.values()))
    write(memory, json.dumps(chosen, indent=2) + "\n")
    return chosen


def _unused(taken: set[int]) -> int:
    while (port := free_port()) in taken:
        pass
    return port
