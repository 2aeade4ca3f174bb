"""The demo's input: the three files, and what must come out of them."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from go2asia.connect.v1.rules_pb2 import Rule
from go2asia.nft.v1.catalog_pb2 import NftType

from cli.documents import Document, Mistake, read_catalogue, read_events
from devstack.demo.play import Line

SOURCE = re.compile("[a-z][a-z0-9-]{0,62}")
EXPECT = Path(__file__).parents[2] / "examples" / "expect.py"


class DemoError(Exception):
    """The demo cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Files:
    """The demo's input."""

    rules: Path
    badges: Path
    events: Path

    def digest(self) -> str:
        """Return a hash of all three files' contents."""
        parts = (path.read_bytes() for path in (self.rules, self.badges, self.events))
        return hashlib.sha256(b"\0".join(parts)).hexdigest()

    def expectation(self) -> dict[str, Any]:
        """Return what must come out, by the plain script that knows nothing of the services."""
        command = [sys.executable, str(EXPECT), str(self.rules), str(self.badges), str(self.events)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise DemoError(f"examples/expect.py could not read the files:\n{done.stderr}")
        expected: dict[str, Any] = json.loads(done.stdout)
        return expected


@dataclass(frozen=True)
class Script:
    """The input as messages."""

    rules: list[Document[Rule]]
    badges: list[Document[NftType]]
    lines: list[Line]
    mistakes: list[Mistake]
    expected: dict[str, Any]


def read_script(files: Files) -> Script:
    """Read the input; raises DemoError when a rule or badge is wrong, keeps wrong events aside."""
    for path in (files.rules, files.badges, files.events):
        if not path.is_file():
            raise DemoError(f"{path} is not there; give RULES=, BADGES= and EVENTS= as files")
    rules, wrong_rules = read_catalogue(files.rules, "rules", Rule)
    badges, wrong_badges = read_catalogue(files.badges, "badges", NftType)
    if wrong := wrong_rules + wrong_badges:
        raise DemoError("correct these and run again:\n" + "\n".join(f"  {one}" for one in wrong))
    lines, mistakes = read_events(files.events)
    # Without a name for a certificate nobody could send it, to have it refused by Connect.
    unnamed = [line for line in lines if not SOURCE.fullmatch(line.message.source)]
    mistakes += [
        Mistake(line.file, line.line, "source", f"must match {SOURCE.pattern}") for line in unnamed
    ]
    sendable = [line for line in lines if line not in unnamed]
    return Script(rules, badges, sendable, mistakes, files.expectation())
