"""The command line against a real Connect over mutual TLS, as a person types it."""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from cli.__main__ import app
from connect_svc.backfilling import Backfiller
from connect_svc.lanes import POINTS, QUEUE
from connect_svc.records import State, Verdict
from connect_svc.store import ActionStore
from devstack.certificates import Authority
from devstack.postgres import Cluster
from mesh.db import Database
from mesh.outbox import Dead
from mesh.testing import LoopServer
from tests.integration.connect_replica import ConnectDatabase
from tests.rpc.connect_callers import MANAGER, OPERATOR, add_services, services_on

Run = Callable[..., Result]

RULES = """
rules:
  - rule_id: cli-gold
    event_type: cli.tried
    condition: event.context.tier == 'gold' && event.context.n > 2.0
    actions:
      - key: points
        credit_points: {unit: G2A, amount: "10"}
  - rule_id: cli-all
    event_type: cli.tried
    actions:
      - key: points
        credit_points: {unit: G2A, amount: "1"}
"""
UNKNOWN_ID = "019f0000-0000-7000-8000-000000000000"
_numbers = count(1)


@pytest.fixture(scope="module")
def grpc_add_to_server() -> Any:
    return add_services


@pytest.fixture(scope="module")
def connect(postgres: Cluster, make_database: Callable[[], str]) -> ConnectDatabase:
    return ConnectDatabase(postgres, make_database())


@pytest.fixture(scope="module")
def grpc_servicer(_grpc_server: LoopServer, connect: ConnectDatabase) -> Iterator[tuple[Any, ...]]:
    with services_on(_grpc_server, connect.cluster, connect.name) as services:
        yield services


@pytest.fixture(autouse=True)
def quiet_server() -> Iterator[None]:
    """The server lives in this process; its log is none of the command's output."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


@pytest.fixture
def run(grpc_server: object, grpc_addr: str, authority: Authority) -> Run:
    """`run("operator/ops", "events", "tail")`: a command as that identity."""

    def run(identity: str, *arguments: object) -> Result:
        tls = authority.issue(identity)
        environment = {
            "GO2ASIA_ADDRESS": grpc_addr,
            "GO2ASIA_CERT": str(tls.cert),
            "GO2ASIA_KEY": str(tls.key),
            "GO2ASIA_CA": str(tls.ca),
        }
        return CliRunner().invoke(app, [str(each) for each in arguments], env=environment)

    return run


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    return file


def events_file(tmp_path: Path, *events: dict[str, Any] | str) -> Path:
    file = tmp_path / "events.jsonl"
    file.write_text(
        "\n".join(each if isinstance(each, str) else json.dumps(each) for each in events)
    )
    return file


def event(**fields: Any) -> dict[str, Any]:
    return {
        "source": "quest",
        "external_id": f"cli-{next(_numbers)}",
        "event_type": "cli.tried",
        "actor_user_id": "ada",
        "occurred_time": "2025-06-07T12:00:00Z",
    } | fields


def test_rules_are_applied_shown_and_changed(run: Run, rules: Path) -> None:
    assert "+rule_id: cli-gold" in run(MANAGER, "rules", "diff", rules).stdout
    first = run(MANAGER, "rules", "apply", rules)
    assert first.stdout.splitlines() == [
        "cli-gold: created, version 1",
        "cli-all: created, version 1",
    ]
    assert "Nothing would change." in run(MANAGER, "rules", "diff", rules).stdout
    rules.write_text(RULES.replace('amount: "1"', 'amount: "2"'))
    difference = run(MANAGER, "rules", "diff", rules).stdout
    assert "-    amount: '1'" in difference
    assert "+    amount: '2'" in difference
    assert "cli-gold" not in difference
    assert run(MANAGER, "rules", "apply", rules).stdout.splitlines() == [
        "cli-gold: unchanged",
        "cli-all: updated, version 2",
    ]
    listed = run(OPERATOR, "rules", "list", "--event-type", "cli.tried").stdout
    assert "event.context.tier == 'gold' && event.context.n > 2.0" in listed
    assert "ENABLED" in listed


def test_mistakes_in_a_file_of_rules_are_told_by_line_and_nothing_is_written(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "wrong.yaml"
    sound = RULES.replace("cli-", "wrong-")
    file.write_text(sound.replace("event_type: cli.tried", "event_tipe: x", 1))
    result = run(MANAGER, "rules", "apply", file)
    assert result.exit_code == 1
    assert f"{file}:4: rules[0].event_tipe: unknown field" in result.stderr
    file.write_text(sound.replace("wrong-all", "wrong-gold"))
    result = run(MANAGER, "rules", "apply", file)
    assert f"{file}:9: rule_id: this rule stands in line 3 already" in result.stderr
    assert "wrong-" not in run(OPERATOR, "rules", "list").stdout
    file.write_bytes(b"rules: [\xff]")
    assert "not a UTF-8 text file" in run(MANAGER, "rules", "apply", file).stderr


def test_what_only_the_service_can_know_is_told_by_line_too(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "cel.yaml"
    file.write_text(RULES.replace("cli", "cel").replace("n > 2.0", "n >"))
    result = run(MANAGER, "rules", "apply", file)
    assert result.exit_code == 1
    assert f"{file}:5: condition, line 1, column" in result.stderr
    assert result.stdout.splitlines() == ["cel-all: created, version 1"]


def test_an_event_is_sent_shown_and_explained(run: Run, rules: Path, tmp_path: Path) -> None:
    run(MANAGER, "rules", "apply", rules)
    sent = event(context={"tier": "silver", "n": 3})
    file = events_file(tmp_path, sent, "{nonsense", event(actor_user_id=""), event(source="Q"))
    result = run(OPERATOR, "events", "submit", file)
    assert result.exit_code == 1
    assert "1 taken in with 1 actions, 0 known before, 3 refused" in result.stdout
    complaints = result.stderr.splitlines()
    assert [line.split(": ")[0] for line in complaints] == [f"{file}:{n}" for n in (2, 3, 4)]
    assert complaints[1].startswith(f"{file}:3: ")
    assert complaints[1].count("actor_user_id: ") == 1

    again = run(OPERATOR, "events", "submit", events_file(tmp_path, sent))
    assert (again.exit_code, again.stderr) == (0, "")
    assert "0 taken in with 0 actions, 1 known before, 0 refused" in again.stdout

    name = f"quest/{sent['external_id']}"
    story = run(OPERATOR, "events", "show", name).stdout
    assert "cli-all" in story
    assert "MATCHED" in story
    assert "PENDING" in story
    event_id = story.split('"event_id": "')[1].split('"')[0]
    assert event_id in run(OPERATOR, "events", "show", event_id.upper()).stdout
    why = run(OPERATOR, "events", "show", name, "--rule", "cli-gold").stdout
    assert "CONDITION_FALSE" in why
    assert "false  1:1  event.context.tier == 'gold'" in why
    assert "true  1:33  event.context.n > 2.0" in why

    tailed = run(OPERATOR, "events", "tail", "--no-follow", "--last", 1).stdout
    assert tailed.count("\n") == 1
    assert name in tailed


def test_an_event_is_taken_back_by_its_source_s_key(run: Run, rules: Path, tmp_path: Path) -> None:
    run(MANAGER, "rules", "apply", rules)
    sent = event()
    name = f"quest/{sent['external_id']}"
    run(OPERATOR, "events", "submit", events_file(tmp_path, sent))
    taken = run(OPERATOR, "events", "reverse", name, "--reason", "It was fraud.").stdout
    assert f"taken back by {OPERATOR} at " in taken
    assert "It was fraud." in taken
    assert "CANCELLED" in taken
    again = run(MANAGER, "events", "reverse", name, "--reason", "Once more.").stdout
    assert again.splitlines()[0] == taken.splitlines()[0], "the first one stays"
    assert taken.splitlines()[0] in run(OPERATOR, "events", "show", name).stdout
    early = run(OPERATOR, "events", "reverse", "quest/cli-never", "--reason", "Too early.").stdout
    assert "taken back, before it arrived, by" in early
    assert run(OPERATOR, "events", "reverse", name).exit_code == 2, "a reason is asked for"


@pytest.fixture
def backfiller(_grpc_server: LoopServer, connect: ConnectDatabase) -> Iterator[None]:
    """Carries backfills on, on the server's loop."""
    running = AsyncExitStack()

    async def start() -> None:
        url = connect.app_url
        database = await running.enter_async_context(Database(url, application_name="backfiller"))
        worker = Backfiller(database, dispatch=lambda: None)
        await running.enter_async_context(worker)

    _grpc_server.run(start())
    yield
    _grpc_server.run(running.aclose())


def test_a_rule_is_previewed_on_stored_events_and_applied(
    run: Run, rules: Path, tmp_path: Path, backfiller: None
) -> None:
    sent = [event(event_type="late.told", actor_user_id=f"late-{n}") for n in range(3)]
    run(OPERATOR, "events", "submit", events_file(tmp_path, *sent))
    rules.write_text(RULES.replace("cli-", "late-").replace("cli.tried", "late.told"))
    run(MANAGER, "rules", "apply", rules)
    preview = run(MANAGER, "rules", "backfill", "late-all").stdout
    assert "late-all, version 1: 3 events would be rewarded, 0 are rewarded already" in preview
    assert run(OPERATOR, "actions", "list", "--rule", "late-all").stdout.count("late-all") == 0
    backfill_id = preview.split()[-1]
    for _ in range(2):
        done = run(MANAGER, "rules", "backfill", "--apply", backfill_id).stdout
        assert "late-all, version 1: 3 events were rewarded" in done
    assert run(OPERATOR, "actions", "list", "--rule", "late-all").stdout.count("late-all") == 3
    assert "Say one of both" in run(MANAGER, "rules", "backfill").stderr


def test_failed_actions_are_listed_and_sent_again(
    run: Run, rules: Path, tmp_path: Path, connect: ConnectDatabase
) -> None:
    run(MANAGER, "rules", "apply", rules)
    file = events_file(tmp_path, event(actor_user_id="zoe"), event(actor_user_id="zoe"))
    run(OPERATOR, "events", "submit", file)
    asyncio.run(fail_all(connect))
    listed = run(OPERATOR, "actions", "list", "--state", "failed", "--recipient", "zoe").stdout
    assert listed.count("NO SUCH UNIT") == 2
    result = run(OPERATOR, "actions", "retry", "--recipient", "zoe")
    assert result.stdout == "2 sent again\n"
    assert "zoe" in run(OPERATOR, "actions", "list", "--state", "pending").stdout
    action_id = listed.split("cli-all")[0].split()[-2]
    refused = run(OPERATOR, "actions", "retry", action_id)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("ACTION_STATE_FORBIDDEN: ")
    asyncio.run(fail_all(connect))
    mixed = run(OPERATOR, "actions", "retry", UNKNOWN_ID, action_id)
    assert (mixed.exit_code, mixed.stdout) == (1, "1 sent again\n")
    assert mixed.stderr.startswith(f"ACTION_NOT_FOUND: No reward action has the id {UNKNOWN_ID}")
    assert "Say which" in run(OPERATOR, "actions", "retry").stderr


def test_what_is_refused_is_said_and_not_thrown(run: Run, rules: Path, tmp_path: Path) -> None:
    refused = run(OPERATOR, "rules", "apply", rules.with_name("nope.yaml"))
    assert refused.exit_code == 2
    rules.write_text(RULES.replace("cli-", "other-"))
    denied = run(OPERATOR, "rules", "apply", rules)
    assert denied.exit_code == 1
    assert denied.stderr.startswith("ROLE_NOT_ALLOWED: ")
    assert "no event" in run(OPERATOR, "events", "show", "quest").stderr
    assert "EVENT_NOT_FOUND: " in run(OPERATOR, "events", "show", "quest/never").stderr


def test_the_tail_shows_events_as_they_come(
    run: Run, grpc_addr: str, authority: Authority, tmp_path: Path
) -> None:
    tls = authority.issue(OPERATOR)
    command = [sys.executable, "-m", "cli", "--address", grpc_addr]
    command += ["--cert", str(tls.cert), "--key", str(tls.key), "--ca", str(tls.ca)]
    command += ["events", "tail", "--event-type", "tail.seen"]
    before, after = event(event_type="tail.seen"), event(event_type="tail.seen")
    run(OPERATOR, "events", "submit", events_file(tmp_path, before))
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    # Begun in the background by a shell, we ignore Ctrl-C, and the command would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as tail:
        assert tail.stdout is not None
        assert f"quest/{before['external_id']}" in tail.stdout.readline()
        run(OPERATOR, "events", "submit", events_file(tmp_path, after))
        assert f"quest/{after['external_id']}" in tail.stdout.readline()
        tail.send_signal(signal.SIGINT)
        assert tail.stdout.read() == ""


async def fail_all(connect: ConnectDatabase) -> None:
    """What a dispatcher does when its target refuses everything."""
    async with Database(connect.app_url, application_name="dispatcher") as database:
        claims = await database.run(lambda connection: QUEUE.claim(connection, POINTS, 1_000))
        async with database.transaction() as connection:
            await QUEUE.settle(connection, [(claim, Dead("NO SUCH UNIT")) for claim in claims])
            verdicts = [Verdict(claim.item_id, State.FAILED, 1, "NO SUCH UNIT") for claim in claims]
            await ActionStore(connection).settle(verdicts)


def test_a_rule_is_paused_and_enabled_again(run: Run, rules: Path) -> None:
    run(MANAGER, "rules", "apply", rules)
    paused = run(MANAGER, "rules", "state", "cli-gold", "paused")
    assert paused.stdout.startswith("cli-gold: paused, version ")
    assert "PAUSED" in run(MANAGER, "rules", "list", "--event-type", "cli.tried").stdout
    assert run(MANAGER, "rules", "state", "cli-gold", "enabled").exit_code == 0
    unknown = run(MANAGER, "rules", "state", "cli-nothing", "paused")
    assert (unknown.exit_code, unknown.stderr.split(":")[0]) == (1, "RULE_NOT_FOUND")


def test_rules_of_one_version_are_paused_one_after_the_other(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "twins.yaml"
    file.write_text(RULES.replace("cli-", "twin-"))
    run(MANAGER, "rules", "apply", file)
    for rule_id in ("twin-gold", "twin-all"):
        paused = run(MANAGER, "rules", "state", rule_id, "paused")
        assert paused.stdout == f"{rule_id}: paused, version 2\n", paused.stderr


def test_an_event_is_tried_against_a_rule_that_is_nowhere_written(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "try.yaml"
    file.write_text(RULES.replace("cli.tried", "cli.simulated"))
    events = events_file(
        tmp_path, event(event_type="cli.simulated", context={"tier": "gold", "n": 3})
    )
    tried = run(MANAGER, "rules", "simulate", events, "--file", file, "--rule", "cli-gold")
    assert "MATCHED" in tried.stdout
    assert "credit_points G2A 10" in tried.stdout
    assert "cli-all" not in tried.stdout
    unnamed = run(MANAGER, "rules", "simulate", events, "--file", file)
    assert unnamed.exit_code == 1
    assert "has the rules cli-gold, cli-all; name the one to try with --rule" in unnamed.stderr
    assert "cli-gold" not in run(MANAGER, "rules", "simulate", events).stdout
    fileless = run(MANAGER, "rules", "simulate", events, "--rule", "cli-gold")
    assert "give that with --file" in fileless.stderr


def test_a_file_without_anything_in_it_is_told(run: Run, tmp_path: Path) -> None:
    empty = events_file(tmp_path)
    assert f"{empty} has no events" in run(OPERATOR, "events", "submit", empty).stderr
    assert f"{empty} has no events" in run(MANAGER, "rules", "simulate", empty).stderr
    rules = tmp_path / "none.yaml"
    rules.write_text("rules: []")
    assert "the list `rules:` is empty" in run(MANAGER, "rules", "apply", rules).stderr


def test_a_trial_tells_each_line_that_cannot_be_used(run: Run, tmp_path: Path) -> None:
    sound = event(event_type="cli.simulated")
    events = events_file(tmp_path, "{nonsense", sound, event(actor_user_id=""), sound)
    tried = run(MANAGER, "rules", "simulate", events)
    assert tried.exit_code == 1
    assert tried.stdout.count(f"quest/{sound['external_id']}") == 2
    assert [line.split(": ")[0] for line in tried.stderr.splitlines()] == [
        f"{events}:1",
        f"{events}:3",
    ]
    rules = tmp_path / "wrong.yaml"
    rules.write_text(RULES.replace("n > 2.0", "n >"))
    wrong = run(MANAGER, "rules", "simulate", events, "--file", rules, "--rule", "cli-gold")
    assert wrong.exit_code == 1
    assert wrong.stderr.startswith(f"{rules}:5: condition, line 1, column ")
