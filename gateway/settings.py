"""Settings of the gateway."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field
from pydantic_settings import SettingsConfigDict

from twotower.settings import Port, ProcessSettings, Seconds

_NAME: Final = r"(dns:(//[^/]*/)?)?([\w.-]+|\[[\da-fA-F:.]+\]):\d{1,5}"
_ADDRESSES: Final = (
    r"ipv4:[\d.]+:\d{1,5}(,[\d.]+:\d{1,5})*|ipv6:\[[^\]]+\]:\d{1,5}(,\[[^\]]+\]:\d{1,5})*"
)


def _check_target(target: str) -> str:
    """A mistake in a target would else be a service that can never be reached."""
    if not re.fullmatch(f"{_NAME}|{_ADDRESSES}", target, re.ASCII):
        raise ValueError("allowed are host:port, dns:///host:port, and ipv4: or ipv6:address:port,...")
    return target


def _check_origin(origin: str) -> str:
    """A mistake in an origin would else be one that no browser ever has."""
    if not re.fullmatch(r"\*|[a-z][a-z0-9+.-]*://[^/?#\s]+", origin):
        raise ValueError("allowed are scheme://host and scheme://host:port, without a path, and *")
    return origin


Target = Annotated[str, AfterValidator(_check_target)]
Origin = Annotated[str, AfterValidator(_check_origin)]


class GatewaySettings(ProcessSettings):
    """The gateway: recommendations over REST."""

    model_config = SettingsConfigDict(env_prefix="GATEWAY_")

    port: Port = Field(8000, description="port of the REST API; 0 for any free one")
    user_tower: Target = Field(
        "dns:///127.0.0.1:50051", description="gRPC target of the user tower's replicas"
    )
    retrieval: Target = Field(
        "dns:///127.0.0.1:50052", description="gRPC target of retrieval's replicas"
    )
    timeout_seconds: Seconds = Field(2.0, description="how long a request may take")
    ready_timeout_seconds: Seconds = Field(0.5, description="how long /readyz waits for a service")
    max_batch_rows: int = Field(128, ge=1, le=1024, description="most requests that go together")
    max_batch_bytes: int = Field(
        8 * 2**20,
        ge=2**16,
        le=2**30,
        description="most bytes that go together; services must accept it",
    )
    batches_in_flight: int = Field(
        0,
        ge=0,
        le=1024,
        description="batches under way at once; 0: one for each replica of both services, by DNS",
    )
    max_body_bytes: int = Field(2**20, ge=2**10, le=2**28, description="largest request body to accept")
    read_seconds: Seconds = Field(30.0, description="how long a request may take to come whole")
    drain_seconds: Seconds = Field(5.0, description="how long requests under way may end at a stop")
    cors_origins: list[Origin] = Field(
        [], description="origins that browsers may call from, as a JSON list"
    )
