"""Settings of the Points service: POINTS_LISTEN, POINTS_DATABASE_URL and the chassis's others."""

from pydantic_settings import SettingsConfigDict

from mesh.config import ServiceSettings


class PointsSettings(ServiceSettings):
    """The environment variables that begin with POINTS_."""

    model_config = SettingsConfigDict(**{**ServiceSettings.model_config, "env_prefix": "POINTS_"})
