"""Services that answer what cannot be: the gateway says so, and passes nothing of it on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import grpc
import httpx
import pytest

from clients import ask
from conftest import Trained
from services import (
    Service,
    Stack,
    gateway_service,
    running,
    wait_until,
)
from twotower.v1 import retrieval_pb2, user_tower_pb2
from twotower.v1.retrieval_pb2_grpc import (
    RetrievalServiceServicer,
    add_RetrievalServiceServicer_to_server,
)
from twotower.v1.user_tower_pb2_grpc import (
    UserTowerServiceServicer,
    add_UserTowerServiceServicer_to_server,
)

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


def add_a_name(found: Found) -> None:
    found.external_ids.append("a")


def keep_the_reason(found: Found) -> None:
    found.ClearField("shortfall")


LIES: dict[str, dict[str, Callable[..., Any]]] = {
    "a score too few": {"distort": drop_a_score},
    "external ids too few": {"distort": add_a_name},
    "too few movies and no word": {"distort": keep_the_reason},
    "NaN": {"distort": set_score(float("nan"))},
    "infinite": {"distort": set_score(float("inf"))},
    "minus infinite": {"distort": set_score(float("-inf"))},
    "a rating of NaN": {"distort": set_rating(float("nan"))},
    "a movie twice": {"distort": set_id(1)},
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


class Babble(grpc.GenericRpcHandler):
    """Any service, which answers with what is no message of any method."""

    def service(self, _call: grpc.HandlerCallDetails) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"\xff\xff")


def test_answers_that_are_no_messages(stack: Stack, tmp_path: Path) -> None:
    server = grpc.server(ThreadPoolExecutor(4), handlers=[Babble()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    babble = f"127.0.0.1:{port}"
    towers, movies = stack.user_tower.address, stack.retrieval.address
    try:
        for tower, retrieval in ((babble, movies), (towers, babble)):
            gateway = gateway_service(tower, retrieval, tmp_path)
            with running(gateway):
                wait_until(gateway.is_listening, "the gateway listening")
                url = f"http://{gateway.address}"
                check_bad_answer(ask(url)[0])
                for path in ("movies/1/similar", "movies/1", "movies?title=a"):
                    if retrieval == babble:
                        check_bad_answer(httpx.get(f"{url}/v1/{path}"))
                ready = httpx.get(f"{url}/readyz")
                assert (ready.status_code, ready.json()["status"]) == (503, 503)
                assert "is no message" in ready.json()["detail"]
    finally:
        server.stop(None).wait()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (grpc.StatusCode.UNKNOWN, 502),
        (grpc.StatusCode.INTERNAL, 502),
        (grpc.StatusCode.UNIMPLEMENTED, 502),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, 503),
    ],
)
def test_a_call_that_fails(
    deceived: Service,
    liar: Liar,
    monkeypatch: pytest.MonkeyPatch,
    code: grpc.StatusCode,
    status: int,
) -> None:
    monkeypatch.setattr(liar, "receive", lambda context: context.abort(code, "a secret"))
    answer, _ = ask(f"http://{deceived.address}")
    assert answer.status_code == status
    assert ("retry-after" in answer.headers) == (status == 503)
    assert "secret" not in answer.text


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
