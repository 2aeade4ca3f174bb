"""Settings of the Chain Gateway: the environment variables that begin with GATEWAY_."""

import json
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr
from pydantic_settings import SettingsConfigDict

from mesh.config import ConfigurationError, ServiceSettings


class ChainSettings(ServiceSettings):
    """Everything about the chain: what `address` and `setup` need, who neither serve nor store."""

    model_config = SettingsConfigDict(**{**ServiceSettings.model_config, "env_prefix": "GATEWAY_"})

    listen: str = ""
    database_url: SecretStr = SecretStr("")
    tls_cert: Path = Path()
    tls_key: Path = Path()
    tls_ca: Path = Path()

    ton_config: Path = Field(description="global-config JSON of the network")
    ton_trust_level: int = Field(
        default=1,
        ge=0,
        le=2,
        description="2 trusts lite-servers, 1 checks their proofs, 0 also validators' signatures "
        "(and keeps a .blockstore in the working directory)",
    )
    wallet_key_file: Path = Field(
        description="file of mode 600 with the minting wallet's ed25519 seed as 64 hex digits"
    )
    minter_key_files: str = Field(
        default="",
        description="comma-separated files with the seeds of further wallets, which mint into the "
        "same collections side by side; run setup after a change",
    )
    wallet_timeout_seconds: int = Field(
        default=3600,
        ge=10,
        lt=2**22,
        description="how long a wallet message stays valid; part of the wallet's address",
    )
    collection_name: str = Field(
        default="Go2Asia Rewards", description="name of the collection; part of its address"
    )
    collection_description: str = Field(
        default="Badges of the Go2Asia reward economy.",
        description="description of the collection; part of its address",
    )
    collection_image: str = Field(
        default="", description="image URI of the collections; part of their addresses"
    )
    sbt_collection_name: str = Field(
        default="Go2Asia Achievements",
        description="name of the collection of soulbound items; part of its address",
    )
    sbt_collection_description: str = Field(
        default="What travellers of Go2Asia achieved themselves.",
        description="description of the collection of soulbound items; part of its address",
    )

    reserve_ton: float = Field(
        default=1.0, ge=0, description="balance that each wallet keeps: it stops sending before"
    )

    @property
    def reserve(self) -> int:
        """`reserve_ton` in nanoton."""
        return int(self.reserve_ton * 10**9)

    @property
    def minter_keys(self) -> list[Path]:
        """The files of `minter_key_files`."""
        return [Path(part.strip()) for part in self.minter_key_files.split(",") if part.strip()]

    def network(self) -> dict[str, Any]:
        """The global config; raises `ConfigurationError` if it cannot be read."""
        try:
            config = json.loads(self.ton_config.read_text())
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"GATEWAY_TON_CONFIG: cannot read {self.ton_config} as a global config ({error})."
            ) from None
        if not isinstance(config, dict) or not config.get("liteservers"):
            raise ConfigurationError(f"GATEWAY_TON_CONFIG: {self.ton_config} names no liteservers.")
        return config


class GatewaySettings(ChainSettings):
    """What the service needs beyond the chain."""

    listen: str = Field(
        pattern=r"^\S+:\d+$", description="host:port to serve on, e.g. 127.0.0.1:7004"
    )
    database_url: SecretStr = Field(
        description="postgresql+psycopg:// URL of the least-privileged application user"
    )
    tls_cert: Path = Field(description="PEM file with this service's certificate chain")
    tls_key: Path = Field(description="PEM file with this service's private key")
    tls_ca: Path = Field(description="PEM file with the CA certificate of the mesh")

    nft_address: str = Field(description="host:port of the NFT service, for reports about mints")
    proof_domains: str = Field(
        default="localhost",
        description="comma-separated domains of apps whose ton_proof is accepted",
    )
    finality_blocks: int = Field(
        default=1,
        ge=0,
        description="masterchain blocks on top of the one that showed an item before it is final",
    )
    batch_mints: int = Field(default=250, ge=1, le=254, description="most mints in one message")
    messages_in_flight: int = Field(
        default=8, ge=1, description="most wallet messages whose items are still awaited"
    )
    delivery_grace_seconds: int = Field(
        default=120,
        ge=1,
        description="chain time after a message ran before its missing items are sent again",
    )
    max_lag_seconds: int = Field(
        default=60, ge=5, description="age of the chain's head at which sending is paused"
    )
    transfer_daily_limit_nanoton: int = Field(
        default=10_000_000_000,
        ge=0,
        description="what a user may get in transfers a day (UTC), in nanoton",
    )
    dry_run: bool = Field(
        default=False,
        description="take orders and pack what waits, but never send anything to the chain",
    )

    @property
    def domains(self) -> frozenset[str]:
        """The domains of `proof_domains`."""
        return frozenset(part.strip() for part in self.proof_domains.split(",") if part.strip())
