"""What the settings of every process share: reading them from the environment and the command line."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, CliPositionalArg, CliToggleFlag, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableSetting

from twotower.errors import SettingsError

Port = Annotated[int, Field(ge=0, le=65535)]
S3_ADDRESS: Final = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$"
S3Address = Annotated[str, Field(pattern=S3_ADDRESS)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]


def _check_address(bundles: Any) -> Any:
    """A mistake in an address must not become the name of a folder."""
    if re.match(r"s3:", str(bundles), re.IGNORECASE) and not re.match(S3_ADDRESS, str(bundles)):
        raise ValueError("allowed is a folder, s3://bucket or s3://bucket/prefix")
    return bundles


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(
        frozen=True,
        extra="ignore",
        env_ignore_empty=True,
        cli_kebab_case=True,
        cli_hide_none_type=True,
        cli_show_env_vars=True,
        cli_shortcuts={
            "twotower-bundles": "bundles",
            "twotower-revision": "revision",
            "twotower-cache": "cache",
        },
    )


class BundleSettings(_Settings):
    """Where the bundles are: the same for training and every service."""

    bundles: Annotated[S3Address | Path, BeforeValidator(_check_address)] = Field(
        Path("bundles"),
        validation_alias="TWOTOWER_BUNDLES",
        description="folder of the bundles, or where they lie in S3, s3://bucket/prefix",
    )

    @property
    def folder(self) -> Path:
        """The folder of the bundles. Raises SettingsError where they lie in S3."""
        if isinstance(self.bundles, str):
            raise SettingsError(
                f"TWOTOWER_BUNDLES={self.bundles}: only services read from S3; name a folder, and "
                "publish from there"
            )
        return self.bundles


class ProcessSettings(_Settings):
    """Settings that every process has; each subclass sets the prefix of its environment variables."""

    command: CliPositionalArg[Literal["serve", "doctor"]] = Field(
        "serve", description="`serve`, or `doctor`: say whether this machine will do, and the model"
    )
    health: CliToggleFlag[bool] = Field(
        False, description="ask the process that serves with these settings whether it is healthy"
    )
    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 in a container")
    revision: str = Field(
        "unknown",
        validation_alias="TWOTOWER_REVISION",
        description="the commit that this was built from",
    )
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
            named = next((name for name in cls.model_fields if f'"{name}"' in str(error)), "")
            variable = cls._variable(named)
            given = os.environ.get(variable, "")
            raise SettingsError(f"{variable}={given!r} is not JSON: {error.__cause__}") from error

    @classmethod
    def _describe(cls, fault: Any) -> str:
        name = str(fault["loc"][0])
        variable = cls._variable(name)
        # A list there has the value at fault among others.
        shown = variable if str(fault["input"]) in os.environ.get(variable, "") else name
        return f"{shown}={fault['input']!r}: {fault['msg']}"

    @classmethod
    def _variable(cls, name: str) -> str:
        return f"{cls.model_config['env_prefix']}{name}".upper()


class ModelServiceSettings(ProcessSettings, BundleSettings):
    """Settings of a gRPC service that serves models from a folder of bundles."""

    port: Port
    metrics_port: Port
    workers: int = Field(4, ge=1, le=64, description="threads that answer requests")
    cache: Path = Field(
        Path("bundles-from-s3"),
        validation_alias="TWOTOWER_CACHE",
        description="folder that bundles from S3 are kept in, each service in one of its own",
    )
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
