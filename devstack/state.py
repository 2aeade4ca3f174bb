"""The state folder: who may use it, and what other commands learn about the running stack."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from devstack.files import write


class StackRunningError(RuntimeError):
    """Another stack uses the state folder."""


class StateFolder:
    """A folder held by one stack at a time.

    `lock` is an open descriptor of its lock file. The lock lives as long as any process has the
    descriptor: the watchdog gets it too, so the folder stays taken until the last process of a
    killed stack is gone.
    """

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.lock = lock

    def folder(self, *parts: str) -> Path:
        """A subfolder, created when missing."""
        path = self.path.joinpath(*parts)
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    def publish(self, status: dict[str, Any]) -> None:
        """Let `python -m devstack status` see this."""
        write(self.path / "status.json", json.dumps(status, indent=2) + "\n")


@contextmanager
def take(path: Path, *, patience: float = 10) -> Iterator[StateFolder]:
    """Hold the folder, created if need be.

    Raises StackRunningError when a stack is alive there, or when what a killed one left behind is
    not gone after `patience` seconds.
    """
    path = path.resolve()
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait_for(lock, path, patience)
        os.truncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        yield StateFolder(path, lock)
    finally:
        os.close(lock)


def running_pid(path: Path) -> int | None:
    """The process id of the stack that uses the folder now; None when there is none alive."""
    try:
        pid = int((path / "lock").read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid if _taken(path / "lock") else None


def published(path: Path) -> dict[str, Any]:
    """What the running stack last published; empty when none runs."""
    if running_pid(path) is None or not (path / "status.json").exists():
        return {}
    status: dict[str, Any] = json.loads((path / "status.json").read_text())
    return status


def _taken(lock_file: Path) -> bool:
    with lock_file.open() as file:
        return not _locked(file.fileno())


def _wait_for(lock: int, path: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while not _locked(lock):
        holder = running_pid(path)
        if holder is not None or time.monotonic() > deadline:
            raise StackRunningError(
                f"A stack already runs in {path} (process {holder or 'unknown'}). Stop it with "
                f"`python -m devstack down --state {path}`, or use another --state folder."
            )
        time.sleep(0.1)


def _locked(descriptor: int) -> bool:
    """Take the lock, if nobody has it; closing the descriptor gives it back."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
