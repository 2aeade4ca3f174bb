"""Log lines keep secrets and lead to the trace; trace ids go on without an exporter."""

import json
import logging
import re
import urllib.request
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO

import pytest
import structlog
from opentelemetry import trace

from devstack.ports import free_port
from mesh import telemetry
from mesh.config import ServiceSettings

PARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


def settings(**overrides: object) -> ServiceSettings:
    return ServiceSettings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "database_url": "postgresql+psycopg://nobody@localhost/nothing",
            "tls_cert": "cert",
            "tls_key": "key",
            "tls_ca": "ca",
        }
        | overrides
    )


@pytest.fixture
def out() -> Iterator[StringIO]:
    with redirect_stdout(StringIO()) as lines:
        telemetry.start("points", settings())
    yield lines
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()


def test_a_line_names_service_component_and_trace(out: StringIO) -> None:
    with telemetry.continue_trace(PARENT, "work"):
        telemetry.logger("ledger").info("posted", amount=5)
    line = json.loads(out.getvalue())
    assert (line["service"], line["component"], line["event"]) == ("points", "ledger", "posted")
    assert (line["level"], line["amount"], line["trace_id"]) == ("info", 5, "ab" * 16)


def test_secrets_are_masked_wherever_they_hide(out: StringIO) -> None:
    url = "postgresql://points:hunter2@localhost/points"
    log = telemetry.logger("x")
    log.info("a", wallet_seed="hunter2", nested={"password": "hunter2"})
    try:
        raise ConnectionError(f"cannot connect to {url}")
    except ConnectionError as error:
        log.error("b", exc_info=error)
    logging.getLogger("library").warning("retrying %s", url)
    assert "hunter2" not in out.getvalue()
    assert len(out.getvalue().splitlines()) == 3


def test_debug_lines_wait_for_debug_level(out: StringIO) -> None:
    telemetry.logger("x").debug("noise")
    assert out.getvalue() == ""


def test_a_trace_goes_on_without_an_exporter() -> None:
    with telemetry.continue_trace(PARENT, "outer"):
        outer = telemetry.traceparent()
        with telemetry.continue_trace(None, "inner"):
            assert (telemetry.traceparent() or "").split("-")[1] == "ab" * 16
    assert outer is not None
    assert telemetry.traceparent() is None


@pytest.mark.parametrize("parent", [None, "", "nonsense", f"00-{'0' * 32}-{'cd' * 8}-01"])
def test_without_a_parent_a_trace_begins(parent: str | None) -> None:
    with telemetry.continue_trace(parent, "root") as span:
        assert span.get_span_context().is_valid
        assert "ab" * 16 not in (telemetry.traceparent() or "")
    assert not trace.get_current_span().get_span_context().is_valid


def test_metrics_are_served() -> None:
    port = free_port()
    with redirect_stdout(StringIO()):
        telemetry.start("points", settings(metrics_port=port))
    structlog.reset_defaults()
    logging.getLogger().handlers.clear()
    telemetry.meter.create_counter("tests.visits").add(3, {"where": "here"})
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        text = page.read().decode()
    assert re.search(r'^tests_visits_total\{.*where="here".*\} 3\.0$', text, re.MULTILINE)
