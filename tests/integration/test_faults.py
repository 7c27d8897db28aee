"""Frozen, killed, stopped and misconfigured services: every request still ends well."""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from clients import ask, load, wait_for_more
from services import (
    NO_TLS,
    Service,
    Stack,
    free_port,
    gateway_service,
    model_service,
    running,
    running_stack,
    wait_until,
)
from twotower.v1 import retrieval_pb2, user_tower_pb2
from twotower.v1.retrieval_pb2_grpc import (
    RetrievalServiceStub,
)
from twotower.v1.user_tower_pb2_grpc import (
    UserTowerServiceStub,
)

TIMEOUT = 1.0
"""What the gateways of these tests give a request, in seconds."""
MARGIN = 1.0


@pytest.fixture(scope="module")
def fragile(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Services that a test may hurt, if it waits until they are well again."""
    logs = tmp_path_factory.mktemp("fragile")
    with running_stack(stack.bundles, logs, timeout_seconds=str(TIMEOUT)) as running_services:
        yield running_services


def ask_at_once(url: str, count: int) -> list[tuple[httpx.Response, float]]:
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: ask(url), range(count)))


def check_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize("module", ["user_tower_svc", "retrieval_svc"])
def test_a_frozen_service(fragile: Stack, module: str) -> None:
    frozen = fragile.user_tower if module == "user_tower_svc" else fragile.retrieval
    with frozen.frozen(), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(ask_at_once, fragile.url, 20)
        time.sleep(TIMEOUT / 4)
        start = time.monotonic()
        assert httpx.get(f"{fragile.url}/healthz", verify=NO_TLS).status_code == 200
        assert time.monotonic() - start < 1
        ready = httpx.get(f"{fragile.url}/readyz")
        check_unavailable(ready)
        assert "did not answer in time" in ready.json()["detail"]
        for answer, seconds in asked.result():
            assert answer.status_code in (503, 504), answer.text
            assert answer.headers["content-type"] == "application/problem+json"
            assert "did not answer in time" in answer.json()["detail"]
            assert seconds < TIMEOUT + MARGIN
    fragile.wait_ready(10)
    assert {answer.status_code for answer, _ in ask_at_once(fragile.url, 20)} == {200}


@pytest.mark.parametrize("module", ["user_tower_svc", "retrieval_svc"])
def test_a_killed_service(fragile: Stack, module: str) -> None:
    killed = fragile.user_tower if module == "user_tower_svc" else fragile.retrieval
    gateway = fragile.gateway.process.pid
    killed.stop(signal.SIGKILL)
    try:
        for _ in range(5):
            answer, seconds = ask(fragile.url)
            check_unavailable(answer)
            assert "cannot be reached" in answer.json()["detail"]
            assert seconds < TIMEOUT + MARGIN
        assert not fragile.is_ready()
    finally:
        killed.start()
    start = time.monotonic()
    fragile.wait_ready(10)
    wait_until(lambda: ask(fragile.url)[0].status_code == 200, "an answer", 10)
    assert time.monotonic() - start < 10
    assert {answer.status_code for answer, _ in ask_at_once(fragile.url, 8)} == {200}
    assert fragile.gateway.process.pid == gateway
    assert fragile.gateway.process.poll() is None


def test_a_browser_is_shown_the_failure(tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    friend, foe = "https://friend.example", "https://foe.example"
    service = gateway_service(nowhere, nowhere, tmp_path, cors_origins=json.dumps([friend]))
    with running(service), httpx.Client(base_url=f"http://{service.address}", timeout=10) as client:
        wait_until(service.is_listening, "the gateway listening")
        for origin, header in ((friend, friend), (foe, None)):
            answer = client.post("/v1/recommendations", json={"user_id": 1}, headers={"origin": origin})
            check_unavailable(answer)
            assert answer.headers.get("access-control-allow-origin") == header
            wish = {"origin": origin, "access-control-request-method": "POST"}
            preflight = client.options("/v1/recommendations", headers=wish)
            assert preflight.headers.get("access-control-allow-origin") == header
            assert preflight.is_success == (header is not None)
        refusal = preflight.json()
        assert (refusal["status"], refusal["errors"][0]["field"]) == (422, "origin")
        assert refusal["request_id"] == preflight.headers["x-request-id"]
        assert "Origin" in preflight.headers["vary"]
        assert client.get("/readyz").status_code == 503
        assert client.get("/healthz").status_code == 200
    assert "Traceback" not in service.log_path.read_text()


def test_requests_under_way_end_when_the_gateway_stops(stack: Stack, tmp_path: Path) -> None:
    tower = model_service("user_tower_svc", stack.bundles, tmp_path)
    service = gateway_service(tower.address, stack.retrieval.address, tmp_path)
    url = f"http://{service.address}"
    with running(tower), running(service), ThreadPoolExecutor(10) as pool:
        wait_until(tower.is_serving, "the user tower serving")
        wait_until(service.is_listening, "the gateway listening")
        assert ask(url)[0].status_code == 200
        with tower.frozen():
            asked = [pool.submit(ask, url) for _ in range(10)]
            time.sleep(0.5)
            service.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not service.is_listening(), "no more connections taken")
            time.sleep(0.5)
            assert service.process.poll() is None
        assert [request.result()[0].status_code for request in asked] == [200] * 10
        assert service.process.wait(timeout=10) == 0
    assert "Traceback" not in service.log_path.read_text()


def batch_call(service: Service, channel: grpc.Channel) -> Callable[[], grpc.Future[Any]]:
    """A call that takes the service a while."""
    if service.module == "user_tower_svc":
        users = [user_tower_pb2.EmbedUserRequest(user_id=15)] * 200
        request = user_tower_pb2.BatchEmbedUsersRequest(users=users)
        return lambda: UserTowerServiceStub(channel).BatchEmbedUsers.future(request, timeout=20)
    with_answer = RetrievalServiceStub(channel)
    version = with_answer.GetMovies(retrieval_pb2.GetMoviesRequest(movie_ids=[1])).model_version
    embedding = {"retrieval": [1.0, *[0.0] * 31], "model_version": version}
    searches = [retrieval_pb2.RetrieveMoviesRequest(embedding=embedding, k=100)] * 200
    batch = retrieval_pb2.BatchRetrieveMoviesRequest(users=searches)
    return lambda: with_answer.BatchRetrieveMovies.future(batch, timeout=20)


@pytest.mark.parametrize("module", ["user_tower_svc", "retrieval_svc"])
def test_calls_under_way_end_when_a_service_stops(stack: Stack, tmp_path: Path, module: str) -> None:
    service = model_service(module, stack.bundles, tmp_path, workers="1", drain_seconds="20")
    with running(service), grpc.insecure_channel(service.address) as channel:
        wait_until(service.is_serving, f"{module} serving")
        call = batch_call(service, channel)
        calls = [call() for _ in range(8)]
        calls[0].result()
        service.process.send_signal(signal.SIGTERM)
        wait_until(lambda: service.events("draining"), "draining")
        under_way = sum(not call.done() for call in calls)
        assert [len(call.result().results) for call in calls]
        assert service.process.wait(timeout=10) == 0
        assert under_way, "all calls had ended before the stop: this run shows nothing"
        with pytest.raises(grpc.RpcError) as caught:
            call().result()
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert not service.is_listening()
    assert service.log()[-1]["event"] == "stopped"
    assert "Traceback" not in service.log_path.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_gateway_that_is_stopped_while_it_starts(tmp_path: Path, number: int) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    service = gateway_service(nowhere, nowhere, tmp_path)
    with running(service):
        deadline = time.monotonic() + 20
        while not service.log_path.stat().st_size and time.monotonic() < deadline:
            time.sleep(0.0005)  # before uvicorn is up: the first line comes a few milliseconds earlier
        service.process.send_signal(number)
        assert service.process.wait(timeout=10) == 0


MODULES = [("user_tower_svc", "USER_TOWER"), ("retrieval_svc", "RETRIEVAL"), ("gateway", "GATEWAY")]


@pytest.fixture(params=MODULES, ids=lambda module: str(module[0]))
def startable(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Service, str]:
    """Each of the three services, with nothing to serve; and the prefix of its settings."""
    module, prefix = request.param
    nowhere = f"127.0.0.1:{free_port()}"
    if module == "gateway":
        return gateway_service(nowhere, nowhere, tmp_path), prefix
    return model_service(module, tmp_path, tmp_path), prefix


def test_a_taken_port(startable: tuple[Service, str]) -> None:
    service, _ = startable
    with socket.create_server(("127.0.0.1", service.port)):
        ended = service.run_to_end()
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert ended.stderr == f"error: cannot listen on {service.address}: Address already in use\n"


@pytest.mark.parametrize("module", ["user_tower_svc", "retrieval_svc"])
def test_a_taken_port_of_the_metrics(tmp_path: Path, module: str) -> None:
    service = model_service(module, tmp_path, tmp_path)
    with socket.create_server(("127.0.0.1", service.metrics_port)):
        ended = service.run_to_end()
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == (
        f"error: cannot serve metrics on 127.0.0.1:{service.metrics_port}: Address already in use\n"
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORT", "http", "valid integer"),
        ("HOST", "203.0.113.1", "cannot listen on 203.0.113.1"),
    ],
)
def test_a_bad_setting(startable: tuple[Service, str], name: str, value: str, words: str) -> None:
    service, prefix = startable
    service.environment = {**service.environment, f"{prefix}_{name}": value}
    ended = service.run_to_end()
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: ")
    assert value in line
    assert words in line
    assert name == "HOST" or f"{prefix}_{name}='{value}'" in line


@pytest.mark.parametrize("module", ["user_tower_svc", "retrieval_svc"])
def test_a_service_that_stops_under_load(fragile: Stack, module: str) -> None:
    stopped = fragile.user_tower if module == "user_tower_svc" else fragile.retrieval
    with load(fragile.url) as outcomes:
        wait_for_more(outcomes, 20)
        assert stopped.stop() == 0
        wait_for_more(outcomes, 20)
        stopped.start()
        fragile.wait_ready(10)
        wait_for_more(outcomes, 20)
    lost = [json.loads(outcome)["status"] for outcome in outcomes if outcome != "200"]
    assert {*lost} == {503}
    assert outcomes[-1] == "200"


def test_nothing_unexpected_was_logged(fragile: Stack) -> None:
    for service in fragile.services:
        assert "Traceback" not in service.log_path.read_text()
    answers = fragile.gateway.events("request")
    assert [line for line in answers if line["status"] in (500, 502)] == []
