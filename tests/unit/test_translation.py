from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from gateway import decoding
from gateway.catalogue import MovieTexts
from gateway.recommender import Recommendation
from gateway.schemas import RecommendationRequest, RecommendationResponse
from gateway.translation import ask_of, json_of
from twotower.errors import BadAnswer
from twotower.v1 import embedding_pb2 as pb
from twotower.v1 import retrieval_pb2 as rpc
from twotower.v1 import user_tower_pb2 as tower

INT64 = 2**63 - 1
VERSION = "0123456789abcdef"


@pytest.fixture(params=["pydantic", "msgspec"])
def parse(request: pytest.FixtureRequest) -> Any:
    """Reads a body, by either of the two that do."""
    if request.param == "msgspec":
        return lambda **body: decoding.DECODER.decode(json.dumps(body))
    return lambda **body: RecommendationRequest.model_validate(body)


def ask(body: Any) -> Any:
    return ask_of(body, strict=False, request_id="r1")


def unpack(kind: str, content: bytes) -> list[Any]:
    return list(struct.unpack(f"<{len(content) // struct.calcsize(kind)}{kind}", content))


def test_a_user_id(parse: Any) -> None:
    user = ask_of(parse(user_id=0, as_of=INT64), strict=True, request_id="r1").user
    assert user.HasField("user_id")
    assert (user.user_id, user.as_of, user.strict, user.request_id) == (0, INT64, True, "r1")
    assert not user.HasField("rating_arrays")
    assert not user.HasField("features")
    assert not user.model_version


def test_ratings_go_as_arrays(parse: Any) -> None:
    given = [{"movie_id": INT64, "rating": 4.5}, {"movie_id": 2, "rating": 3}]
    user = ask(parse(ratings=given)).user
    assert not user.HasField("user_id")
    assert unpack("q", user.rating_arrays.movie_ids) == [INT64, 2]
    assert unpack("f", user.rating_arrays.ratings) == [4.5, 3]
    assert not user.rating_arrays.timestamps


def test_ratings_with_timestamps(parse: Any) -> None:
    given = [{"movie_id": i, "rating": 3.0, "timestamp": i * 10} for i in (5, 3)]
    assert unpack("q", ask(parse(ratings=given)).user.rating_arrays.timestamps) == [50, 30]


def test_ratings_of_which_some_have_a_timestamp_are_told_apart(parse: Any) -> None:
    given = [{"movie_id": 1, "rating": 4.5, "timestamp": 0}, {"movie_id": 2, "rating": 3.0}]
    user = ask(parse(ratings=given)).user
    assert not user.HasField("rating_arrays")
    assert user.has_ratings
    assert [(each.movie_id, each.rating) for each in user.ratings] == [(1, 4.5), (2, 3.0)]
    assert [each.HasField("timestamp") for each in user.ratings] == [True, False]


def test_external_ids() -> None:
    given = [{"external_id": "B-17", "rating": 4.5}, {"movie_id": 2, "rating": 3, "timestamp": None}]
    body = RecommendationRequest.model_validate(
        {"external_user_id": "ada", "ratings": given, "exclude_external_ids": ["x"]}
    )
    user, search = ask(body)
    assert not user.HasField("user_id")
    assert (user.external_user_id, user.has_ratings) == ("ada", True)
    assert user.ratings == [pb.Rating(external_id="B-17", rating=4.5), pb.Rating(movie_id=2, rating=3)]
    assert not user.HasField("rating_arrays")
    assert search.exclude_external_ids == ["x"]


@pytest.mark.parametrize(("body", "meant"), [({"ratings": []}, True), ({"ratings": None}, False)])
def test_no_ratings_are_not_the_same_as_none_given(
    parse: Any, body: dict[str, Any], *, meant: bool
) -> None:
    assert ask(parse(**body)).user.HasField("rating_arrays") == meant


def test_features(parse: Any) -> None:
    features = {"rating_count": 3, "mean_rating": 3.5, "genre_means": {"Drama": 4}}
    assert ask(parse(features=features)).user.features == tower.UserFeatures(**features)


def test_a_search_by_default(parse: Any) -> None:
    assert ask(parse(user_id=1)).search == rpc.RetrieveMoviesRequest(
        k=10, exclude_rated=True, request_id="r1", ids_only=True
    )


def test_a_search(parse: Any) -> None:
    condition = {"genres_any": ["A"], "genres_all": ["B"], "genres_none": ["C"], "year_min": 0}
    body = parse(k=100, exclude_rated=False, exclude_movie_ids=[3, 3], filter=condition)
    assert ask(body).search == rpc.RetrieveMoviesRequest(
        k=100,
        exclude_movie_ids=[3, 3],
        filter=rpc.MovieFilter(**condition),
        request_id="r1",
        ids_only=True,
    )


TEXTS = {
    7: '{"movie_id":7,"title":"Heat","year":1995,"genres":["Action","Crime"]',
    8: '{"movie_id":8,"title":"Amélie \\"x\\"","year":null,"genres":[]',
}


def answer(strategy: Any = pb.STRATEGY_FEATURES, **changes: Any) -> RecommendationResponse:
    found = {"movie_ids": [7, 8], "scores": [0.123456789, 1e-7], "predicted_ratings": [3.14159, 5.0]}
    response = rpc.RetrieveMoviesResponse(**{**found, **changes}, model_version=VERSION)
    user = pb.UserEmbedding(strategy=strategy, ignored_count=2)
    return RecommendationResponse.model_validate_json(json_of(Recommendation(user, response, TEXTS)))


def test_an_answer() -> None:
    assert answer().model_dump() == {
        "items": [
            {
                "movie_id": 7,
                "title": "Heat",
                "year": 1995,
                "genres": ["Action", "Crime"],
                "predicted_rating": 3.14,
                "score": 0.123457,
            },
            {
                "movie_id": 8,
                "title": 'Amélie "x"',
                "year": None,
                "genres": [],
                "predicted_rating": 5.0,
                "score": 0.0,
            },
        ],
        "model_version": VERSION,
        "strategy": "features",
        "ignored_ratings": 2,
        "shortfall": None,
    }


def test_a_model_that_predicts_no_ratings_says_null() -> None:
    assert [item.predicted_rating for item in answer(predicted_ratings=[]).items] == [None, None]


def test_an_answer_without_movies() -> None:
    none: dict[str, Any] = {"movie_ids": [], "scores": [], "predicted_ratings": []}
    shortfall = rpc.Shortfall(reason=rpc.SHORTFALL_REASON_FILTER_TOO_NARROW, requested=10)
    assert answer(**none, shortfall=shortfall).items == []


@pytest.mark.parametrize("score", [1e-6, -1.0, 0.0, -0.0, 2.0**-20, 0.1])
def test_scores_are_json(score: float) -> None:
    assert answer(scores=[score, 0.0]).items[0].score == round(
        struct.unpack("f", struct.pack("f", score))[0], 6
    )


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
    assert answer(strategy).strategy == name


@pytest.mark.parametrize("strategy", [pb.STRATEGY_UNSPECIFIED, 99])
def test_a_strategy_that_cannot_be(strategy: Any) -> None:
    with pytest.raises(BadAnswer, match="strategy"):
        answer(strategy)


@pytest.mark.parametrize(
    ("reason", "name"),
    [
        (rpc.SHORTFALL_REASON_FILTER_TOO_NARROW, "filter_too_narrow"),
        (rpc.SHORTFALL_REASON_CATALOGUE_EXHAUSTED, "catalogue_exhausted"),
    ],
)
def test_every_shortfall_has_a_reason(reason: Any, name: str) -> None:
    shortfall = answer(shortfall=rpc.Shortfall(reason=reason, requested=10, returned=2)).shortfall
    assert shortfall
    assert shortfall.model_dump() == {"reason": name, "requested": 10, "returned": 2}


@pytest.mark.parametrize("reason", [rpc.SHORTFALL_REASON_UNSPECIFIED, 99])
def test_a_shortfall_that_cannot_be(reason: Any) -> None:
    with pytest.raises(BadAnswer, match=r"reason|Reason"):
        answer(shortfall=rpc.Shortfall(reason=reason))


class Catalogue:
    """Tells of the movies asked for, by a title that names their model."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.distorted: dict[str, Any] = {}

    async def ask(self, movie_ids: list[int], version: str, seconds: float) -> rpc.GetMoviesResponse:
        assert 0 < seconds <= 100
        self.asked.append(movie_ids)
        movies = [rpc.Movie(movie_id=movie_id, title=f"of {version}") for movie_id in movie_ids]
        answer: dict[str, Any] = {"movies": movies, "model_version": version, **self.distorted}
        return rpc.GetMoviesResponse(**answer)


def texts_of(texts: MovieTexts, version: str, movie_ids: Sequence[int]) -> list[str]:
    async def find() -> Mapping[int, str]:
        return await texts.of(version, movie_ids, asyncio.get_running_loop().time() + 100)

    found = asyncio.run(find())
    return [json.loads(found[movie_id] + "}")["title"] for movie_id in movie_ids]


def test_a_movie_is_asked_for_once_for_each_model() -> None:
    catalogue = Catalogue()
    texts = MovieTexts(catalogue.ask)
    assert texts_of(texts, "a", [3, 1]) == ["of a"] * 2
    assert texts_of(texts, "a", [1, 2, 3]) == ["of a"] * 3
    assert texts_of(texts, "b", [1]) == ["of b"]
    assert texts_of(texts, "a", [1]) == ["of a"]
    assert catalogue.asked == [[1, 3], [2], [1]]


def test_many_movies_are_asked_for_in_parts_and_not_all_are_kept() -> None:
    catalogue = Catalogue()
    texts = MovieTexts(catalogue.ask)
    texts_of(texts, "a", [1])
    assert texts_of(texts, "b", range(100_001))[-1] == "of b"
    assert len(catalogue.asked) == 102
    assert max(map(len, catalogue.asked)) == 1_000
    texts_of(texts, "a", [1])
    assert len(catalogue.asked) == 103


@pytest.mark.parametrize(
    "distorted",
    [
        {"movies": [], "missing_movie_ids": [1]},
        {"movies": []},
        {"model_version": "b"},
        {"movies": [rpc.Movie(movie_id=-1)]},
        {"movies": [rpc.Movie(movie_id=2)]},
    ],
)
def test_a_catalogue_that_cannot_be(distorted: dict[str, Any]) -> None:
    catalogue = Catalogue()
    catalogue.distorted = distorted
    with pytest.raises(BadAnswer):
        texts_of(MovieTexts(catalogue.ask), "a", [1])


def test_texts_are_json_however_odd_the_title() -> None:
    async def ask_(_movie_ids: list[int], version: str, _seconds: float) -> rpc.GetMoviesResponse:
        movies = [rpc.Movie(movie_id=1, title='a "b" \\ \x01 }{ é 🎬', genres=["x}"], year=-5)]
        return rpc.GetMoviesResponse(movies=movies, model_version=version)

    (title,) = texts_of(MovieTexts(ask_), "a", [1])
    assert title == 'a "b" \\ \x01 }{ é 🎬'
