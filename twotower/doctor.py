"""Saying what a process stands on, and whether that will do: `doctor` of every service."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf.internal import api_implementation

from twotower import __version__
from twotower.errors import OperationError
from twotower.settings import ProcessSettings
from twotower.v1 import embedding_pb2 as pb

_TELLING: Final = ("sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "amx_tile", "asimd", "sve")
"""The CPU's features that the model runtime and the index choose their code by."""
_WIDTH: Final = 12


class Check(NamedTuple):
    """Something that may fail: its name, and what says how it stands, or raises any error."""

    name: str
    run: Callable[[], str]


def examine(settings: ProcessSettings, checks: Sequence[Check]) -> None:
    """Print what this process stands on, a line for each check. Raises OperationError if one fails."""
    failed = []
    for name, check in [*_every_process(settings), *checks]:
        try:
            found = check()
        except Exception as error:  # noqa: BLE001 - whatever is wrong here is what is asked for
            failed.append(name)
            found = f"FAILED: {error}" if isinstance(error, OperationError) else f"FAILED: {error!r}"
        sys.stdout.write(f"{name:{_WIDTH}} {found}\n")
    if failed:
        raise OperationError(f"this will not do: {', '.join(failed)}")


def _every_process(settings: ProcessSettings) -> list[Check]:
    return [
        Check("twotower", lambda: f"{__version__}, revision {settings.revision}"),
        Check("Python", lambda: f"{platform.python_version()} on {platform.platform()}"),
        Check("CPU", _describe_cpu),
        Check("protobuf", _try_protobuf),
        Check("gRPC", lambda: version("grpcio")),
    ]


def _describe_cpu() -> str:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.machine()}, {usable} cores; {' '.join(_cpu_features()) or 'features unknown'}"


def _cpu_features() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # none but Linux has it
        return []
    named = (line.partition(":") for line in lines)
    features = {word for name, _, words in named for word in words.split() if _lists_features(name)}
    return [feature for feature in _TELLING if feature in features]


def _lists_features(name: str) -> bool:
    return name.strip() in ("flags", "Features")  # of x86-64, of aarch64


def _try_protobuf() -> str:
    said = pb.Model(model_version="a", movie_count=1)
    if pb.Model.FromString(said.SerializeToString()) != said:
        raise OperationError("a message does not survive being written and read")
    return f"{version('protobuf')} ({api_implementation.Type()}), reads what it writes"
