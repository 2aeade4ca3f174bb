"""Settings that every service reads from its environment, under its own prefix.

A service subclasses `ServiceSettings` with `env_prefix` ("POINTS_", …) and adds its own fields;
nothing else in the service reads the environment.
"""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ModelWrapValidatorHandler,
    SecretStr,
    ValidationError,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict


class ConfigurationError(SystemExit):
    """The environment does not describe a service that could start.

    A `SystemExit`, so that an operator reads the sentence and not a traceback.
    """


def _postgres(url: SecretStr) -> SecretStr:
    if not url.get_secret_value().startswith("postgresql+psycopg://"):
        raise ValueError("not a URL of the form postgresql+psycopg://user:password@host:port/name")
    return url


PostgresUrl = Annotated[SecretStr, AfterValidator(_postgres)]


class TlsFiles(BaseModel, frozen=True):
    """PEM files of one mesh member: its certificate chain, its key, and the mesh's CA."""

    cert: Path
    key: Path
    ca: Path


class ServiceSettings(BaseSettings):
    """What the chassis needs to know to serve; times are in seconds.

    Raises `ConfigurationError`, naming each environment variable at fault and what it should hold.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(frozen=True, extra="ignore")

    listen: str = Field(
        pattern=r"^\S+:\d+$", description="host:port to serve on, e.g. 127.0.0.1:7001 (port 0: any)"
    )
    database_url: PostgresUrl = Field(
        description="postgresql+psycopg:// URL of the least-privileged application user"
    )
    migration_url: PostgresUrl | None = Field(
        default=None,
        description="postgresql+psycopg:// URL of the owner; when set, migrations run at start",
    )
    tls_cert: Path = Field(description="PEM file with this service's certificate chain")
    tls_key: Path = Field(description="PEM file with this service's private key")
    tls_ca: Path = Field(description="PEM file with the CA certificate of the mesh")
    metrics_port: int = Field(
        default=0, ge=0, le=65535, description="port of the Prometheus endpoint; 0 turns it off"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="one of debug, info, warning, error"
    )
    drain_seconds: float = Field(
        default=20, gt=0, description="seconds that calls in flight may take to finish at shutdown"
    )
    max_connection_age_seconds: float = Field(
        default=300, gt=0, description="seconds after which a client is asked to reconnect"
    )
    max_concurrent_calls: int = Field(
        default=4096, gt=0, description="calls in flight, streams included, before new are refused"
    )
    traces: Literal["none", "otlp"] = Field(
        default="none", description="none, or otlp (target: the OTEL_EXPORTER_OTLP_* variables)"
    )
    trace_sample_ratio: float = Field(
        default=0.05, ge=0, le=1, description="share of the traces begun here that are recorded"
    )

    @property
    def tls(self) -> TlsFiles:
        """This service's certificate files."""
        return TlsFiles(cert=self.tls_cert, key=self.tls_key, ca=self.tls_ca)

    @property
    def listen_host(self) -> str:
        """The host part of `listen`."""
        return self.listen.rpartition(":")[0]

    @model_validator(mode="wrap")
    @classmethod
    def _explain(cls, values: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(values)
        except ValidationError as error:
            faults = "\n".join(
                f"  {cls._variable(str(fault['loc'][0]))}: {fault['msg']}; "
                f"it should hold: {cls._meaning(str(fault['loc'][0]))}"
                for fault in error.errors(include_input=False)
                if fault["loc"]
            )
            raise ConfigurationError(
                f"Set these environment variables right and start again:\n{faults or error}"
            ) from None

    @classmethod
    def _variable(cls, field: str) -> str:
        return f"{cls.model_config.get('env_prefix', '')}{field}".upper()

    @classmethod
    def _meaning(cls, field: str) -> str:
        declared = cls.model_fields.get(field)
        return (declared and declared.description) or f"a valid {field}"
