"""The load: wrk, which sends the requests of a file over some connections for some seconds."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from twotower.errors import OperationError, SettingsError

_SCRIPT: Final = Path(__file__).with_name("replay.lua")
_PATIENCE_SECONDS: Final = 120
"""How long wrk waits for an answer: a slow one is counted as slow, not as failed."""


class Round(NamedTuple):
    """What one run of wrk measured."""

    requests: float
    requests_per_second: float
    p50_ms: float
    p99_ms: float


def require(command: str, package: str) -> None:
    """Raise SettingsError, with the package that has it, where a command is not installed."""
    if not shutil.which(command):
        raise SettingsError(f"{command} is not installed; Debian has it in {package}")


def load(url: str, requests: Path, *, connections: int, seconds: int) -> Round:
    """Post the bodies of a file, one a line, to `url`/v1/recommendations.

    Raises OperationError where a request fails, or none is answered.
    """
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(connections), "--latency"),
            *("--timeout", f"{_PATIENCE_SECONDS}s", "--duration", f"{seconds}s"),
            *("--script", str(_SCRIPT), url),
        ],
        env={**os.environ, "BENCH_REQUESTS": str(requests)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise OperationError(f"wrk: {(done.stderr or done.stdout).strip()[-500:]}")
    measured: dict[str, float] = json.loads(done.stderr.splitlines()[-1])
    if measured["failed"] or not measured["requests"]:
        raise OperationError(
            f"{measured['failed']:.0f} requests failed, {measured['requests']:.0f} were answered"
        )
    rate = measured["requests"] / measured["seconds"]
    return Round(measured["requests"], rate, measured["p50_ms"], measured["p99_ms"])
