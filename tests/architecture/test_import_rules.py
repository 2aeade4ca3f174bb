"""The import rules of the house bite: a planted violation of each kind fails `make lint`."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "mesh", "connect_svc", "points_svc", "nft_svc", "chain_gateway", "cli", "ton_devnet",
    "devstack",
)  # fmt: skip
VIOLATIONS = {
    "a service imports another": ("points_svc/servicer.py", "import nft_svc.progress"),
    "the chassis imports a service": ("mesh/clock.py", "import points_svc.ledger"),
    "a service imports a development tool": ("chain_gateway/ton.py", "import ton_devnet.chain"),
    "storage imports the edge": ("points_svc/store/booking.py", "import points_svc.servicer"),
    "pure code talks to a database": ("nft_svc/progress.py", "import sqlalchemy"),
    "a use case speaks gRPC": ("connect_svc/intake.py", "import grpc"),
    "pytoniq outside ton.py": ("chain_gateway/servicer.py", "import pytoniq"),
    "SQL outside the store": ("points_svc/servicer.py", "import psycopg"),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree that may be spoilt."""
    folder = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def check_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter as `make lint` does."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_the_tree_keeps_the_rules(copy: Path) -> None:
    done = check_imports(copy)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kind", VIOLATIONS)
def test_a_planted_violation_is_caught(copy: Path, kind: str) -> None:
    name, line = VIOLATIONS[kind]
    file = copy / name
    sound = file.read_text()
    file.write_text(f"{sound}\n{line}\n")
    try:
        done = check_imports(copy)
    finally:
        file.write_text(sound)
    assert done.returncode != 0, f"{line} in {name} went unnoticed"
    assert "BROKEN" in done.stdout
