"""The supervisor with real processes: order, restarts, failures, and nothing left behind."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devstack import process
from devstack.ports import free_port
from devstack.postgres import Cluster
from devstack.process import Process, Spec, StartError
from devstack.state import StackRunningError, published, running_pid, take
from devstack.supervisor import State, Step, Supervisor
from devstack.watchdog import Watchdog

SLEEP = ("sleep", "1000")
BUSY = "SELECT count(*) FROM generate_series(1, 1e12)"


class Events(list[tuple[str, str]]):
    """What the supervisor reported."""

    def __call__(self, name: str, event: str) -> None:
        self.append((name, event))

    def names(self, prefix: str) -> list[str]:
        return [name for name, event in self if event.startswith(prefix)]


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def supervisor(tmp_path: Path, events: Events) -> Iterator[Supervisor]:
    with Watchdog() as watchdog:
        supervisor = Supervisor(tmp_path, watchdog, events)
        yield supervisor
        supervisor.stop()


def shell(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def eventually(condition: Callable[[], bool], within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def command_lines_with(text: str) -> list[str]:
    """Command lines and titles of live processes that contain `text`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line:
            found.append(line)
    return found


def test_starts_what_is_needed_first_and_stops_it_last(
    supervisor: Supervisor, events: Events, tmp_path: Path
) -> None:
    ready = tmp_path / "ready"
    supervisor.start(
        [
            Spec("service", SLEEP, ready=lambda: True, after=("step",)),
            Step("step", lambda: (tmp_path / "made").touch(), after=("store",)),
            Spec("store", shell(f"sleep 0.2; touch {ready}; exec sleep 1000"), ready=ready.exists),
        ]
    )
    assert [name for name, _ in events] == ["store", "step", "service"]
    assert (tmp_path / "made").exists()
    supervisor.stop()
    assert events.names("stopped") == ["service", "store"]


def test_independent_parts_start_side_by_side(supervisor: Supervisor) -> None:
    began = time.monotonic()
    supervisor.start([Step(f"step-{number}", lambda: time.sleep(0.4)) for number in range(5)])
    assert time.monotonic() - began < 1.5


def test_a_killed_process_is_restarted_and_counted(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(
        [
            Spec("victim", SLEEP, ready=lambda: True),
            Spec("neighbour", SLEEP, ready=lambda: True, after=("victim",)),
        ]
    )
    victim, neighbour = supervisor.processes["victim"], supervisor.processes["neighbour"]
    before, next_door = victim.process.pid, neighbour.process.pid
    victim.kill()
    assert victim.wait_healthy(5)
    assert (victim.restarts, neighbour.restarts) == (1, 0)
    assert victim.process.pid not in (None, before)
    assert neighbour.process.pid == next_door


def test_restarts_that_fail_are_tried_again_with_growing_pauses(
    supervisor: Supervisor, events: Events, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    script = f"test -e {broken} && exit 3; exec sleep 1000"
    supervisor.start([Spec("flaky", shell(script), ready=lambda: not broken.exists())])
    flaky = supervisor.processes["flaky"]
    broken.touch()
    flaky.kill()
    assert eventually(lambda: flaky.restarts >= 3)
    broken.unlink()
    assert flaky.wait_healthy(5)
    pauses = [event for _, event in events if "; restart" in event]
    assert pauses[0] == "ended with code -9; restart 1 in 0.2 s"
    assert pauses[2] == "ended with code 3; restart 3 in 0.8 s"


def test_a_failed_start_shows_the_log_and_leaves_nothing(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    good = Spec("good", SLEEP, ready=lambda: True)
    bad = Spec("bad", shell("echo no such luck; exit 7"), ready=lambda: False, after=("good",))
    slow = Spec("slow", SLEEP, ready=lambda: False, after=("good",))
    with pytest.raises(StartError, match=r"(?s)bad: ended with code 7.*no such luck"):
        supervisor.start([good, bad, slow])
    supervisor.stop()
    assert all(one.process.pid is None for one in supervisor.processes.values())
    assert {one.state for one in supervisor.processes.values()} == {State.STOPPED}


def test_a_process_that_never_gets_ready_fails_the_start(supervisor: Supervisor) -> None:
    with pytest.raises(StartError, match="mute: not ready after 0 s"):
        supervisor.start([Spec("mute", SLEEP, ready=lambda: False, ready_within=0.3)])


def test_one_off_commands_return_their_output_or_fail(supervisor: Supervisor) -> None:
    assert supervisor.run("task", shell("echo $WORD"), {"WORD": "EQaddress"}) == "EQaddress\n"
    with pytest.raises(StartError, match=r"(?s)task: ended with code 4.*broke"):
        supervisor.run("task", shell("echo broke >&2; exit 4"), {})


def test_who_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    script = f"trap '' TERM QUIT; touch {ready}; while true; do sleep 0.1; done"
    with Watchdog() as watchdog:
        stubborn = Process(
            Spec("stubborn", shell(script), ready=ready.exists), tmp_path / "log", watchdog
        )
        stubborn.start_and_wait()
        stubborn.stop(patience=0.2, insistence=0.2)
        assert stubborn.exit_code == -signal.SIGKILL


def test_a_log_beyond_its_cap_is_moved_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "LOG_CAP", 100)
    log, go, done = tmp_path / "chatty.log", tmp_path / "go", tmp_path / "done"
    script = f"seq 100; touch {done}; until test -e {go}; do sleep 0.02; done; echo last"
    with Watchdog() as watchdog:
        chatty = Process(Spec("chatty", shell(script), ready=done.exists), log, watchdog)
        chatty.start_and_wait()
        chatty.cap_log()
        go.touch()
        chatty.wait(5)
    assert log.read_text() == "last\n"
    assert (tmp_path / "chatty.log.1").read_text().endswith("100\n")


def test_a_state_folder_serves_one_stack(tmp_path: Path) -> None:
    with take(tmp_path) as folder:
        folder.publish({"processes": []})
        assert running_pid(tmp_path) == os.getpid()
        assert published(tmp_path) == {"processes": []}
        with (
            pytest.raises(StackRunningError, match=r"already runs .*devstack down"),
            take(tmp_path),
        ):
            pass
    assert running_pid(tmp_path) is None
    assert published(tmp_path) == {}
    with take(tmp_path):
        pass


def doomed_stack(state: Path) -> None:
    """A stack that will be killed: a Postgres at work, and one that hears no polite word."""
    stubborn = shell(f"trap '' TERM QUIT HUP INT; while true; do sleep 0.1; done # {state}")
    cluster = Cluster(state / "cluster", free_port())
    at_work = f"import psycopg; psycopg.connect('{{}}').execute('{BUSY}') # {state}"
    with take(state) as folder, Watchdog(folder.lock) as watchdog:
        supervisor = Supervisor(folder.folder("logs"), watchdog, lambda _name, _event: None)
        supervisor.start([cluster.spec("postgres"), Spec("stubborn", stubborn, lambda: True)])
        url = cluster.url().replace("+psycopg", "")
        client = (sys.executable, "-c", at_work.format(url))
        supervisor.run("started", shell(f"touch {state}/started"), {})
        supervisor.run("client", client, {})


def test_sigkill_of_the_supervisor_leaves_nothing_after_ten_seconds(tmp_path: Path) -> None:
    host = multiprocessing.get_context("spawn").Process(target=doomed_stack, args=(tmp_path,))
    host.start()
    assert eventually((tmp_path / "started").exists, 20)
    titles = f"postgres: {Cluster(tmp_path / 'cluster', 0).name}:"
    assert eventually(lambda: any("SELECT" in line for line in command_lines_with(titles)))
    host.kill()
    host.join()
    killed = time.monotonic()
    with take(tmp_path):  # the lock is free once the watchdog has done its work
        assert command_lines_with(str(tmp_path)) + command_lines_with(titles) == []
    assert time.monotonic() - killed < 10
