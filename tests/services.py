"""Starts the product's real processes on free ports, and stops them."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
import httpx
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parent.parent
PATIENCE_SECONDS = 30.0
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients that are made often: the context they would make takes longer than a request."""


_given: set[int] = set()


def free_port() -> int:
    """A port to listen on, given to no one else in this run.

    It is below those that systems give to outgoing connections.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)
        if port in _given:
            continue
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        _given.add(port)
        return port


def wait_until(condition: Any, what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Poll until `condition()` is true; fail the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


@dataclass
class Service:
    """One process of the product, its standard output in `log_path`."""

    module: str
    port: int
    metrics_port: int
    log_path: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(**self._command(), stdout=log, stderr=log)

    def run_to_end(self) -> subprocess.CompletedProcess[str]:
        """How it ends if it cannot start."""
        return subprocess.run(**self._command(), capture_output=True, text=True, check=False, timeout=20)

    def check_running(self) -> None:
        """Fail, with its last words, if it has ended."""
        assert self.process.poll() is None, self.log_path.read_text()[-2000:]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=20)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def log(self) -> list[dict[str, Any]]:
        """The JSON lines written so far."""
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def events(self, event: str) -> list[dict[str, Any]]:
        """The log lines of that event."""
        return [line for line in self.log() if line["event"] == event]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        families = text_string_to_metric_families(
            httpx.get(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=5, verify=NO_TLS).text
        )
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stopped, but not ended, while the block runs."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def _command(self) -> dict[str, Any]:
        return {
            "args": [sys.executable, "-m", self.module],
            "cwd": ROOT,
            "env": {**os.environ, "PYTHONWARNINGS": "error", **self.environment},
        }

    def is_listening(self) -> bool:
        """Whether connections are taken."""
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def is_serving(self) -> bool:
        """What gRPC health says."""
        try:
            with grpc.insecure_channel(self.address) as channel:
                answer = HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


@dataclass
class Stack:
    """The three services, talking to each other."""

    bundles: Path
    user_tower: Service
    retrieval: Service
    gateway: Service

    @property
    def services(self) -> Sequence[Service]:
        return self.user_tower, self.retrieval, self.gateway

    @property
    def url(self) -> str:
        return f"http://{self.gateway.address}"

    def is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=2, verify=NO_TLS).is_success
        except httpx.TransportError:
            return False

    def wait_ready(self, seconds: float = PATIENCE_SECONDS) -> None:
        def running_and_ready() -> bool:
            for service in self.services:
                service.check_running()
            return self.is_ready()

        wait_until(running_and_ready, "the gateway ready", seconds)


@contextmanager
def running(service: Service) -> Iterator[Service]:
    """The service while the block runs; killed if it does not stop in order."""
    service.start()
    try:
        yield service
    finally:
        try:
            service.stop()
        except subprocess.TimeoutExpired:
            service.process.kill()
            service.process.wait()
            raise


def model_service(module: str, bundles: Path, logs: Path, **settings: str) -> Service:
    """A user tower or retrieval service over a folder of bundles; settings by their short names."""
    prefix = {"user_tower_svc": "USER_TOWER", "retrieval_svc": "RETRIEVAL"}[module]
    port, metrics_port = free_port(), free_port()
    environment = {
        "TWOTOWER_BUNDLES": str(bundles),
        f"{prefix}_PORT": str(port),
        f"{prefix}_METRICS_PORT": str(metrics_port),
        f"{prefix}_POLL_SECONDS": "0.1",
        **{f"{prefix}_{name.upper()}": value for name, value in settings.items()},
    }
    return Service(module, port, metrics_port, logs / f"{module}-{port}.log", environment)


def gateway_service(user_tower: str, retrieval: str, logs: Path, **settings: str) -> Service:
    """A gateway in front of two gRPC targets; settings by their short names."""
    port = free_port()
    environment = {
        "GATEWAY_PORT": str(port),
        "GATEWAY_USER_TOWER": user_tower,
        "GATEWAY_RETRIEVAL": retrieval,
        **{f"GATEWAY_{name.upper()}": value for name, value in settings.items()},
    }
    return Service("gateway", port, port, logs / f"gateway-{port}.log", environment)


@contextmanager
def running_stack(
    bundles: Path,
    logs: Path,
    *,
    retrieval_bundles: Path | None = None,
    ready: bool = True,
    user_tower: Mapping[str, str] = MappingProxyType({}),
    retrieval: Mapping[str, str] = MappingProxyType({}),
    **gateway: str,
) -> Iterator[Stack]:
    """All three services over a folder of bundles, each with settings by their short names.

    They are ready to answer, or listen at least, where the caller does not want to wait for more.
    """
    embedding = model_service("user_tower_svc", bundles, logs, **user_tower)
    searching = model_service("retrieval_svc", retrieval_bundles or bundles, logs, **retrieval)
    stack = Stack(
        bundles,
        embedding,
        searching,
        gateway_service(embedding.address, searching.address, logs, **gateway),
    )
    with ExitStack() as services:
        for service in stack.services:
            services.enter_context(running(service))
        for service in stack.services:
            wait_until(service.is_listening, f"{service.module} listening")
        if ready:
            stack.wait_ready()
        try:
            yield stack
        finally:
            for service in stack.services:
                service.process.terminate()  # all at once: each takes a moment to end
