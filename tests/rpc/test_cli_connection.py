"""The command line that reaches no service says why, and what to do."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.__main__ import app
from devstack.certificates import Authority
from devstack.ports import free_port
from tests.rpc.connect_callers import OPERATOR


def list_rules(**options: object) -> Result:
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    elsewhere = {f"GO2ASIA_{name}": None for name in ("ADDRESS", "CERT", "KEY", "CA")}
    return CliRunner(env=elsewhere).invoke(app, [*given, "rules", "list"])


def test_what_is_not_told_is_asked_for() -> None:
    result = list_rules(address="localhost:1")
    assert result.exit_code == 1
    assert "give --cert --key --ca, or set GO2ASIA_CERT GO2ASIA_KEY GO2ASIA_CA" in result.stderr


@pytest.mark.parametrize("wrong", ["cert", "key", "ca"])
def test_a_file_that_is_no_certificate_is_named(
    authority: Authority, tmp_path: Path, wrong: str
) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_bytes(b"\x00\xff")
    files = authority.issue(OPERATOR).model_dump() | {wrong: junk}
    result = list_rules(address="localhost:1", **files)
    assert result.exit_code == 1
    assert str(junk) in result.stderr


def test_an_address_that_is_none_is_refused(authority: Authority) -> None:
    result = list_rules(address="localhost", **authority.issue(OPERATOR).model_dump())
    assert result.exit_code == 1
    assert "'localhost' is no address; write host:port" in result.stderr


def test_a_service_out_of_reach_is_named(authority: Authority) -> None:
    where = f"localhost:{free_port()}"
    result = list_rules(address=where, **authority.issue(OPERATOR).model_dump())
    assert result.exit_code == 1
    assert result.stderr.startswith("UNAVAILABLE: ")
    assert f"Check that Connect serves at {where}" in result.stderr
