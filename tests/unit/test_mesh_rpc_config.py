"""Settings explain themselves when the environment is wrong."""

from pathlib import Path

import pytest
from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from mesh.client import open_channel
from mesh.config import ConfigurationError, ServiceSettings, TlsFiles
from mesh.tls import server_credentials


class CafeSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="CAFE_")

    beans: int = Field(gt=0, description="how many beans are in the jar")


GOOD = {
    "CAFE_LISTEN": "127.0.0.1:7001",
    "CAFE_DATABASE_URL": "postgresql+psycopg://cafe_app:hunter2@localhost/cafe",
    "CAFE_TLS_CERT": "/tls/cafe.pem",
    "CAFE_TLS_KEY": "/tls/cafe.key",
    "CAFE_TLS_CA": "/tls/ca.pem",
    "CAFE_BEANS": "7",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def test_reads_its_own_prefix() -> None:
    settings = CafeSettings()
    assert settings.tls == TlsFiles(
        cert=Path("/tls/cafe.pem"), key=Path("/tls/cafe.key"), ca=Path("/tls/ca.pem")
    )
    assert (settings.beans, settings.listen_host, settings.migration_url) == (7, "127.0.0.1", None)


def test_names_the_missing_variable_and_its_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAFE_BEANS")
    with pytest.raises(ConfigurationError) as refused:
        CafeSettings()
    assert "CAFE_BEANS: Field required" in str(refused.value)
    assert "how many beans are in the jar" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CAFE_LISTEN", "7001"),
        ("CAFE_METRICS_PORT", "70000"),
        ("CAFE_DRAIN_SECONDS", "0"),
        ("CAFE_TRACES", "jaeger"),
        ("CAFE_LOG_LEVEL", "loud"),
        ("CAFE_TRACE_SAMPLE_RATIO", "2"),
    ],
)
def test_names_the_variable_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=name):
        CafeSettings()


def test_secrets_do_not_show() -> None:
    settings = CafeSettings()
    assert "hunter2" not in repr(settings)
    assert isinstance(settings.database_url, SecretStr)


def test_unreadable_certificates_are_named() -> None:
    with pytest.raises(ConfigurationError, match=r"/tls/cafe\.pem"):
        server_credentials(CafeSettings().tls)


@pytest.mark.parametrize("address", ["points", "points:", ":7001", "a:1,b"])
async def test_an_address_without_host_or_port_is_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="is no address"):
        open_channel(address, CafeSettings().tls)
