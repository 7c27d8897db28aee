"""What the settings of every process share: reading them from the environment and the command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSetting

from twotower.errors import SettingsError

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_show_env_vars=True,
        cli_shortcuts={"twotower-bundles": "bundles"},
    )


class BundleSettings(_Settings):
    """Where the bundles are: the same for training and every service."""

    bundles: Path = Field(
        Path("bundles"), validation_alias="TWOTOWER_BUNDLES", description="folder of the bundles"
    )


class ProcessSettings(_Settings):
    """Settings that every process has; each subclass sets the prefix of its environment variables."""

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in a container")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe log lines to print"
    )

    @classmethod
    def load(cls, program: str, arguments: list[str] | None = None) -> Self:
        """Read the command line over the environment over the defaults. `--help` lists all.

        Raises SettingsError naming the setting, the value and what is allowed.
        """
        try:
            return cls(
                _cli_prog_name=program,
                _cli_parse_args=sys.argv[1:] if arguments is None else arguments,
            )
        except ValidationError as error:
            raise SettingsError("; ".join(map(cls._describe, error.errors()))) from error
        except UnreadableSetting as error:  # a list or the like, and not JSON
            raise SettingsError(f"{error}: {error.__cause__}") from error

    @classmethod
    def _describe(cls, fault: Any) -> str:
        name = str(fault["loc"][0])
        variable = f"{cls.model_config['env_prefix']}{name}".upper()
        shown = variable if os.environ.get(variable) == str(fault["input"]) else name
        return f"{shown}={fault['input']!r}: {fault['msg']}"


class ModelServiceSettings(ProcessSettings, BundleSettings):
    """Settings of a gRPC service that serves models from a folder of bundles."""

    port: Port
    metrics_port: Port
    workers: int = Field(4, ge=1, le=64, description="threads that answer requests")
    poll_seconds: Seconds = Field(1.0, description="how often to look for a newly promoted model")
    keep_seconds: Seconds = Field(
        60.0,
        description="how long a model that is no longer promoted is kept after its last request",
    )
    drain_seconds: Seconds = Field(5.0, description="how long requests under way may end at a stop")
    max_message_bytes: int = Field(
        16 * 2**20, ge=2**16, le=2**30, description="largest gRPC message to accept"
    )
    max_connection_age_seconds: Seconds = Field(
        30.0, description="age at which a connection is renewed, so that clients find new replicas"
    )
