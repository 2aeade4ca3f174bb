"""Settings of the Connect service: CONNECT_LISTEN, CONNECT_NATS_URL and the chassis's others."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mesh.config import ServiceSettings


class ConnectSettings(ServiceSettings):
    """The environment variables that begin with CONNECT_."""

    model_config = SettingsConfigDict(**{**ServiceSettings.model_config, "env_prefix": "CONNECT_"})

    points_address: str = Field(description="host:port of Points, or host:port,host:port")
    nft_address: str = Field(description="host:port of NFT, or host:port,host:port")
    gateway_address: str = Field(description="host:port of the Gateway, or host:port,host:port")
    nats_url: str = Field(
        description="tls://host:port of NATS, several separated by commas; same certificate files"
    )
    nats_replicas: int | None = Field(
        default=None,
        ge=1,
        le=5,
        description="servers that keep each message; unset: as the streams are, new ones on one",
    )
