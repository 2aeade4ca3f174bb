"""The rule author's session in the docs, run as it stands."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.stack import Stack

SESSION = Path(__file__).parents[2] / "docs" / "rule-author.md"
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEP = re.compile(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", re.MULTILINE)
OF_THE_READER = "export GO2ASIA_ADDRESS="  # where this stack is differs from where `make up` is
SECONDS = 60


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    state = tmp_path_factory.mktemp("stack")
    with Stack.running(state, services=("points", "nft", "connect")) as stack:
        yield stack


def expected(told: str) -> re.Pattern[str]:
    """What the docs show; `…` is anything within a line, or any lines if it stands alone."""
    lines = [re.escape(line).replace("…", ".*?") for line in told.splitlines()]
    return re.compile("".join("(?:.*\n)*?" if line == ".*?" else f" *{line} *\n" for line in lines))


class Shell:
    """One bash for the whole session, so that what it exports stays."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._bash = subprocess.Popen(
            ["bash"],
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> str:
        """What a command writes to both of its outputs."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{command}\necho :end-of-step:\n")
        self._bash.stdin.flush()
        lines = iter(self._bash.stdout.readline, "")
        return "".join(iter(lines.__next__, ":end-of-step:\n"))

    def close(self) -> None:
        """Ends it."""
        self._bash.kill()
        self._bash.communicate()


@pytest.fixture
def shell(stack: Stack, tmp_path: Path) -> Iterator[Shell]:
    for identity in ("economy-manager/manager", "domain-service/quest", "operator/ops"):
        stack.tls(identity)
    shell = Shell(
        tmp_path,
        {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "GO2ASIA_ADDRESS": stack.address("connect"),
            "CERTIFICATES": str(stack.certificates),
        },
    )
    yield shell
    shell.close()


@pytest.mark.timeout(SECONDS)
def test_the_session_goes_as_the_docs_say(shell: Shell, tmp_path: Path) -> None:
    steps = 0
    for language, name, body in BLOCK.findall(SESSION.read_text()):
        if name:
            (tmp_path / name).write_text(body)
        elif language == "console":
            for command, told in STEP.findall(body):
                if command.startswith(OF_THE_READER):
                    continue
                found = shell.run(command)
                steps += 1
                assert expected(told).fullmatch(found), f"$ {command}\n{found}\n--- told:\n{told}"
    assert steps > 15
