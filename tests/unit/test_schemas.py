from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.recommender import Recommendation
from gateway.schemas import (
    BatchRequest,
    MovieDetails,
    PredictRequest,
    RecommendationRequest,
    RecommendationResponse,
    SimilarResponse,
)
from twotower.errors import BadAnswer
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2 as rpc

INT64 = 2**63 - 1


def parse(**body: Any) -> RecommendationRequest:
    return RecommendationRequest.model_validate(body)


def user(**body: Any) -> Any:
    return parse(**body).user(strict=False, request_id="r1")


def search(**body: Any) -> Any:
    return parse(user_id=1, **body).search(request_id="r1")


def test_a_user_id() -> None:
    request = parse(user_id=0, as_of=INT64).user(strict=True, request_id="r1")
    assert request.HasField("user_id")
    assert (request.user_id, request.as_of, request.strict) == (0, INT64, True)
    assert request.request_id == "r1"
    assert not request.has_ratings
    assert not request.HasField("features")
    assert not request.model_version


def test_ratings() -> None:
    request = user(
        ratings=[{"movie_id": INT64, "rating": 4.5, "timestamp": 0}, {"movie_id": 2, "rating": 3}]
    )
    assert request.has_ratings
    assert not request.HasField("user_id")
    assert [(rating.movie_id, rating.rating) for rating in request.ratings] == [(INT64, 4.5), (2, 3)]
    assert [rating.HasField("timestamp") for rating in request.ratings] == [True, False]


@pytest.mark.parametrize(("body", "has_ratings"), [({"ratings": []}, True), ({"ratings": None}, False)])
def test_no_ratings_are_not_the_same_as_none_given(body: dict[str, Any], *, has_ratings: bool) -> None:
    assert user(**body).has_ratings == has_ratings


def test_features() -> None:
    features = {"rating_count": 3, "mean_rating": 3.5, "genre_means": {"Drama": 4}}
    request = user(features=features)
    assert request.features.rating_count == 3
    assert dict(request.features.genre_means) == {"Drama": 4}


def test_a_search_by_default() -> None:
    request = search()
    assert (request.k, request.exclude_rated, request.request_id) == (10, True, "r1")
    assert not request.exclude_movie_ids
    assert not request.HasField("filter")
    assert not request.HasField("embedding")


def test_a_search() -> None:
    condition = {"genres_any": ["A"], "genres_all": ["B"], "genres_none": ["C"], "year_min": 0}
    request = search(k=100, exclude_rated=False, exclude_movie_ids=[3, 3], filter=condition)
    assert (request.k, request.exclude_rated) == (100, False)
    assert list(request.exclude_movie_ids) == [3, 3]
    assert request.filter == rpc.MovieFilter(**condition)
    assert request.filter.HasField("year_min")
    assert not request.filter.HasField("year_max")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"k": 0}, "k"),
        ({"k": 101}, "k"),
        ({"k": True}, "k"),
        ({"k": 10.0}, "k"),
        ({"k": None}, "k"),
        ({"user_id": -1}, "user_id"),
        ({"user_id": INT64 + 1}, "user_id"),
        ({"user_id": "1"}, "user_id"),
        ({"exclude_rated": 1}, "exclude_rated"),
        ({"filter": {"year_min": 2**31}}, "filter"),
        ({"filter": {"genres_any": [""]}}, "filter"),
        ({"ratings": [{"movie_id": 1, "rating": math.nan}]}, "ratings"),
        ({"ratings": [{"movie_id": 1, "rating": True}]}, "ratings"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_what_is_not_allowed(body: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(**body)
    (fault,) = caught.value.errors()
    assert fault["loc"][0] == field


def test_a_request_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse(user_id=1).k = 3  # type: ignore[misc]


def test_the_first_version_ignored_other_fields() -> None:
    assert PredictRequest.model_validate({"uid": 2, "other": 1}).uid == 2


@pytest.mark.parametrize(("count", "fits"), [(0, False), (1, True), (128, True), (129, False)])
def test_how_many_requests_go_in_a_batch(count: int, *, fits: bool) -> None:
    try:
        BatchRequest.model_validate({"requests": [{}] * count})
    except ValidationError:
        assert not fits
    else:
        assert fits


def found(**changes: Any) -> rpc.RetrieveMoviesResponse:
    movie = {"movie_id": 7, "title": "Heat", "year": 1995, "genres": ["Action", "Crime"]}
    scored = {"movie": movie, "score": 0.123456789, "predicted_rating": 3.14159}
    return rpc.RetrieveMoviesResponse(movies=[{**scored, **changes}], model_version="0123456789abcdef")


def answer(
    response: rpc.RetrieveMoviesResponse, strategy: Any = pb.STRATEGY_FEATURES
) -> RecommendationResponse:
    embedding = pb.UserEmbedding(strategy=strategy, ignored_count=2)
    return RecommendationResponse.of(Recommendation(embedding, response))


def test_an_answer() -> None:
    assert answer(found()).model_dump() == {
        "items": [
            {
                "movie_id": 7,
                "title": "Heat",
                "year": 1995,
                "genres": ["Action", "Crime"],
                "predicted_rating": 3.14,
                "score": 0.123457,
            }
        ],
        "model_version": "0123456789abcdef",
        "strategy": "features",
        "ignored_ratings": 2,
        "shortfall": None,
    }


def test_what_is_not_known_of_a_movie_is_null() -> None:
    assert answer(found(movie={"movie_id": 0})).items[0].year is None
    details = MovieDetails.of(rpc.Movie(movie_id=0, rating_count=0))
    assert (details.year, details.mean_rating, details.title) == (None, None, "")
    assert MovieDetails.of(rpc.Movie(mean_rating=0.0)).mean_rating == 0


@pytest.mark.parametrize(
    ("strategy", "name"),
    [
        (pb.STRATEGY_KNOWN_USER, "known_user"),
        (pb.STRATEGY_INLINE_RATINGS, "inline_ratings"),
        (pb.STRATEGY_FEATURES, "features"),
        (pb.STRATEGY_COLD_START, "cold_start"),
    ],
)
def test_every_strategy_has_a_name(strategy: Any, name: str) -> None:
    assert answer(found(), strategy).strategy == name


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (rpc.SHORTFALL_REASON_FILTER_TOO_NARROW, "filter_too_narrow"),
        (rpc.SHORTFALL_REASON_CATALOGUE_EXHAUSTED, "catalogue_exhausted"),
    ],
)
def test_every_shortfall_has_a_reason(reason: Any, name: str) -> None:
    response = found()
    response.shortfall.CopyFrom(rpc.Shortfall(reason=reason, requested=10, returned=1))
    shortfall = answer(response).shortfall
    assert shortfall
    assert shortfall.model_dump() == {"reason": name, "requested": 10, "returned": 1}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"score": math.nan}, "score.*finite"),
        ({"score": -math.inf}, "score.*finite"),
        ({"predicted_rating": math.inf}, "predicted_rating.*finite"),
        ({"movie": {"movie_id": -1}}, "movie_id.*equal to 0"),
    ],
)
def test_an_answer_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadAnswer, match=words):
        answer(found(**changes))


@pytest.mark.parametrize("strategy", [pb.STRATEGY_UNSPECIFIED, 99])
def test_a_strategy_that_cannot_be(strategy: Any) -> None:
    with pytest.raises(BadAnswer, match=r"strategy|Strategy"):
        answer(found(), strategy)


@pytest.mark.parametrize("reason", [rpc.SHORTFALL_REASON_UNSPECIFIED, 99])
def test_a_shortfall_that_cannot_be(reason: Any) -> None:
    response = found()
    response.shortfall.CopyFrom(rpc.Shortfall(reason=reason))
    with pytest.raises(BadAnswer, match=r"reason|Reason"):
        answer(response)


@pytest.mark.parametrize("near", [{"score": math.nan}, {"movie": {"movie_id": -1}}])
def test_similar_movies_that_cannot_be(near: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer, match="a service answered with what cannot be"):
        SimilarResponse.of(rpc.FindSimilarMoviesResponse(movies=[near]))


def test_a_mean_rating_that_cannot_be() -> None:
    with pytest.raises(BadAnswer, match="mean_rating"):
        MovieDetails.of(rpc.Movie(movie_id=1, mean_rating=math.nan))
