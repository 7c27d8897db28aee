"""No client can hold up, fill or confuse the services for the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from conftest import Trained
from services import Stack, running_stack
from twotower.v1 import retrieval_pb2, user_tower_pb2
from twotower.v1.retrieval_pb2_grpc import RetrievalServiceStub
from twotower.v1.user_tower_pb2_grpc import UserTowerServiceStub

_LIST = reflection_pb2.ServerReflectionRequest(list_services="")


@pytest.fixture(scope="module")
def narrow(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack whose batches hold few bytes, in an environment with a proxy that does not exist."""
    folder = tmp_path_factory.mktemp("narrow")
    bundles = trained.copy(folder / "bundles", trained.first)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("grpc_proxy", "http://127.0.0.1:9")
        with running_stack(bundles, folder, max_batch_bytes="65536") as stack:
            yield stack


def _held_open(end: threading.Event) -> Iterator[reflection_pb2.ServerReflectionRequest]:
    yield _LIST
    end.wait(30)


def test_idle_reflection_streams_leave_the_workers_alone(stack: Stack) -> None:
    end = threading.Event()
    with grpc.insecure_channel(stack.user_tower.address) as channel:
        reflect = ServerReflectionStub(channel).ServerReflectionInfo
        first = reflect(_held_open(end))
        assert next(first).list_services_response.service
        for _ in range(8):
            with pytest.raises(grpc.RpcError) as caught:
                next(reflect(iter([_LIST])))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        user = user_tower_pb2.EmbedUserRequest(user_id=1)
        assert UserTowerServiceStub(channel).EmbedUser(user, timeout=5).embedding.retrieval
        end.set()
        assert list(first) == []
        assert next(reflect(iter([_LIST]))).list_services_response.service


@pytest.mark.parametrize("content", [b"\xff\xff\xff", b"\x2a\x02\xff\xfe"], ids=["cut", "text"])
def test_what_is_no_message_is_the_clients_fault(stack: Stack, content: bytes) -> None:
    before = stack.user_tower.log_path.read_text().count("Traceback")
    with grpc.insecure_channel(stack.user_tower.address) as channel:
        call: Any = channel.unary_unary("/twotower.v1.UserTowerService/EmbedUser")
        with pytest.raises(grpc.RpcError) as caught:
            call(content, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a message of this method" in str(caught.value.details())
    assert stack.user_tower.log_path.read_text().count("Traceback") == before


def test_a_filter_of_many_genres_is_refused(stack: Stack) -> None:
    with (
        grpc.insecure_channel(stack.user_tower.address) as towers,
        grpc.insecure_channel(stack.retrieval.address) as movies,
    ):
        user = user_tower_pb2.EmbedUserRequest(user_id=1)
        embedding = UserTowerServiceStub(towers).EmbedUser(user, timeout=5).embedding
        condition = retrieval_pb2.MovieFilter(genres_all=["Drama"] * 200_000)
        search = retrieval_pb2.RetrieveMoviesRequest(embedding=embedding, k=1, filter=condition)
        with pytest.raises(grpc.RpcError) as caught:
            RetrievalServiceStub(movies).RetrieveMovies(search, timeout=5)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert caught.value.details() == "filter.genres_all: 200000 genres, allowed are 100"


def test_large_requests_do_not_fail_those_beside_them(narrow: Stack) -> None:
    large = {"user_id": 1, "k": 3, "exclude_movie_ids": [2**62 + n for n in range(20_000)]}
    small = {"user_id": 2, "k": 3}
    with httpx.Client(base_url=narrow.url, timeout=20) as client, ThreadPoolExecutor(12) as pool:
        answers = pool.map(
            lambda body: client.post("/v1/recommendations", json=body), [large, small] * 12
        )
        assert [answer.status_code for answer in answers] == [200] * 24


def _faulty(count: int) -> list[dict[str, Any]]:
    return [{} for _ in range(count)]


@pytest.mark.parametrize(
    "body",
    [
        {"ratings": _faulty(9_000)},
        {"exclude_movie_ids": [-1] * 90_000},
        {"filter": {"genres_any": [""] * 90}},
        {f"unknown {n}": n for n in range(9_000)},
    ],
    ids=["ratings", "movies", "genres", "fields"],
)
def test_thousands_of_faults_are_told_in_a_short_answer(
    client: httpx.Client, body: dict[str, Any]
) -> None:
    answer = client.post("/v1/recommendations", json={"user_id": 1, **body})
    assert answer.status_code == 422
    assert 1 <= len(answer.json()["errors"]) <= 20
    assert len(answer.content) < 10_000


def test_a_batch_full_of_faults_holds_nobody_up(client: httpx.Client) -> None:
    body = {"requests": [{"ratings": _faulty(2_000)}] * 128}
    with ThreadPoolExecutor(1) as pool:
        batch = pool.submit(client.post, "/v1/recommendations:batch", json=body, timeout=60)
        while not batch.done():
            assert client.get("/healthz", timeout=2).status_code == 200
            time.sleep(0.05)
    assert batch.result().status_code == 200
    assert {problem["status"] for problem in batch.result().json()["results"]} == {422}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/v1/users/1_0/recommendations", 'user_id: Input should be a valid integer; given: "1_0"'),
        ("/v1/users/2.0/recommendations", "user_id: Input should be a valid integer"),
        ("/v1/users/%2B2/recommendations", "user_id: Input should be a valid integer"),
        ("/v1/users/2/recommendations?k=1_0", "k: Input should be a valid integer"),
        ("/v1/users/2/recommendations?k=2.0", "k: Input should be a valid integer"),
        ("/v1/users/2/recommendations?K=5", "'K': no such query parameter, there are k, strict"),
        ("/v1/movies?title=a&k=5", "'k': no such query parameter, there are title, limit"),
    ],
)
def test_paths_and_queries_are_as_strict_as_bodies(client: httpx.Client, path: str, words: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    assert words in answer.json()["detail"]
