"""Settings of the NFT service: NFT_LISTEN, NFT_DATABASE_URL, …, and those below."""

from datetime import timedelta

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from mesh.config import ServiceSettings
from nft_svc.fanout import FeedLimits


class NftSettings(ServiceSettings):
    """The environment variables that begin with NFT_."""

    model_config = SettingsConfigDict(**{**ServiceSettings.model_config, "env_prefix": "NFT_"})

    gateway_address: str = Field(
        description="host:port of the Chain Gateway, or a list host:port,host:port"
    )
    max_streams: int = Field(
        default=1_000, gt=0, description="watchers per process before the oldest is closed"
    )
    max_streams_per_user: int = Field(
        default=3, gt=0, description="watchers per user before the oldest is closed"
    )
    checkpoint_seconds: float = Field(
        default=5, gt=0, description="longest silence on a stream of WatchMintStatus"
    )
    feed_retention_hours: float = Field(
        default=168, gt=0, description="hours after which changes leave the feed"
    )

    census_seconds: float = Field(
        default=15, gt=0, description="between two counts of the mints under way, for the metrics"
    )

    reconciliation_grace_seconds: float = Field(
        default=60, ge=0, description="what changed less long ago is not judged by reconciliation"
    )
    reconciliation_lease_seconds: float = Field(
        default=90, gt=0, description="how long a step of reconciliation may take"
    )

    @property
    def reconciliation_grace(self) -> timedelta:
        """How long a change may be under way between services."""
        return timedelta(seconds=self.reconciliation_grace_seconds)

    @property
    def reconciliation_lease(self) -> timedelta:
        """How long the step of a crashed replica waits for another one."""
        return timedelta(seconds=self.reconciliation_lease_seconds)

    @property
    def census_interval(self) -> timedelta:
        """The time between two counts."""
        return timedelta(seconds=self.census_seconds)

    @property
    def feed_limits(self) -> FeedLimits:
        """What watchers may cost."""
        return FeedLimits(
            streams=self.max_streams,
            streams_per_user=self.max_streams_per_user,
            checkpoint=timedelta(seconds=self.checkpoint_seconds),
            retention=timedelta(hours=self.feed_retention_hours),
        )
