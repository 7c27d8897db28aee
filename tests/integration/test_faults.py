"""Frozen, killed, stopped, misconfigured and lying services: every request still ends well."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
import httpx
import pytest

from conftest import Trained
from integration.oracle import golden_users
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
from twotower.bundle import Bundle
from twotower.v1 import retrieval_pb2, user_tower_pb2
from twotower.v1.retrieval_pb2_grpc import (
    RetrievalServiceServicer,
    RetrievalServiceStub,
    add_RetrievalServiceServicer_to_server,
)
from twotower.v1.user_tower_pb2_grpc import (
    UserTowerServiceServicer,
    UserTowerServiceStub,
    add_UserTowerServiceServicer_to_server,
)

TIMEOUT = 1.0
"""What the gateways of these tests give a request, in seconds."""
MARGIN = 1.0
PAUSE = 0.01
"""Between a client's requests: the machine is for the services."""


@pytest.fixture(scope="module")
def fragile(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Services that a test may hurt, if it waits until they are well again."""
    logs = tmp_path_factory.mktemp("fragile")
    with running_stack(stack.bundles, logs, timeout_seconds=str(TIMEOUT)) as running_services:
        yield running_services


def ask(url: str, user_id: int = 1) -> tuple[httpx.Response, float]:
    """The answer, and the seconds it took."""
    start = time.monotonic()
    body = {"user_id": user_id}
    answer = httpx.post(f"{url}/v1/recommendations", json=body, timeout=20, verify=NO_TLS)
    return answer, time.monotonic() - start


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


Found = retrieval_pb2.RetrieveMoviesResponse
Row = retrieval_pb2.RetrieveMoviesResult
Rows = list[Row]
UNRATABLE = 77
"""A movie whose mean rating cannot be."""


def tell(search: retrieval_pb2.RetrieveMoviesRequest) -> Found:
    """An answer that may be."""
    assert search.ids_only
    return Found(
        movie_ids=[1, 2, 5],
        scores=[0.5, 0.25, 0.125],
        predicted_ratings=[3.0, 3.0, 3.0],
        model_version=search.embedding.model_version,
        shortfall={"reason": 2, "requested": search.k, "returned": 3},
    )


class Liar(RetrievalServiceServicer):
    """A retrieval service that answers at will."""

    def __init__(self) -> None:
        self.distort: Callable[[Found], object] = lambda _: None
        """Changes the answer to one user."""
        self.arrange: Callable[[Rows], Rows] = lambda rows: rows
        """Changes the rows of a batch."""
        self.receive: Callable[[grpc.ServicerContext], None] = lambda _: None
        """May end a call before it is answered."""

    def BatchRetrieveMovies(  # noqa: N802 - the name is the contract's
        self, request: retrieval_pb2.BatchRetrieveMoviesRequest, context: grpc.ServicerContext
    ) -> retrieval_pb2.BatchRetrieveMoviesResponse:
        self.receive(context)
        found = [tell(search) for search in request.users]
        for answer in found:
            self.distort(answer)
        rows = self.arrange([Row(response=answer) for answer in found])
        return retrieval_pb2.BatchRetrieveMoviesResponse(results=rows)

    def GetMovies(  # noqa: N802
        self, request: retrieval_pb2.GetMoviesRequest, _context: grpc.ServicerContext
    ) -> retrieval_pb2.GetMoviesResponse:
        there = [movie_id for movie_id in request.movie_ids if movie_id >= 0]
        mean_rating = float("nan") if UNRATABLE in there else 3.0
        return retrieval_pb2.GetMoviesResponse(
            movies=[
                retrieval_pb2.Movie(movie_id=movie_id, title="A", mean_rating=mean_rating)
                for movie_id in there
            ],
            missing_movie_ids=[movie_id for movie_id in request.movie_ids if movie_id < 0],
            model_version=request.model_version,
        )

    def FindSimilarMovies(  # noqa: N802
        self, _request: retrieval_pb2.FindSimilarMoviesRequest, _context: grpc.ServicerContext
    ) -> retrieval_pb2.FindSimilarMoviesResponse:
        nan = {"movie": {"movie_id": 1}, "score": float("nan")}
        return retrieval_pb2.FindSimilarMoviesResponse(movies=[nan], model_version="any")

    def SearchMovies(  # noqa: N802
        self, _request: retrieval_pb2.SearchMoviesRequest, _context: grpc.ServicerContext
    ) -> retrieval_pb2.SearchMoviesResponse:
        infinite = {"movie_id": 1, "mean_rating": float("inf")}
        return retrieval_pb2.SearchMoviesResponse(movies=[infinite], model_version="any")


@pytest.fixture(scope="module")
def liar() -> Liar:
    return Liar()  # type: ignore[abstract]


@pytest.fixture(scope="module")
def deceived(stack: Stack, liar: Liar, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A gateway between a user tower and the liar."""
    logs = tmp_path_factory.mktemp("deceived")
    server = grpc.server(ThreadPoolExecutor(4))
    add_RetrievalServiceServicer_to_server(liar, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    gateway = gateway_service(stack.user_tower.address, f"127.0.0.1:{port}", logs)
    try:
        with running(gateway):
            wait_until(gateway.is_listening, "the gateway listening")
            yield gateway
    finally:
        server.stop(None).wait()


def set_score(score: float) -> Callable[[Found], None]:
    def distort(found: Found) -> None:
        found.scores[1] = score

    return distort


def set_rating(rating: float) -> Callable[[Found], None]:
    def distort(found: Found) -> None:
        found.predicted_ratings[1] = rating

    return distort


def set_id(movie_id: int) -> Callable[[Found], None]:
    def distort(found: Found) -> None:
        found.movie_ids[2] = movie_id

    return distort


def set_version(version: str) -> Callable[[Found], None]:
    def distort(found: Found) -> None:
        found.model_version = version

    return distort


def set_shortfall(reason: Any) -> Callable[[Found], None]:
    def distort(found: Found) -> None:
        found.shortfall.reason = reason

    return distort


def drop_a_score(found: Found) -> None:
    del found.scores[-1]


def keep_the_reason(found: Found) -> None:
    found.ClearField("shortfall")


LIES: dict[str, dict[str, Callable[..., Any]]] = {
    "a score too few": {"distort": drop_a_score},
    "too few movies and no word": {"distort": keep_the_reason},
    "NaN": {"distort": set_score(float("nan"))},
    "infinite": {"distort": set_score(float("inf"))},
    "minus infinite": {"distort": set_score(float("-inf"))},
    "a rating of NaN": {"distort": set_rating(float("nan"))},
    "no such movie": {"distort": set_id(-1)},
    "another model": {"distort": set_version("0123456789abcdef")},
    "no model": {"distort": set_version("")},
    "no reason for a shortfall": {"distort": set_shortfall(0)},
    "a reason of the future": {"distort": set_shortfall(99)},
    "too few rows": {"arrange": lambda rows: rows[:-1]},
    "too many rows": {"arrange": lambda rows: [*rows, *rows]},
    "an empty row": {"arrange": lambda rows: [Row() for _ in rows]},
}


def refuse_constant(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} is not JSON")


def check_bad_answer(answer: httpx.Response) -> None:
    assert answer.status_code == 502, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = json.loads(answer.text, parse_constant=refuse_constant)
    assert problem["type"] == "urn:twotower:problem:bad-answer"
    assert problem["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("lie", LIES)
def test_an_answer_that_cannot_be(
    deceived: Service, liar: Liar, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    url = f"http://{deceived.address}"
    method = "POST /v1/recommendations"
    honest, _ = ask(url)
    assert [item["movie_id"] for item in honest.json()["items"]] == [1, 2, 5]
    before = deceived.metric("twotower_requests_total", method=method, code="502")
    for name, behaviour in LIES[lie].items():
        monkeypatch.setattr(liar, name, behaviour)
    check_bad_answer(ask(url)[0])
    assert deceived.metric("twotower_requests_total", method=method, code="502") == before + 1
    monkeypatch.undo()
    assert ask(url)[0].json() == honest.json()
    assert "Traceback" not in deceived.log_path.read_text()


@pytest.mark.parametrize(
    "path",
    [
        "movies/1/similar",
        "movies:similar?external_id=a",
        f"movies/{UNRATABLE}",
        "movies?title=a",
    ],
)
def test_movies_that_cannot_be(deceived: Service, path: str) -> None:
    check_bad_answer(httpx.get(f"http://{deceived.address}/v1/{path}"))
    assert "Traceback" not in deceived.log_path.read_text()


class LyingTower(UserTowerServiceServicer):
    """A user tower that places every user where nobody can be."""

    def __init__(self, model_version: str) -> None:
        self._model_version = model_version
        self.vector: list[float] = []

    def BatchEmbedUsers(  # noqa: N802
        self, request: user_tower_pb2.BatchEmbedUsersRequest, _context: grpc.ServicerContext
    ) -> user_tower_pb2.BatchEmbedUsersResponse:
        embedding = {"retrieval": self.vector, "model_version": self._model_version, "strategy": 1}
        row = user_tower_pb2.EmbedUserResult(embedding=embedding)
        return user_tower_pb2.BatchEmbedUsersResponse(results=[row] * len(request.users))


def test_an_embedding_that_cannot_be(stack: Stack, trained: Trained, tmp_path: Path) -> None:
    tower = LyingTower(trained.first)  # type: ignore[abstract]
    server = grpc.server(ThreadPoolExecutor(4))
    add_UserTowerServiceServicer_to_server(tower, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    gateway = gateway_service(f"127.0.0.1:{port}", stack.retrieval.address, tmp_path)
    try:
        with running(gateway):
            wait_until(gateway.is_listening, "the gateway listening")
            for vector in ([float("nan")] * 32, [float("inf")] * 32, [1.0], []):
                tower.vector = vector
                answer = ask(f"http://{gateway.address}")[0]
                check_bad_answer(answer)
                assert answer.json()["errors"] == []
    finally:
        server.stop(None).wait()
    assert "Traceback" not in gateway.log_path.read_text()


@pytest.mark.parametrize("code", [grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE])
def test_a_call_that_a_closing_service_ends_is_made_again(
    deceived: Service, liar: Liar, monkeypatch: pytest.MonkeyPatch, code: grpc.StatusCode
) -> None:
    calls = []

    def close(context: grpc.ServicerContext) -> None:
        calls.append(context.peer())
        if len(calls) < 3:
            context.abort(code, "closing")

    monkeypatch.setattr(liar, "receive", close)
    answer, _ = ask(f"http://{deceived.address}")
    assert answer.status_code == 200, answer.text
    assert len(calls) == 3


@contextmanager
def load(url: str, threads: int = 4) -> Iterator[list[str]]:
    """Clients who ask while the block runs; "200" or the problem of each answer, as they come."""
    outcomes: list[str] = []
    stop = threading.Event()

    def keep_asking() -> None:
        with httpx.Client(base_url=url, timeout=10, verify=NO_TLS) as client:
            for _ in range(5000):
                if stop.wait(PAUSE):
                    return
                answer = client.post("/v1/recommendations", json={"user_id": 6})
                outcomes.append("200" if answer.is_success else answer.text)

    with ThreadPoolExecutor(threads) as pool:
        clients = [pool.submit(keep_asking) for _ in range(threads)]
        try:
            yield outcomes
        finally:
            stop.set()
    for client in clients:
        client.result()


def wait_for_more(outcomes: list[str], count: int) -> None:
    start = len(outcomes)
    wait_until(lambda: len(outcomes) >= start + count, f"{count} more answers", 10)


@contextmanager
def two_replicas(stack: Stack, folder: Path) -> Iterator[tuple[Service, list[Service]]]:
    """A gateway over two replicas of retrieval, and these, all of them ready."""
    replicas = [model_service("retrieval_svc", stack.bundles, folder) for _ in range(2)]
    target = "ipv4:" + ",".join(replica.address for replica in replicas)
    gateway = gateway_service(stack.user_tower.address, target, folder)
    with ExitStack() as services:
        for service in (*replicas, gateway):
            services.enter_context(running(service))
        for replica in replicas:
            wait_until(replica.is_serving, "a replica serving")
        wait_until(gateway.is_listening, "the gateway listening")
        yield gateway, replicas


def test_two_replicas(stack: Stack, model: Bundle, tmp_path: Path) -> None:
    with two_replicas(stack, tmp_path) as (gateway, replicas):
        url = f"http://{gateway.address}"
        with load(url) as outcomes:
            wait_for_more(outcomes, 100)
            calls = [
                replica.metric("twotower_requests_total", method="BatchRetrieveMovies", code="OK")
                for replica in replicas
            ]
            assert min(calls) > sum(calls) / 4, calls
            replicas[0].stop(signal.SIGKILL)
            wait_for_more(outcomes, 100)
            replicas[0].start()
            wait_until(replicas[0].is_serving, "the replica back")
            wait_until(
                lambda: replicas[0].metric("twotower_requests_total", method="BatchRetrieveMovies"),
                "the replica used again",
                10,
            )
            for _ in range(3):
                assert replicas[1].stop() == 0
                wait_for_more(outcomes, 20)
                replicas[1].start()
                wait_until(replicas[1].is_serving, "the other replica back")
                wait_for_more(outcomes, 20)
        assert {*outcomes} == {"200"}
        answer, _ = ask(url)
        top = tuple(item["movie_id"] for item in answer.json()["items"])
        assert top == golden_users(model)[1].top_movie_ids


def test_one_of_two_replicas_hangs(stack: Stack, tmp_path: Path) -> None:
    with two_replicas(stack, tmp_path) as (gateway, replicas):
        with load(f"http://{gateway.address}", threads=8) as outcomes:
            wait_for_more(outcomes, 100)
            with replicas[0].frozen():
                silent = "a replica does not answer"
                wait_until(lambda: gateway.events(silent), "the replica found silent", 10)
                wait_for_more(outcomes, 400)
            wait_until(lambda: gateway.events("a replica answers again"), "the replica back", 10)
            before = replicas[0].metric("twotower_requests_total", method="BatchRetrieveMovies")
            wait_for_more(outcomes, 100)
            after = replicas[0].metric("twotower_requests_total", method="BatchRetrieveMovies")
        assert after > before
    late = [json.loads(outcome)["status"] for outcome in outcomes if outcome != "200"]
    # What was under way at the replica: of three batches in flight, no more than two.
    assert {*late} <= {504}
    assert len(late) <= 8
    assert len(gateway.events(silent)) == 1


def test_a_replica_without_a_model_is_passed_over(stack: Stack, tmp_path: Path) -> None:
    empty = model_service("retrieval_svc", tmp_path / "none", tmp_path)
    target = f"ipv4:{empty.address},{stack.retrieval.address}"
    gateway = gateway_service(stack.user_tower.address, target, tmp_path)
    with running(empty), running(gateway):
        wait_until(empty.is_listening, "the empty replica listening")
        wait_until(gateway.is_listening, "the gateway listening")
        answers = [ask(f"http://{gateway.address}")[0] for _ in range(20)]
        assert empty.metric("twotower_requests_total", code="UNAVAILABLE") >= 5
    assert [answer.status_code for answer in answers] == [200] * 20


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
