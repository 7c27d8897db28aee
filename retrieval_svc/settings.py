"""Settings of the retrieval service."""

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from twotower.settings import ModelServiceSettings, Port


class RetrievalSettings(ModelServiceSettings):
    """The retrieval service: finds the movies nearest to an embedding, over gRPC."""

    model_config = SettingsConfigDict(env_prefix="RETRIEVAL_")

    port: Port = Field(50052, description="port of the gRPC service; 0 for any free one")
    metrics_port: Port = Field(9152, description="port of the Prometheus metrics; 0 for none")
