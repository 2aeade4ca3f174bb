"""Starts processes and one-off steps in dependency order, restarts what dies, stops it all.

Each process has a thread that does one thing after the other: wait until the process ends, back
off, start it again.
"""

import enum
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

from devstack.process import Process, Spec, StartError
from devstack.watchdog import Watchdog

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0  # seconds before a restart; doubles each time
STEADY = 30.0  # seconds of running after which the next pause is short again
HOUSEKEEPING = 5.0  # seconds between looks at the size of the logs


@dataclass(frozen=True)
class Step:
    """Something to do once, between the starts of processes."""

    name: str
    run: Callable[[], None]
    after: tuple[str, ...] = ()


class State(enum.StrEnum):
    """Where a supervised process stands."""

    STARTING = "starting"
    HEALTHY = "healthy"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class Supervised:
    """One process that is kept running until `stop`; `changed` hears of each change of state."""

    def __init__(self, process: Process, changed: Callable[["Supervised", str], None]) -> None:
        self.process = process
        self.state = State.STOPPED
        self.restarts = 0
        self._tell = changed
        self._news = threading.Condition()
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name=process.spec.name, daemon=True)

    def start(self) -> None:
        """Start and return once ready; from then on it is restarted whenever it ends.

        Raises StartError when this first start fails.
        """
        self._enter(State.STARTING, "starting")
        self._launch()
        self._keeper.start()

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the process itself; after SIGKILL, return when its end was noticed."""
        restarts = self.restarts
        self.process.send(sign)
        if sign is signal.SIGKILL:
            with self._news:
                self._news.wait_for(lambda: self.restarts > restarts, 10)

    def wait_healthy(self, within: float) -> bool:
        """Wait until the process runs and is ready; False when it is not after `within` seconds.

        It is asked anew: a service may run and still look for its restarted database.
        """
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            with self._news:
                self._news.wait_for(
                    lambda: self.state is State.HEALTHY, deadline - time.monotonic()
                )
            if self.state is State.HEALTHY and self.process.spec.ready():
                return True
            time.sleep(0.05)
        return False

    def interrupt(self) -> None:
        """Make a start that is under way give up, and start no more."""
        self._stopping.set()

    def stop(self) -> None:
        """Stop for good; returns when the process is gone."""
        self.interrupt()
        with self._starting:  # nobody is between the decision to start and the start
            self.process.stop()
        if self.state is not State.STOPPED:
            self._enter(State.STOPPED, "stopped")

    def _launch(self) -> None:
        began = time.monotonic()
        with self._starting:
            if self._stopping.is_set():
                return
            self.process.start_and_wait(self._stopping.is_set)
        self._enter(State.HEALTHY, f"ready after {time.monotonic() - began:.1f} s")

    def _keep(self) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            while not self.process.wait(HOUSEKEEPING):
                self.process.cap_log()
            if time.monotonic() - began > STEADY:
                pause = FIRST_PAUSE
            if self._stopping.is_set():
                return
            self.restarts += 1
            fate = f"ended with code {self.process.exit_code}"
            self._enter(State.RESTARTING, f"{fate}; restart {self.restarts} in {pause:.1f} s")
            if self._stopping.wait(pause):
                return
            pause = min(2 * pause, LONGEST_PAUSE)
            try:
                self._launch()
            except (StartError, OSError) as error:
                self._tell(self, str(error).partition("\n")[0])

    def _enter(self, state: State, why: str) -> None:
        with self._news:
            self.state = state
            self._news.notify_all()
        self._tell(self, why)


class Supervisor:
    """A set of processes and steps; logs go to `<logs>/<name>.log`.

    `report` is told a name and what happened to it, once for each event; it is called from several
    threads.
    """

    def __init__(self, logs: Path, watchdog: Watchdog, report: Callable[[str, str], None]) -> None:
        self.logs = logs
        self.processes: dict[str, Supervised] = {}
        self._watchdog = watchdog
        self._report = report
        self._stopping = threading.Event()
        self._order: dict[str, tuple[str, ...]] = {}

    def start(self, parts: Sequence[Spec | Step]) -> None:
        """Start and run everything, in parallel as far as `after` allows; return when all is ready.

        Raises StartError (or what a step raised) on the first failure; what was started by then
        runs on until `stop`.
        """
        by_name = {part.name: part for part in parts}
        self._order = {part.name: part.after for part in parts}
        for part in parts:
            if isinstance(part, Spec):
                process = Process(part, self.logs / f"{part.name}.log", self._watchdog)
                self.processes[part.name] = Supervised(process, self._changed)
        self._walk(self._order, lambda name: self._bring_up(by_name[name]))

    def run(self, name: str, command: Sequence[str], environment: Mapping[str, str]) -> str:
        """Run a one-off command under the same guard; returns what it printed to stdout.

        Its stderr goes to the log of that name. Raises StartError when it fails.
        """
        log = self.logs / f"{name}.log"
        with log.open("ab") as errors:
            child = subprocess.Popen(
                command,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                process_group=self._watchdog.group,
            )
            while True:
                try:
                    output, _ = child.communicate(timeout=0.2)
                    break
                except subprocess.TimeoutExpired:
                    if self._stopping.is_set():
                        child.kill()
        if child.returncode != 0:
            tail = log.read_text(errors="replace")[-2000:]
            raise StartError(
                f"{name}: ended with code {child.returncode}.\nThe end of {log}:\n{tail}"
            )
        return output

    def stop(self) -> None:
        """Stop everything, users of a part before the part itself."""
        self._interrupt()
        users: dict[str, list[str]] = {name: [] for name in self._order}
        for name, needed in self._order.items():
            for other in needed:
                users[other].append(name)
        self._walk(users, self._take_down)

    def _interrupt(self) -> None:
        self._stopping.set()
        for process in self.processes.values():
            process.interrupt()

    def _bring_up(self, part: Spec | Step) -> None:
        if self._stopping.is_set():
            raise StartError("The start was broken off.")
        if isinstance(part, Spec):
            self.processes[part.name].start()
            return
        began = time.monotonic()
        part.run()
        self._report(part.name, f"done after {time.monotonic() - began:.1f} s")

    def _walk(self, needs: Mapping[str, Collection[str]], visit: Callable[[str], None]) -> None:
        """Call `visit` for each name once all it needs were visited; in parallel where possible."""
        sorter = TopologicalSorter(needs)
        sorter.prepare()
        running: dict[Future[None], str] = {}
        with ThreadPoolExecutor(max_workers=max(1, len(needs))) as pool:
            try:
                while sorter.is_active():
                    for name in sorter.get_ready():
                        running[pool.submit(visit, name)] = name
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        future.result()
                        sorter.done(running.pop(future))
            except BaseException:
                self._interrupt()  # or leaving the pool would wait for every start under way
                raise

    def _take_down(self, name: str) -> None:
        if name in self.processes:
            self.processes[name].stop()

    def _changed(self, process: Supervised, why: str) -> None:
        if process.state is not State.STARTING:
            self._report(process.process.spec.name, why)
