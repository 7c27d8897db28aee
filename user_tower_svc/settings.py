"""Settings of the user tower service."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from twotower.settings import ModelServiceSettings, Port


class UserTowerSettings(ModelServiceSettings):
    """The user tower service: embeds users over gRPC."""

    model_config = SettingsConfigDict(env_prefix="USER_TOWER_")

    port: Port = Field(50051, description="port of the gRPC service; 0 for any free one")
    metrics_port: Port = Field(9151, description="port of the Prometheus metrics; 0 for none")
