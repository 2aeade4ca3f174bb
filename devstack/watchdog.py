"""A small process that ends everything we started when we vanish, even by SIGKILL.

It leads a process group that every child joins at birth (so there is no moment at which a child
is unguarded), and holds the reading end of a pipe whose writing end only we have. When we end,
however we end, the pipe closes and the watchdog ends the group. Linux's PR_SET_PDEATHSIG would be
simpler, but it is tied to the thread that forked and unknown to macOS.

Postgres backends leave the group (each is a session of its own); they end with their postmaster,
which passes SIGQUIT on to them.

Run as a script, it imports the standard library alone, so that it starts in milliseconds.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from types import TracebackType
from typing import Self

# Polite, then Postgres's "immediate shutdown" (crash-safe), then by force: 6 s in all.
LAST_RITES = ((signal.SIGTERM, 3.0), (signal.SIGQUIT, 2.0), (signal.SIGKILL, 1.0))


class Watchdog:
    """The guarded process group of this process; a context manager.

    `keep_open` are file descriptors that stay open until the group is gone, such as the lock of
    the state folder.
    """

    def __init__(self, *keep_open: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            process_group=0,
            pass_fds=keep_open,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()  # from here on it ignores the signals it sends

    @property
    def group(self) -> int:
        """The process group that children must join (`process_group=` of Popen)."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the watchdog still guards."""
        return self._process.poll() is None

    def close(self) -> None:
        """End whatever is left of the group, at once, and the watchdog with it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, signal.SIGKILL)
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _guard() -> None:
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(sign, signal.SIG_IGN)
    sys.stdout.write("guarding\n")
    sys.stdout.flush()
    sys.stdin.read()
    group = os.getpgrp()
    # Step out of the group, so that it is empty once the others are gone.
    if os.fork():
        os._exit(0)
    os.setsid()
    for sign, patience in LAST_RITES:
        deadline = time.monotonic() + patience
        try:
            os.killpg(group, sign)
            while time.monotonic() < deadline:
                time.sleep(0.05)
                os.killpg(group, 0)
        except ProcessLookupError:
            return


if __name__ == "__main__":
    _guard()
