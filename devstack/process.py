"""One child process: what to run, and the running of it."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devstack.watchdog import Watchdog

LOG_CAP = 10_000_000  # bytes; one older file of this size is kept


def _nothing(_group: int) -> None: ...


class StartError(RuntimeError):
    """A part of the stack did not start; the message says which, and its last words."""


@dataclass(frozen=True)
class Spec:
    """A process to run: its command, when it may start and when it counts as ready.

    `prepare` runs before every start, and is given the process group that any child of its own must
    join. `ready` is asked again and again; it must answer within a
    few seconds. `after` names the processes and steps that must be ready first.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool]
    after: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[int], None] = _nothing
    stop_signal: signal.Signals = signal.SIGTERM
    ready_within: float = 60  # seconds


class Process:
    """The running (or dead) process of a Spec; its output goes to `log`."""

    def __init__(self, spec: Spec, log: Path, watchdog: Watchdog) -> None:
        self.spec = spec
        self.log = log
        self._watchdog = watchdog
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._child.pid if self._child is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended (negative: by that signal), or None."""
        return None if self._child is None else self._child.poll()

    def start(self) -> None:
        """Prepare and start; does not wait until ready."""
        self.spec.prepare(self._watchdog.group)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.spec.command,
                env={**os.environ, **self.spec.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Not our own group: Ctrl-C in a terminal is ours to turn into an orderly stop.
                process_group=self._watchdog.group,
            )

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the process has ended; False when it still runs after `timeout` seconds."""
        if self._child is not None:
            try:
                self._child.wait(timeout)
            except subprocess.TimeoutExpired:
                return False
        return True

    def send(self, sign: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._child is not None:
            self._child.send_signal(sign)

    def stop(self, patience: float = 15, insistence: float = 6) -> None:
        """Ask to stop; after `patience` seconds insist (SIGQUIT), after `insistence` more kill.

        Returns when the process is gone.
        """
        for sign, seconds in (
            (self.spec.stop_signal, patience),
            (signal.SIGQUIT, insistence),
            (signal.SIGKILL, 6),
        ):
            self.send(sign)
            if self.wait(seconds):
                return

    def start_and_wait(self, give_up: Callable[[], bool] = lambda: False) -> None:
        """Start and return once ready.

        Raises StartError when it ends first, takes too long (it is stopped then) or `give_up()`.
        """
        self.start()
        deadline = time.monotonic() + self.spec.ready_within
        while self.running and time.monotonic() < deadline and not give_up():
            if self.spec.ready():
                return
            time.sleep(0.05)
        code = self.exit_code
        fate = f"not ready after {self.spec.ready_within:.0f} s"
        if code is not None:
            fate = f"ended with code {code} before it was ready"
        self.stop(patience=1)
        raise StartError(f"{self.spec.name}: {fate}.\nThe end of {self.log}:\n{self.log_tail()}")

    def log_tail(self, size: int = 2000) -> str:
        """The last `size` bytes of the log."""
        if not self.log.exists():
            return ""
        return self.log.read_bytes()[-size:].decode(errors="replace")

    def cap_log(self) -> None:
        """Move the log aside when it has grown beyond LOG_CAP.

        Copied and truncated, not renamed: the process keeps its descriptor (opened for append).
        """
        if self.log.exists() and self.log.stat().st_size > LOG_CAP:
            shutil.copyfile(self.log, self.log.with_suffix(".log.1"))
            os.truncate(self.log, 0)
