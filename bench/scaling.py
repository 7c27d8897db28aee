"""How requests a second grow with the replicas of one service, the others being left alone.

Every replica of that service gets a small share of a core, so that a few of them fit on one machine.
What is measured is how throughput grows with their number, and what a core of each service is good for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench import workload, wrk
from training.dataset import EMBEDDED, read_dataset
from twotower.errors import OperationError
from twotower.files import write_atomically
from twotower.process import run

_ROOT: Final = Path(__file__).parent.parent
_SERVICES: Final = ("gateway", "user_tower_svc", "retrieval_svc")
_PROJECT: Final = "twotower-scaling"
_ROUNDS: Final = 3
_REQUESTS: Final = 2_000
_SEED: Final = 7
_CONNECTION_AGE_SECONDS: Final = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print a table. Raises OperationError where something is missing or a request fails."""
    options = _parser().parse_args(arguments)
    wrk.require("docker", "docker.io")
    wrk.require("wrk", "wrk")
    url = f"http://127.0.0.1:{options.port}"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        override, requests = Path(folder) / "limits.json", Path(folder) / "requests"
        workload.write(requests, _strangers())
        environment = {**os.environ, "TWOTOWER_PORT": str(options.port)}
        stack = _Stack([*options.compose.split(), *_files(override)], environment)
        try:
            for service in _SERVICES:
                override.write_text(json.dumps(_limits(service, options.cores)))
                for replicas in options.replicas:
                    stack.up({service: replicas})
                    rounds = [
                        wrk.load(url, requests, connections=options.connections, seconds=options.seconds)
                        for _ in range(_ROUNDS)
                    ]
                    rows.append(_row(service, replicas, options.cores, rounds))
                    print(_line(rows[-1]), flush=True)
        finally:
            stack.call("down", "--volumes")
    if options.json:
        write_atomically(options.json, json.dumps(rows, indent=1).encode() + b"\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("--cores", type=float, default=0.2, help="of each replica (default: 0.2)")
    parser.add_argument(
        "--replicas", type=int, nargs="+", default=[1, 2, 3], help="how many to try (default: 1 2 3)"
    )
    parser.add_argument("--seconds", type=int, default=8, help="of each of three rounds (default: 8)")
    parser.add_argument("--connections", type=int, default=32, help="of the load (default: 32)")
    parser.add_argument("--port", type=int, default=8000, help="to publish the stack on (default: 8000)")
    parser.add_argument("--compose", default="docker compose", help="the command (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was measured to a file")
    return parser


class _Stack:
    """docker-compose.yml with limits, as a project of its own."""

    def __init__(self, compose: Sequence[str], environment: Mapping[str, str]) -> None:
        self._compose, self._environment = compose, dict(environment)

    def up(self, replicas: Mapping[str, int]) -> None:
        """Have that many replicas, and give the gateway time to find them."""
        scales = [f"--scale={service}={replicas.get(service, 1)}" for service in _SERVICES]
        self.call("up", "-d", *scales)
        time.sleep(10 + 2 * _CONNECTION_AGE_SECONDS)

    def call(self, *arguments: str) -> None:
        done = subprocess.run(
            [*self._compose, *arguments],
            cwd=_ROOT,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise OperationError(f"{' '.join(arguments)}: {done.stderr.strip()[-500:]}")


def _files(override: Path) -> list[str]:
    files = (_ROOT / "docker-compose.yml", override)
    return ["--project-name", _PROJECT, *(word for file in files for word in ("--file", str(file)))]


def _limits(service: str, cores: float) -> dict[str, Any]:
    """An override: that service's replicas are held to some of a core, the others to none."""
    age = str(_CONNECTION_AGE_SECONDS)
    environments = {
        "user_tower_svc": {"USER_TOWER_MAX_CONNECTION_AGE_SECONDS": age},
        "retrieval_svc": {"RETRIEVAL_MAX_CONNECTION_AGE_SECONDS": age},
        # Whatever share of a core it has, it answers in the end; what counts here is how many.
        "gateway": {"GATEWAY_TIMEOUT_SECONDS": "20"},
    }
    everything = float(os.cpu_count() or 1)
    return {
        "services": {
            name: {
                "environment": {**environments[name], f"{_prefix(name)}_LOG_LEVEL": "warning"},
                # A check of health costs a quarter of a second of a core: much of a small share.
                "healthcheck": {"interval": "20s"},
                "deploy": {
                    "resources": {"limits": {"cpus": str(cores if name == service else everything)}}
                },
            }
            for name in _SERVICES
        }
    }


def _prefix(service: str) -> str:
    return service.removesuffix("_svc").upper()


def _strangers() -> list[bytes]:
    """Requests by users with ratings of their own: which users it knows is the stack's affair."""
    ratings = read_dataset(EMBEDDED).ratings
    counts = ratings["movie_id"].value_counts()
    return workload.requests(
        np.array(counts.index, dtype=np.int64),
        np.array(counts, dtype=np.int64),
        np.empty(0, np.int64),
        as_of=int(ratings["timestamp"].max()),
        count=_REQUESTS,
        seed=_SEED,
    )


def _row(service: str, replicas: int, cores: float, rounds: Sequence[wrk.Round]) -> dict[str, Any]:
    rate = statistics.median(each.requests_per_second for each in rounds)
    return {
        "service": service,
        "replicas": replicas,
        "cores_each": cores,
        "requests_per_second": round(rate, 1),
        "per_core": round(rate / (replicas * cores), 1),
        "p50_ms": round(statistics.median(each.p50_ms for each in rounds), 1),
        "p99_ms": round(statistics.median(each.p99_ms for each in rounds), 1),
    }


def _line(row: Mapping[str, Any]) -> str:
    return (
        f"{row['service']:15} {row['replicas']} x {row['cores_each']} cores: "
        f"{row['requests_per_second']:7.0f} requests/s, {row['per_core']:6.0f} a core, "
        f"p50 {row['p50_ms']:5.0f} ms, p99 {row['p99_ms']:5.0f} ms"
    )


if __name__ == "__main__":
    run(main)
