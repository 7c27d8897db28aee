"""What a service does until it has its first model: the load lasts for as long as a test holds it."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from builders import damage
from conftest import Trained
from services import (
    NO_TLS,
    Service,
    Stack,
    gateway_service,
    model_service,
    running,
    wait_until,
)
from twotower.manifest import MANIFEST
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2, user_tower_pb2
from twotower.v1.retrieval_pb2_grpc import RetrievalServiceStub
from twotower.v1.user_tower_pb2_grpc import UserTowerServiceStub

MODULES = ["user_tower_svc", "retrieval_svc"]
_IMPATIENT = """
from {module}.__main__ import main
from twotower import process, server
server._LONGEST_SILENCE_SECONDS = 0.1
process.run(main)
"""


@dataclass
class HeldBundle:
    """A promoted bundle whose manifest cannot be read to its end until it is let go."""

    bundles: Path
    path: Path
    content: bytes
    _pipes: list[int] = field(default_factory=list)

    def is_being_loaded(self) -> bool:
        """Whether a service waits for the manifest; it goes on to."""
        try:
            self._pipes.append(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:  # nobody reads it yet
            return False
        return True

    def let_go(self) -> None:
        """Let one service have what it waits for."""
        os.write(self._pipes[-1], self.content)
        self.close()

    def close(self) -> None:
        while self._pipes:
            os.close(self._pipes.pop())


def hold_bundle(trained: Trained, bundles: Path) -> HeldBundle:
    path = trained.copy(bundles, trained.first) / trained.first / MANIFEST
    held = HeldBundle(bundles, path, path.read_bytes())
    path.unlink()
    os.mkfifo(path)
    return held


@pytest.fixture
def held(trained: Trained, tmp_path: Path) -> Iterator[HeldBundle]:
    bundle = hold_bundle(trained, tmp_path / "held")
    yield bundle
    bundle.close()


@dataclass
class ImpatientService(Service):
    """A service that waits for a first model but a moment."""

    def _command(self) -> dict[str, Any]:
        code = _IMPATIENT.format(module=self.module)
        return {**super()._command(), "args": [sys.executable, "-c", code]}


def ask(service: Service) -> str:
    """What it says to a call that takes a model: nothing, or why it cannot answer."""
    with grpc.insecure_channel(service.address) as channel:
        try:
            if service.module == "retrieval_svc":
                movies = retrieval_pb2.GetMoviesRequest(movie_ids=[1])
                RetrievalServiceStub(channel).GetMovies(movies, timeout=5)
            else:
                user = user_tower_pb2.EmbedUserRequest(ratings=[pb.Rating(movie_id=1, rating=5)])
                UserTowerServiceStub(channel).EmbedUser(user, timeout=5)
        except grpc.RpcError as error:
            return str(error.details())
    return ""


@pytest.mark.parametrize("module", MODULES)
def test_no_connection_is_taken_before_the_model_is_loaded(
    held: HeldBundle, tmp_path: Path, module: str
) -> None:
    with running(model_service(module, held.bundles, tmp_path)) as service:
        wait_until(held.is_being_loaded, "the model being loaded")
        assert not service.is_listening()
        assert service.metric("process_start_time_seconds") > 0
        held.let_go()
        wait_until(service.is_listening, "it listening")
        assert service.is_serving()
        assert ask(service) == ""
        events = [line["event"] for line in service.log()]
        assert events.index("model preferred") < events.index("listening")


@pytest.mark.parametrize("module", MODULES)
def test_without_a_model_it_listens_and_tells_why(tmp_path: Path, module: str) -> None:
    with running(model_service(module, tmp_path / "none", tmp_path)) as service:
        wait_until(service.is_listening, "it listening")
        assert ask(service) == "no model is loaded: none is promoted"
        assert not service.is_serving()


@pytest.mark.parametrize("module", MODULES)
def test_with_a_damaged_model_it_listens_and_tells_why(
    bundles: Path, trained: Trained, tmp_path: Path, module: str
) -> None:
    damage(bundles / trained.first / "movies.csv")
    with running(model_service(module, bundles, tmp_path)) as service:
        wait_until(service.is_listening, "it listening")
        assert "movies.csv: its content does not match the manifest's digest" in ask(service)
        assert not service.is_serving()


def test_a_look_that_hangs_does_not_keep_it_silent(held: HeldBundle, tmp_path: Path) -> None:
    patient = model_service("retrieval_svc", held.bundles, tmp_path)
    service = ImpatientService(
        patient.module, patient.port, patient.metrics_port, patient.log_path, patient.environment
    )
    with running(service):
        wait_until(held.is_being_loaded, "the model being loaded")
        wait_until(service.is_listening, "it listening")
        assert ask(service) == "no model is loaded: the first is being loaded"
        assert not service.is_serving()
        held.let_go()
        wait_until(service.is_serving, "it serving")
        assert ask(service) == ""


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_first_load_is_in_order(
    held: HeldBundle, tmp_path: Path, module: str, number: int
) -> None:
    with running(model_service(module, held.bundles, tmp_path)) as service:
        wait_until(held.is_being_loaded, "the model being loaded")
        assert service.stop(number) == 0
    assert service.log()[-1]["event"] == "stopped"
    assert service.events("listening") == []
    assert "Traceback" not in service.log_path.read_text()


@pytest.mark.parametrize("module", MODULES)
def test_a_stop_upon_a_pause_is_heeded(bundles: Path, tmp_path: Path, module: str) -> None:
    for _ in range(3):  # the kernel hands it to the main thread or to another, as it happens
        with running(model_service(module, bundles, tmp_path)) as service:
            wait_until(service.is_serving, "it serving")
            with service.frozen():
                service.process.terminate()
            assert service.process.wait(timeout=20) == 0


@pytest.mark.parametrize("module", MODULES)
def test_a_taken_port_is_found_before_anything_is_loaded(
    held: HeldBundle, tmp_path: Path, module: str
) -> None:
    service = model_service(module, held.bundles, tmp_path)
    for port, words in ((service.port, "listen"), (service.metrics_port, "serve metrics")):
        with socket.create_server(("127.0.0.1", port)):
            ended = service.run_to_end()
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr == f"error: cannot {words} on 127.0.0.1:{port}: Address already in use\n"


def test_a_port_that_is_lost_during_the_load_is_an_error(held: HeldBundle, tmp_path: Path) -> None:
    """Linux lets two hold a port, until one of them listens."""
    service = model_service("retrieval_svc", held.bundles, tmp_path)
    service.start()
    wait_until(held.is_being_loaded, "the model being loaded")
    with socket.create_server(("127.0.0.1", service.port)):
        held.let_go()
        assert service.process.wait(timeout=20) == 1
    said = service.log_path.read_text()
    assert said.endswith(f"error: cannot listen on {service.address}: is the port taken?\n")
    assert "Traceback" not in said


def test_calls_pass_over_replicas_that_still_load(
    stack: Stack, trained: Trained, tmp_path: Path
) -> None:
    """More of them than a call has attempts."""
    bundles = [hold_bundle(trained, tmp_path / f"held-{number}") for number in range(3)]
    loading = [model_service("retrieval_svc", bundle.bundles, tmp_path) for bundle in bundles]
    target = "ipv4:" + ",".join(service.address for service in (*loading, stack.retrieval))
    gateway = gateway_service(stack.user_tower.address, target, tmp_path)
    with ExitStack() as services:
        for service in (*loading, gateway):
            services.enter_context(running(service))
        for bundle in bundles:
            services.callback(bundle.close)
        client = services.enter_context(
            httpx.Client(base_url=f"http://{gateway.address}", timeout=10, verify=NO_TLS)
        )

        def recommend() -> int:
            return client.get("/v1/users/1/recommendations").status_code

        def have_answered() -> bool:
            assert recommend() == 200
            return all(service.metric("twotower_requests_total", code="OK") for service in loading)

        for bundle in bundles:
            wait_until(bundle.is_being_loaded, "the model being loaded")
        wait_until(gateway.is_listening, "the gateway listening")
        assert [recommend() for _ in range(20)] == [200] * 20
        for bundle in bundles:
            bundle.let_go()
        wait_until(have_answered, "all replicas answering")
        for service in loading:
            assert service.metric("twotower_requests_total", code="UNAVAILABLE") == 0
