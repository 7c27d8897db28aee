"""Run everything on this machine: train if nothing is promoted, start the services, show one answer.

The services are the processes of the Procfile. Ctrl-C stops them all.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from gateway.settings import GatewaySettings
from retrieval_svc.settings import RetrievalSettings
from twotower.bundle import read_bundle
from twotower.errors import OperationError, SettingsError
from twotower.process import run
from twotower.promotion import read_current
from user_tower_svc.settings import UserTowerSettings

_ROOT: Final = Path(__file__).parent.parent
_PATIENCE_SECONDS: Final = 60


def main() -> None:
    """Train where needed, serve, and show that it works. Raises OperationError, one line."""
    user_tower = UserTowerSettings.load("make run", [])
    retrieval = RetrievalSettings.load("make run", [])
    gateway = GatewaySettings.load("make run", [])
    _check_ports(
        [
            ("USER_TOWER_PORT", user_tower.port),
            ("USER_TOWER_METRICS_PORT", user_tower.metrics_port),
            ("RETRIEVAL_PORT", retrieval.port),
            ("RETRIEVAL_METRICS_PORT", retrieval.metrics_port),
            ("GATEWAY_PORT", gateway.port),
        ]
    )
    if read_current(user_tower.folder) is None:
        _train()
    services = _start(
        {
            "GATEWAY_USER_TOWER": f"dns:///127.0.0.1:{user_tower.port}",
            "GATEWAY_RETRIEVAL": f"dns:///127.0.0.1:{retrieval.port}",
        }
    )
    address = f"http://127.0.0.1:{gateway.port}"
    try:
        _wait_until_ready(address, services)
        _show_top(address, *_some_user(user_tower.folder))
        print(f"\nREST                {address}/docs")
        print(f"user tower, gRPC    127.0.0.1:{user_tower.port}")
        print(f"retrieval, gRPC     127.0.0.1:{retrieval.port}")
        print("\nCtrl-C stops everything.\n", flush=True)
        services.wait()
        raise OperationError("a service ended; its last lines are above")
    finally:
        services.terminate()
        services.wait()


def _check_ports(ports: Sequence[tuple[str, int]]) -> None:
    taken: dict[int, str] = {}
    for name, port in ports:
        if not port:
            raise SettingsError(f"{name}=0: here the port must be known; set it to a free one")
        if port in taken:
            raise SettingsError(f"port {port}: is both {taken[port]} and {name}; set one to another")
        taken[port] = name
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError as error:
            fault = os.strerror(error.errno or 0).lower()
            raise SettingsError(f"port {port}: {fault}; set {name} to another") from error


def _train() -> None:
    print("no model is promoted yet: training one on the data set that comes along", flush=True)
    trained = subprocess.run(
        [sys.executable, "-m", "training", "train", "--promote"], cwd=_ROOT, check=False
    )
    if trained.returncode:
        raise OperationError("training did not end well; see above")


def _start(environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    # Apart from this terminal: Ctrl-C reaches this process alone, which then ends that one in order.
    return subprocess.Popen(
        [sys.executable, "-m", "honcho", "--app-root", str(_ROOT), "start"],
        env={**os.environ, **environment, "PATH": path},
        start_new_session=True,
    )


def _wait_until_ready(address: str, services: subprocess.Popen[bytes]) -> None:
    reason = "the gateway did not answer"
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        if services.poll() is not None:
            raise OperationError("a service could not start; its last lines are above")
        try:
            answer = httpx.get(f"{address}/readyz", timeout=2, trust_env=False)
            if answer.is_success:
                return
            reason = answer.json()["detail"]
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise OperationError(f"not ready after {_PATIENCE_SECONDS} s: {reason}")


def _some_user(bundles: Path) -> tuple[int, str]:
    """A user that the promoted model knows, the second where there is one, and what the data call it."""
    current = read_current(bundles)
    if current is None:
        raise OperationError("no model is promoted any more")
    _, bundle = read_bundle(bundles, current.current)
    ids, names = bundle.histories.user_ids[:2].tolist(), bundle.histories.external_ids
    return ids[-1], names[len(ids) - 1] if names else str(ids[-1])


def _show_top(address: str, user_id: int, name: str) -> None:
    url = f"{address}/v1/users/{user_id}/recommendations"
    answer: Any = httpx.get(url, timeout=10, trust_env=False).json()
    print(f"\nTop {len(answer['items'])} for user {name}, by model {answer['model_version']}:\n")
    for place, movie in enumerate(answer["items"], start=1):
        year = f" ({movie['year']})" if movie["year"] else ""
        predicted = movie["predicted_rating"]
        rating = "" if predicted is None else f"   rating {predicted:.2f}"
        print(f"{place:4}. {movie['title']}{year}{rating}")


def _until_interrupted() -> None:
    signal.signal(signal.SIGHUP, signal.default_int_handler)  # a closed terminal must leave nothing
    try:
        main()
    except KeyboardInterrupt:
        print("stopped", flush=True)


if __name__ == "__main__":
    run(_until_interrupted)
