from __future__ import annotations

import math
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.schemas import (
    BatchRequest,
    MovieDetails,
    PredictRequest,
    RecommendationRequest,
    SimilarResponse,
)
from twotower.errors import BadAnswer
from twotower.v1 import retrieval_pb2 as rpc

INT64 = 2**63 - 1


def parse(**body: Any) -> RecommendationRequest:
    return RecommendationRequest.model_validate(body)


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
        ({"external_user_id": ""}, "external_user_id"),
        ({"external_user_id": 1}, "external_user_id"),
        ({"user_id": 1, "external_user_id": "1"}, "external_user_id"),
        ({"ratings": [{"external_id": "", "rating": 1}]}, "ratings"),
        ({"ratings": [{"movie_id": 1, "external_id": "1", "rating": 1}]}, "ratings"),
        ({"ratings": [{"movie_id": None, "external_id": None, "rating": 1}]}, "ratings"),
        ({"exclude_external_ids": [""]}, "exclude_external_ids"),
    ],
)
def test_what_is_not_allowed(body: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        parse(**body)
    (fault,) = caught.value.errors()
    assert fault["loc"][0] == field


def test_a_rating_names_its_movie_in_one_way() -> None:
    ratings = [{"movie_id": 0, "rating": 1}, {"external_id": "0", "movie_id": None, "rating": 1}]
    first, second = parse(ratings=ratings).ratings or []
    assert (first.movie_id, first.external_id) == (0, None)
    assert (second.movie_id, second.external_id) == (None, "0")


def test_an_external_id_is_there_only_where_the_data_have_one() -> None:
    assert "external_id" not in MovieDetails.of(rpc.Movie(movie_id=1)).model_dump()
    assert MovieDetails.of(rpc.Movie(movie_id=1, external_id="B")).model_dump()["external_id"] == "B"


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


def test_what_is_not_known_of_a_movie_is_null() -> None:
    details = MovieDetails.of(rpc.Movie(movie_id=0, rating_count=0))
    assert (details.year, details.mean_rating, details.title) == (None, None, "")
    assert MovieDetails.of(rpc.Movie(mean_rating=0.0)).mean_rating == 0


@pytest.mark.parametrize("near", [{"score": math.nan}, {"movie": {"movie_id": -1}}])
def test_similar_movies_that_cannot_be(near: dict[str, Any]) -> None:
    with pytest.raises(BadAnswer, match="a service answered with what cannot be"):
        SimilarResponse.of(rpc.FindSimilarMoviesResponse(movies=[near]))


def test_a_mean_rating_that_cannot_be() -> None:
    with pytest.raises(BadAnswer, match="mean_rating"):
        MovieDetails.of(rpc.Movie(movie_id=1, mean_rating=math.nan))
