"""`go2asia chain doctor`: what it says of a network that is well, and of one that is not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chain_gateway.doctor import Verdict, balance, clock
from chain_gateway.items import NANOTON
from chain_gateway.wallet import HighloadWallet, MintingKey
from devstack.ports import free_port
from devstack.postgres import Cluster
from tests.integration.gateway_stage import Stage, playing


@pytest.fixture(scope="module")
def stage(
    tmp_path_factory: pytest.TempPathFactory, postgres: Cluster, make_database: Callable[[], str]
) -> Iterator[Stage]:
    with playing(tmp_path_factory.mktemp("doctor"), postgres, make_database()) as stage:
        yield stage


def asked(stage: Stage, **changes: str) -> tuple[int, str]:
    """The doctor's exit code and words."""
    done = subprocess.run(
        [sys.executable, "-m", "cli", "chain", "doctor"],
        env=os.environ | stage.environment | changes,
        cwd=stage.folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def key_file(folder: Path) -> str:
    path = folder / "other.key"
    path.write_text(os.urandom(32).hex())
    path.chmod(0o600)
    return str(path)


def test_what_is_well_is_said_to_be_well(stage: Stage) -> None:
    code, words = asked(stage)
    assert code == 0, words
    assert {line.split()[0] for line in words.splitlines()} == {"ok"}, words
    for check in ("contracts", "config", "1 of 1 lite-servers", "trust", "clock", "deployed"):
        assert check in words
    assert words.count("next index 0") == 2  # both collections


def test_a_wallet_that_was_never_used_needs_ton_and_setup(stage: Stage, tmp_path: Path) -> None:
    code, words = asked(stage, GATEWAY_WALLET_KEY_FILE=key_file(tmp_path))
    assert code == 1
    assert words.count("problem") == 4  # the wallet, its balance, two collections
    assert "Send TON to" in words
    assert "python -m chain_gateway setup" in words


def test_lite_servers_that_do_not_answer_are_told_apart(stage: Stage, tmp_path: Path) -> None:
    config = stage.settings().network()
    [alive] = config["liteservers"]
    config["liteservers"] = [{**alive, "port": free_port()}, alive]
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    code, words = asked(stage, GATEWAY_TON_CONFIG=str(path), GATEWAY_TON_TRUST_LEVEL="2")
    assert code == 0, words
    assert "1 of 2 lite-servers answer" in words
    assert words.count("warning") == 2  # that, and the trust


def test_a_configuration_that_says_nothing_ends_the_examination(stage: Stage) -> None:
    code, words = asked(stage, GATEWAY_TON_CONFIG="/nowhere/global.config.json")
    assert code == 1
    assert "GATEWAY_TON_CONFIG" in words
    assert "lite-servers" not in words


@pytest.mark.parametrize(
    ("age", "verdict"),
    [(2, Verdict.OK), (-3, Verdict.OK), (-60, Verdict.PROBLEM), (600, Verdict.PROBLEM)],
)
def test_a_clock_that_is_off_is_a_problem(age: int, verdict: Verdict) -> None:
    head = 1_900_000_000
    assert clock(head, datetime.fromtimestamp(head + age, UTC)).verdict is verdict


@pytest.mark.parametrize(
    ("ton", "reserve", "verdict"),
    [
        (1.07, 1, Verdict.PROBLEM),  # with which the service would pause
        (1.08, 1, Verdict.WARNING),
        (1.07, 0, Verdict.WARNING),
        (90, 1, Verdict.OK),
    ],
)
def test_a_wallet_that_pays_for_no_mint_is_a_problem(
    ton: float, reserve: int, verdict: Verdict
) -> None:
    wallet = HighloadWallet(MintingKey(bytes(32)), 3600)
    assert balance(wallet, round(ton * NANOTON), reserve * NANOTON).verdict is verdict
