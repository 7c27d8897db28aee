"""Both services called directly over gRPC, and by the tools that others use."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_status import rpc_status

from conftest import Trained
from integration.oracle import (
    features_of,
    golden_rater,
    golden_users,
    history_of,
    ids,
    movies_of,
    ranking,
)
from services import Service, Stack
from twotower.bundle import Bundle
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2, user_tower_pb2
from twotower.v1.retrieval_pb2 import RetrieveMoviesRequest
from twotower.v1.retrieval_pb2_grpc import RetrievalServiceStub
from twotower.v1.user_tower_pb2 import BatchEmbedUsersRequest, EmbedUserRequest, RatingArrays
from twotower.v1.user_tower_pb2_grpc import UserTowerServiceStub

GRPCURL = str(Path(sys.executable).parent / "grpcurl")
DIM = 32
USER = 6
NOWHERE = 2**40
OTHER = "0123456789abcdef"
"""A model version that nothing has."""


@pytest.fixture(scope="module")
def tower(stack: Stack) -> Iterator[UserTowerServiceStub]:
    with grpc.insecure_channel(stack.user_tower.address) as channel:
        yield UserTowerServiceStub(channel)


@pytest.fixture(scope="module")
def retrieval(stack: Stack) -> Iterator[RetrievalServiceStub]:
    with grpc.insecure_channel(stack.retrieval.address) as channel:
        yield RetrievalServiceStub(channel)


@pytest.fixture(scope="module")
def embedding(tower: UserTowerServiceStub) -> pb.UserEmbedding:
    return tower.EmbedUser(EmbedUserRequest(user_id=USER)).embedding


def refusal(call: Callable[[], object], code: grpc.StatusCode) -> pb.Error:
    """The error that the call ends in, as programs read it; nothing of the inside shows."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert caught.value.code() == code, caught.value.details()
    status: Status = rpc_status.from_call(caught.value)
    error = pb.Error()
    assert status.details[0].Unpack(error)
    assert error.message == caught.value.details()
    assert not re.search(r"Traceback|\.py|/", error.message)
    return error


def invalid(call: Callable[[], object]) -> pb.Error:
    error = refusal(call, grpc.StatusCode.INVALID_ARGUMENT)
    assert error.reason == pb.ERROR_REASON_INVALID_REQUEST
    return error


def ratings_of(pairs: dict[int, float]) -> list[pb.Rating]:
    return [pb.Rating(movie_id=movie_id, rating=rating) for movie_id, rating in pairs.items()]


def different_users(model: Bundle) -> list[EmbedUserRequest]:
    """Users of every kind."""
    history = history_of(model, USER)
    return [
        *(EmbedUserRequest(user_id=user_id) for user_id in golden_users(model)),
        EmbedUserRequest(user_id=NOWHERE),
        EmbedUserRequest(has_ratings=True),
        EmbedUserRequest(ratings=ratings_of(history)),
        EmbedUserRequest(ratings=[*ratings_of({NOWHERE: 1.0}), *ratings_of(history)]),
        EmbedUserRequest(features=user_tower_pb2.UserFeatures(**features_of(model, history))),
    ]


def test_a_user_comes_out_of_a_batch_as_alone(tower: UserTowerServiceStub, model: Bundle) -> None:
    users = different_users(model)
    results = tower.BatchEmbedUsers(BatchEmbedUsersRequest(users=users)).results
    alone = [tower.EmbedUser(user).embedding for user in users]
    assert [result.embedding.SerializeToString() for result in results] == [
        embedding.SerializeToString() for embedding in alone
    ]
    for embedding, golden in zip(alone, golden_users(model).values(), strict=False):
        assert embedding.retrieval == pytest.approx(golden.retrieval, abs=1e-6)


def test_a_search_comes_out_of_a_batch_as_alone(
    tower: UserTowerServiceStub, retrieval: RetrievalServiceStub, model: Bundle
) -> None:
    users = different_users(model)
    results = tower.BatchEmbedUsers(BatchEmbedUsersRequest(users=users)).results
    searches = [
        RetrieveMoviesRequest(embedding=result.embedding, k=1 + 7 * place % 100, exclude_rated=place % 2)
        for place, result in enumerate(results)
    ]
    searches[3].filter.genres_any.append("War")
    together = retrieval.BatchRetrieveMovies(
        retrieval_pb2.BatchRetrieveMoviesRequest(users=searches)
    ).results
    assert [result.response.SerializeToString() for result in together] == [
        retrieval.RetrieveMovies(search).SerializeToString() for search in searches
    ]
    assert [len(result.response.movies) for result in together] == [search.k for search in searches]


def test_what_an_embedding_says(tower: UserTowerServiceStub, trained: Trained, model: Bundle) -> None:
    history = history_of(model, USER)
    embedding = tower.EmbedUser(
        EmbedUserRequest(ratings=[*ratings_of(history), *ratings_of({NOWHERE: 2.0})])
    ).embedding
    assert len(embedding.retrieval) == DIM
    assert embedding.model_version == trained.first
    assert sorted(embedding.rated_movie_ids) == sorted(history)
    assert embedding.ignored_count == 1
    assert embedding.strategy == pb.STRATEGY_INLINE_RATINGS


def test_what_a_search_finds(
    retrieval: RetrievalServiceStub, embedding: pb.UserEmbedding, model: Bundle
) -> None:
    found = retrieval.RetrieveMovies(RetrieveMoviesRequest(embedding=embedding, k=100))
    expected = ranking(model, embedding.retrieval)[:100]
    assert [movie.movie.movie_id for movie in found.movies] == ids(expected)
    assert [movie.score for movie in found.movies] == [place.score for place in expected]
    assert [movie.predicted_rating for movie in found.movies] == pytest.approx(
        [place.predicted_rating for place in expected], abs=1e-6
    )
    assert not found.HasField("shortfall")


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_vector_of_another_length(
    retrieval: RetrievalServiceStub, embedding: pb.UserEmbedding, length: int
) -> None:
    other = pb.UserEmbedding(
        retrieval=[length**-0.5] * length if length else [], model_version=embedding.model_version
    )
    error = invalid(lambda: retrieval.RetrieveMovies(RetrieveMoviesRequest(embedding=other, k=3)))
    assert error.field == "embedding.retrieval"
    assert f"{length} values" in error.message
    assert "32" in error.message
    assert retrieval.RetrieveMovies(RetrieveMoviesRequest(embedding=embedding, k=3)).movies


UNIT = [1.0, *[0.0] * (DIM - 1)]


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"retrieval": [float("nan"), *UNIT[1:]]}, "embedding.retrieval", "not finite"),
        ({"retrieval": [float("inf"), *UNIT[1:]]}, "embedding.retrieval", "not finite"),
        ({"retrieval": [2.0, *UNIT[1:]]}, "embedding.retrieval", "norm 2, allowed is 1"),
        ({"retrieval": [0.0] * DIM}, "embedding.retrieval", "norm 0, allowed is 1"),
        ({"retrieval": [3e38] * DIM}, "embedding.retrieval", "norm 1.697e+39, allowed is 1"),
        ({"rating": [1.0] * 4}, "embedding.rating", "4 values"),
        ({"rating": [float("nan")] * DIM}, "embedding.rating", "not finite"),
        ({"model_version": ""}, "embedding.model_version", "empty"),
        ({"k": 0}, "k", "0, allowed are 1 to 100"),
        ({"k": 101}, "k", "101, allowed are 1 to 100"),
        ({"exclude_movie_ids": [1] * 100_001}, "exclude_movie_ids", "100001 movies, allowed are 100000"),
        ({"filter": {"genres_any": ["Opera"]}}, "filter.genres_any[0]", "Film-Noir"),
        ({"filter": {"year_min": 2, "year_max": 1}}, "filter.year_min", "above year_max"),
        ({"request_id": "x" * 65}, "request_id", "65 characters, allowed are 64"),
    ],
)
def test_a_search_that_is_not_allowed(
    retrieval: RetrievalServiceStub, trained: Trained, changes: dict[str, Any], field: str, words: str
) -> None:
    fields = pb.UserEmbedding.DESCRIPTOR.fields_by_name
    user = {"retrieval": UNIT, "model_version": trained.first}
    user |= {name: value for name, value in changes.items() if name in fields}
    others = {name: value for name, value in changes.items() if name not in fields}
    search = RetrieveMoviesRequest(**{"embedding": user, "k": 3, **others})
    error = invalid(lambda: retrieval.RetrieveMovies(search))
    assert error.field == field
    assert words in error.message


@pytest.mark.parametrize(
    ("user", "field", "words"),
    [
        ({}, "user_id", "user_id, ratings or features"),
        ({"user_id": -1}, "user_id", "-1, allowed is 0 or more"),
        ({"user_id": 1, "as_of": -(2**63)}, "as_of", "allowed is 0 or more"),
        ({"ratings": [{"movie_id": -1, "rating": 3}]}, "ratings[0].movie_id", "-1"),
        ({"ratings": [{"movie_id": 1}]}, "ratings[0].rating", "0, allowed are 0.5 to 5"),
        ({"ratings": [{"movie_id": 1, "rating": float("nan")}]}, "ratings[0].rating", "nan"),
        ({"ratings": [{"movie_id": 1, "rating": 3}] * 2}, "ratings[1].movie_id", "twice"),
        (
            {"ratings": [{"movie_id": n, "rating": 3} for n in range(10_001)]},
            "ratings",
            "10001 ratings, allowed are 10000",
        ),
        ({"features": {"mean_rating": 3}}, "features.rating_count", "0, allowed is 1 or more"),
        (
            {"features": {"rating_count": 1, "mean_rating": float("nan")}},
            "features.mean_rating",
            "nan, allowed are 0.5 to 5",
        ),
        ({"user_id": 1, "features": {"rating_count": 1}}, "features", "neither"),
    ],
)
def test_a_user_who_is_not_allowed(
    tower: UserTowerServiceStub, user: dict[str, Any], field: str, words: str
) -> None:
    error = invalid(lambda: tower.EmbedUser(EmbedUserRequest(**user)))
    assert error.field == field
    assert words in error.message


def arrays(
    movie_ids: Sequence[int], ratings: Sequence[float], timestamps: Sequence[int] = ()
) -> RatingArrays:
    return RatingArrays(
        movie_ids=np.array(movie_ids, "<i8").tobytes(),
        ratings=np.array(ratings, "<f4").tobytes(),
        timestamps=np.array(timestamps, "<i8").tobytes(),
    )


@pytest.mark.parametrize("timed", [False, True])
def test_ratings_as_arrays_are_the_same_as_one_by_one(
    tower: UserTowerServiceStub, model: Bundle, *, timed: bool
) -> None:
    movie_ids = model.catalogue.movie_ids[[5, 40, 7, 300, 21]].tolist()
    given = [4.5, 0.5, 3.0, 5.0, 2.0]
    timestamps = [500, 100, 400, 100, 300] if timed else []
    one_by_one = [
        pb.Rating(movie_id=movie_id, rating=rating, timestamp=timestamps[place] if timed else None)
        for place, (movie_id, rating) in enumerate(zip(movie_ids, given, strict=True))
    ]
    together = EmbedUserRequest(rating_arrays=arrays(movie_ids, given, timestamps), as_of=1000)
    apart = EmbedUserRequest(ratings=one_by_one, as_of=1000)
    assert tower.EmbedUser(together) == tower.EmbedUser(apart)


def test_arrays_without_ratings_are_a_user_who_has_rated_nothing(tower: UserTowerServiceStub) -> None:
    empty = EmbedUserRequest(user_id=1, rating_arrays=RatingArrays())
    assert tower.EmbedUser(empty).embedding.strategy == pb.STRATEGY_COLD_START


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        (
            RatingArrays(movie_ids=b"1234567"),
            "rating_arrays.movie_ids",
            "7 bytes, allowed are multiples of 8",
        ),
        (RatingArrays(ratings=b"12345"), "rating_arrays.ratings", "5 bytes, allowed are multiples of 4"),
        (arrays([1, 2], [3]), "rating_arrays.ratings", "has 1, movie_ids has 2"),
        (arrays([1], [3], [4, 5]), "rating_arrays.timestamps", "has 2, movie_ids has 1"),
        (
            RatingArrays(external_ids=["1"]),
            "ratings[0].external_id",
            "of this model have no external ids",
        ),
        (arrays([1, 2], [3, 3], [4, -1]), "ratings[1].timestamp", "-1, allowed is 0 or more"),
        (arrays([1, -2], [3, 3]), "ratings[1].movie_id", "-2, allowed is 0 or more"),
        (arrays([1, 7, 7], [3, 3, 3]), "ratings[2].movie_id", "movie 7 is rated twice"),
        (arrays([1, 2], [3, 5.5]), "ratings[1].rating", "5.5, allowed are 0.5 to 5"),
        (arrays([1, 2], [3, math.nan]), "ratings[1].rating", "nan, allowed are 0.5 to 5"),
        (arrays(range(10_001), [3] * 10_001), "ratings", "10001 ratings, allowed are 10000"),
    ],
)
def test_arrays_that_are_not_allowed(
    tower: UserTowerServiceStub, given: RatingArrays, field: str, words: str
) -> None:
    error = invalid(lambda: tower.EmbedUser(EmbedUserRequest(rating_arrays=given)))
    assert error.field == field
    assert words in error.message


def test_arrays_go_with_nothing_that_says_the_same(tower: UserTowerServiceStub) -> None:
    both = EmbedUserRequest(ratings=ratings_of({1: 3.0}), rating_arrays=arrays([2], [3]))
    assert invalid(lambda: tower.EmbedUser(both)).field == "rating_arrays"
    features = EmbedUserRequest(features={"rating_count": 1}, rating_arrays=RatingArrays())
    assert invalid(lambda: tower.EmbedUser(features)).field == "features"


def test_ids_only_are_the_same_movies(
    retrieval: RetrievalServiceStub, embedding: pb.UserEmbedding
) -> None:
    request = RetrieveMoviesRequest(embedding=embedding, k=7, exclude_rated=True)
    whole = retrieval.RetrieveMovies(request)
    request.ids_only = True
    short = retrieval.RetrieveMovies(request)
    assert not short.movies
    assert not short.external_ids
    assert short.model_version == whole.model_version
    assert list(short.movie_ids) == [found.movie.movie_id for found in whole.movies]
    assert list(short.scores) == [found.score for found in whole.movies]
    assert list(short.predicted_ratings) == [found.predicted_rating for found in whole.movies]


def test_an_unknown_user_where_that_is_asked_for(tower: UserTowerServiceStub) -> None:
    request = EmbedUserRequest(user_id=NOWHERE, strict=True)
    error = refusal(lambda: tower.EmbedUser(request), grpc.StatusCode.NOT_FOUND)
    assert error.reason == pb.ERROR_REASON_USER_NOT_FOUND
    assert str(NOWHERE) in error.message


def calls_of_model(
    tower: UserTowerServiceStub, retrieval: RetrievalServiceStub, version: str
) -> list[Callable[[], object]]:
    """Every call that names a model, naming this one."""
    user = pb.UserEmbedding(retrieval=UNIT, model_version=version)
    similar = retrieval_pb2.FindSimilarMoviesRequest(movie_id=1, k=1, model_version=version)
    movies = retrieval_pb2.GetMoviesRequest(movie_ids=[1], model_version=version)
    search = retrieval_pb2.SearchMoviesRequest(title="a", limit=1, model_version=version)
    return [
        lambda: tower.EmbedUser(EmbedUserRequest(user_id=1, model_version=version)),
        lambda: retrieval.RetrieveMovies(RetrieveMoviesRequest(embedding=user, k=1)),
        lambda: retrieval.FindSimilarMovies(similar),
        lambda: retrieval.GetMovies(movies),
        lambda: retrieval.SearchMovies(search),
    ]


def test_a_model_that_is_not_served(
    tower: UserTowerServiceStub, retrieval: RetrievalServiceStub, trained: Trained
) -> None:
    for call in calls_of_model(tower, retrieval, OTHER):
        error = refusal(call, grpc.StatusCode.FAILED_PRECONDITION)
        assert error.reason == pb.ERROR_REASON_MODEL_NOT_SERVED
        assert list(error.served_model_versions) == [trained.first]
        assert OTHER in error.message
    for call in calls_of_model(tower, retrieval, trained.first):
        assert call()


def reasons(results: Any) -> list[str]:
    """How each row of a batch came out."""
    return [
        pb.ErrorReason.Name(result.error.reason).removeprefix("ERROR_REASON_")
        if result.HasField("error")
        else "OK"
        for result in results
    ]


def test_faulty_users_of_a_batch_fail_alone(tower: UserTowerServiceStub) -> None:
    users = [
        EmbedUserRequest(user_id=USER, request_id="good"),
        EmbedUserRequest(user_id=-1, request_id="bad"),
        EmbedUserRequest(user_id=USER, model_version=OTHER),
        EmbedUserRequest(user_id=NOWHERE, strict=True),
        EmbedUserRequest(user_id=USER, request_id="last"),
    ]
    results = tower.BatchEmbedUsers(BatchEmbedUsersRequest(users=users)).results
    assert reasons(results) == ["OK", "INVALID_REQUEST", "MODEL_NOT_SERVED", "USER_NOT_FOUND", "OK"]
    assert [result.request_id for result in results] == ["good", "bad", "", "", "last"]
    assert results[0].embedding == results[4].embedding


def test_faulty_searches_of_a_batch_fail_alone(
    retrieval: RetrievalServiceStub, embedding: pb.UserEmbedding
) -> None:
    good = RetrieveMoviesRequest(embedding=embedding, k=5)
    stale = RetrieveMoviesRequest(embedding={"retrieval": UNIT, "model_version": OTHER}, k=5)
    searches = [good, RetrieveMoviesRequest(embedding=embedding), stale, good]
    results = retrieval.BatchRetrieveMovies(
        retrieval_pb2.BatchRetrieveMoviesRequest(users=searches)
    ).results
    assert reasons(results) == ["OK", "INVALID_REQUEST", "MODEL_NOT_SERVED", "OK"]
    assert results[0].response == results[3].response == retrieval.RetrieveMovies(good)


def test_a_late_row_fails_alone(tower: UserTowerServiceStub, model: Bundle) -> None:
    many = ratings_of(history_of(model, 15))
    users = [EmbedUserRequest(ratings=many, timeout_ms=60_000) for _ in range(200)]
    users[100].timeout_ms = 1
    results = tower.BatchEmbedUsers(BatchEmbedUsersRequest(users=users)).results
    assert reasons(results) == [*["OK"] * 100, "DEADLINE_EXCEEDED", *["OK"] * 99]
    assert "timeout_ms=1" in results[100].error.message


@pytest.mark.parametrize(("rows", "fits"), [(0, False), (1, True), (1024, True), (1025, False)])
def test_the_rows_of_a_batch(
    tower: UserTowerServiceStub,
    retrieval: RetrievalServiceStub,
    embedding: pb.UserEmbedding,
    rows: int,
    *,
    fits: bool,
) -> None:
    users = BatchEmbedUsersRequest(users=[EmbedUserRequest(user_id=USER)] * rows)
    searches = retrieval_pb2.BatchRetrieveMoviesRequest(
        users=[RetrieveMoviesRequest(embedding=embedding, k=1)] * rows
    )
    calls: list[Callable[[], Any]] = [
        lambda: tower.BatchEmbedUsers(users),
        lambda: retrieval.BatchRetrieveMovies(searches),
    ]
    for call in calls:
        if fits:
            assert reasons(call().results) == ["OK"] * rows
        else:
            assert f"{rows} rows, allowed are 1 to 1024" in invalid(call).message


def test_movies_by_id(retrieval: RetrievalServiceStub, model: Bundle, trained: Trained) -> None:
    last = movies_of(model)[-1]
    request = retrieval_pb2.GetMoviesRequest(movie_ids=[last.movie_id, NOWHERE, 1, -1, last.movie_id])
    answer = retrieval.GetMovies(request)
    assert [movie.movie_id for movie in answer.movies] == [last.movie_id, 1, last.movie_id]
    assert list(answer.missing_movie_ids) == [NOWHERE, -1]
    assert answer.model_version == trained.first
    movie = answer.movies[0]
    assert (movie.title, movie.year, tuple(movie.genres)) == last[1:]


@pytest.mark.parametrize(("count", "fits"), [(0, False), (1000, True), (1001, False)])
def test_how_many_movies_by_id(retrieval: RetrievalServiceStub, count: int, *, fits: bool) -> None:
    request = retrieval_pb2.GetMoviesRequest(movie_ids=[NOWHERE] * count)
    if fits:
        assert len(retrieval.GetMovies(request).missing_movie_ids) == count
    else:
        error = invalid(lambda: retrieval.GetMovies(request))
        assert f"{count} ids, allowed are 1 to 1000" in error.message


@pytest.mark.parametrize(
    ("title", "limit", "words"),
    [
        ("", 1, "0 characters, allowed are 1 to 200"),
        ("x" * 201, 1, "201 characters, allowed are 1 to 200"),
        ("x", 0, "0, allowed are 1 to 100"),
        ("x", 101, "101, allowed are 1 to 100"),
    ],
)
def test_a_title_search_that_is_not_allowed(
    retrieval: RetrievalServiceStub, title: str, limit: int, words: str
) -> None:
    request = retrieval_pb2.SearchMoviesRequest(title=title, limit=limit)
    assert words in invalid(lambda: retrieval.SearchMovies(request)).message


@pytest.mark.parametrize(("limit", "title"), [(1, "the"), (100, "the"), (100, "x" * 200), (5, " ")])
def test_a_title_search(retrieval: RetrievalServiceStub, model: Bundle, limit: int, title: str) -> None:
    words = title.split()
    titles = [movie.title.lower() for movie in movies_of(model)]
    matching = sum(bool(words) and all(word in title for word in words) for title in titles)
    found = retrieval.SearchMovies(retrieval_pb2.SearchMoviesRequest(title=title, limit=limit))
    assert len(found.movies) == min(limit, matching)


def test_similar_movies_that_do_not_exist(retrieval: RetrievalServiceStub) -> None:
    request = retrieval_pb2.FindSimilarMoviesRequest(movie_id=NOWHERE, k=3)
    error = refusal(lambda: retrieval.FindSimilarMovies(request), grpc.StatusCode.NOT_FOUND)
    assert error.reason == pb.ERROR_REASON_MOVIE_NOT_FOUND
    assert str(NOWHERE) in error.message


@pytest.mark.parametrize("k", [0, 101])
def test_too_few_or_many_similar_movies(retrieval: RetrievalServiceStub, k: int) -> None:
    request = retrieval_pb2.FindSimilarMoviesRequest(movie_id=1, k=k)
    error = invalid(lambda: retrieval.FindSimilarMovies(request))
    assert f"{k}, allowed are 1 to 100" in error.message


def test_a_message_that_is_too_large(tower: UserTowerServiceStub) -> None:
    request = EmbedUserRequest(user_id=USER, model_version="x" * 16 * 2**20)
    with pytest.raises(grpc.RpcError) as caught:
        tower.EmbedUser(request)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("text", ["x" * 2**20, "\N{SNOWMAN}" * 2**18])
def test_a_long_value_has_a_short_error(
    tower: UserTowerServiceStub, retrieval: RetrievalServiceStub, trained: Trained, text: str
) -> None:
    for call in calls_of_model(tower, retrieval, text):
        refusal(call, grpc.StatusCode.FAILED_PRECONDITION)
    features = user_tower_pb2.UserFeatures(rating_count=1, mean_rating=3, genre_means={text: 3})
    invalid(lambda: tower.EmbedUser(EmbedUserRequest(features=features)))
    search = RetrieveMoviesRequest(
        embedding={"retrieval": UNIT, "model_version": trained.first}, k=1, filter={"genres_any": [text]}
    )
    invalid(lambda: retrieval.RetrieveMovies(search))


SERVICES = ["twotower.v1.UserTowerService", "twotower.v1.RetrievalService"]


def service_of(stack: Stack, name: str) -> Service:
    return stack.user_tower if name.endswith("UserTowerService") else stack.retrieval


def grpcurl(service: Service, *arguments: str) -> subprocess.CompletedProcess[str]:
    *options, what = arguments
    return subprocess.run(
        [GRPCURL, "-plaintext", "-max-time", "10", *options, service.address, *what.split()],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


@pytest.mark.parametrize("name", SERVICES)
def test_health(stack: Stack, name: str) -> None:
    with grpc.insecure_channel(service_of(stack, name).address) as channel:
        for asked in ("", name):
            answer = HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=asked))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="twotower.v1.No"))
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("name", SERVICES)
def test_grpcurl_lists_and_describes(stack: Stack, name: str) -> None:
    service = service_of(stack, name)
    listed = grpcurl(service, "list").stdout.split()
    assert {name, "grpc.health.v1.Health"} <= {*listed}
    assert f"{name}.ListModels" in grpcurl(service, f"list {name}").stdout
    assert "rpc ListModels" in grpcurl(service, f"describe {name}").stdout
    health = grpcurl(service, "grpc.health.v1.Health/Check")
    assert json.loads(health.stdout) == {"status": "SERVING"}


def test_grpcurl_embeds_and_retrieves(stack: Stack, model: Bundle) -> None:
    embed = grpcurl(stack.user_tower, "-d", '{"user_id": 6}', f"{SERVICES[0]}/EmbedUser")
    embedding = json.loads(embed.stdout)["embedding"]
    assert embedding["strategy"] == "STRATEGY_KNOWN_USER"
    search = json.dumps({"embedding": embedding, "k": 10, "exclude_rated": True})
    found = json.loads(grpcurl(stack.retrieval, "-d", search, f"{SERVICES[1]}/RetrieveMovies").stdout)
    top = [int(movie["movie"]["movie_id"]) for movie in found["movies"]]
    assert tuple(top) == golden_users(model)[6].top_movie_ids


def test_grpcurl_shows_what_is_wrong(stack: Stack) -> None:
    answer = grpcurl(stack.retrieval, "-d", "{}", f"{SERVICES[1]}/RetrieveMovies")
    assert answer.returncode != 0
    assert "Code: InvalidArgument" in answer.stderr
    assert "embedding.model_version: is empty" in answer.stderr
    assert "ERROR_REASON_INVALID_REQUEST" in answer.stderr


def test_the_models_listed(
    tower: UserTowerServiceStub, retrieval: RetrievalServiceStub, model: Bundle, trained: Trained
) -> None:
    of_tower = tower.ListModels(user_tower_pb2.UserTowerServiceListModelsRequest())
    of_retrieval = retrieval.ListModels(retrieval_pb2.RetrievalServiceListModelsRequest())
    for listed in (of_tower, of_retrieval):
        (served,) = listed.models
        assert served.model_version == trained.first
        assert served.embedding_dim == DIM
        assert served.movie_count == len(model.catalogue)
        assert abs(served.created_at - time.time()) < 10**6
        assert not listed.refused


def test_a_request_id_given_in_metadata_is_logged(
    stack: Stack, tower: UserTowerServiceStub, retrieval: RetrievalServiceStub
) -> None:
    request_id = f"test-{uuid.uuid4().hex}"
    metadata = (("x-request-id", request_id),)
    tower.EmbedUser(EmbedUserRequest(user_id=USER), metadata=metadata)
    movies = retrieval_pb2.GetMoviesRequest(movie_ids=[1])
    retrieval.GetMovies(movies, metadata=metadata)
    for service, method in ((stack.user_tower, "EmbedUser"), (stack.retrieval, "GetMovies")):
        (line,) = [line for line in service.events("request") if line["request_id"] == request_id]
        assert (line["method"], line["code"], line["level"]) == (method, "OK", "info")


def test_a_failure_is_logged_with_its_reason(stack: Stack, tower: UserTowerServiceStub) -> None:
    request_id = f"test-{uuid.uuid4().hex}"
    with pytest.raises(grpc.RpcError):
        tower.EmbedUser(EmbedUserRequest(user_id=-1), metadata=(("x-request-id", request_id),))
    (line,) = [line for line in stack.user_tower.log() if line.get("request_id") == request_id]
    assert line["code"] == "INVALID_ARGUMENT"
    assert "user_id: -1" in line["reason"]


def test_one_id_over_all_hops(stack: Stack, client: httpx.Client) -> None:
    request_id = f"test-{uuid.uuid4().hex}"
    answer = client.post(
        "/v1/recommendations", json={"user_id": 1}, headers={"x-request-id": request_id}
    )
    assert answer.headers["x-request-id"] == request_id
    (line,) = [line for line in stack.gateway.events("request") if line["request_id"] == request_id]
    assert (line["path"], line["status"]) == ("/v1/recommendations", 200)
    for service in (stack.user_tower, stack.retrieval):
        (line,) = [
            line for line in service.events("request") if request_id in line.get("request_ids", ())
        ]
        assert line["request_id"] == request_id
        assert line["rows"] == 1


def test_a_golden_rater_by_grpc(tower: UserTowerServiceStub, model: Bundle) -> None:
    rater = golden_rater(model)
    request = EmbedUserRequest(ratings=ratings_of(dict(rater.ratings or ())))
    assert tower.EmbedUser(request).embedding.retrieval == pytest.approx(rater.retrieval, abs=1e-6)
