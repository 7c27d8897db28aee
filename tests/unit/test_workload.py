from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest

from bench import workload
from bench.whole import fault_of
from gateway.schemas import RecommendationRequest

_MOVIES = np.arange(0, 3000, 3)
_COUNTS = np.arange(1000)


def _requests(users: int, count: int = 200, seed: int = 7) -> list[bytes]:
    return workload.requests(_MOVIES, _COUNTS, np.arange(users) + 5, as_of=1_000, count=count, seed=seed)


def test_every_request_is_another_and_sound() -> None:
    bodies = _requests(users=3)
    assert len(set(bodies)) == 200
    requests = [RecommendationRequest.model_validate_json(body) for body in bodies]
    assert {request.user_id for request in requests} == {None, 5, 6, 7}
    assert [request.as_of for request in requests] == list(range(1_000, 1_200))
    strangers = [request.ratings for request in requests if request.ratings]
    assert len(strangers) == 100
    assert all(20 <= len(ratings) <= 200 for ratings in strangers)
    for ratings in strangers:
        movie_ids = {rating.movie_id for rating in ratings}
        assert len(movie_ids) == len(ratings)
        assert movie_ids <= set(_MOVIES[1:].tolist())  # the first was never rated
        assert all(rating.rating in np.arange(1, 11) / 2 for rating in ratings)


def test_the_most_rated_movies_are_rated_most() -> None:
    drawn = Counter(
        rating["movie_id"] for body in _requests(users=0) for rating in json.loads(body)["ratings"]
    )
    popular = sum(drawn[movie_id] for movie_id in _MOVIES[500:].tolist())
    assert popular / drawn.total() == pytest.approx(0.75, abs=0.05)


def test_the_same_seed_asks_the_same() -> None:
    assert _requests(users=3) == _requests(users=3)
    assert _requests(users=3) != _requests(users=3, seed=8)


def _movie(movie_id: int, *genres: str) -> dict[str, object]:
    return {"movie_id": movie_id, "genres": list(genres)}


_TWO = [_movie(1, "Drama"), _movie(2, "Drama", "Comedy")]
_SHORT = {"reason": "filter_too_narrow", "requested": 3, "returned": 2}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({"items": [*_TWO, _movie(3, "Drama")], "shortfall": None}, ""),
        ({"items": _TWO, "shortfall": _SHORT}, ""),
        ({"items": _TWO, "shortfall": None}, "2 movies for 3, and no shortfall"),
        ({"items": _TWO[:1], "shortfall": _SHORT}, "1 movies for 3, and a shortfall of another count"),
        ({"items": [*_TWO, _TWO[0]], "shortfall": None}, "a movie comes twice"),
        ({"items": [*_TWO, _movie(9, "Drama")], "shortfall": None}, "movie 9 comes back"),
        ({"items": [*_TWO, _movie(3, "Comedy")], "shortfall": None}, "a movie is no Drama"),
    ],
)
def test_an_answer_that_is_not_whole_is_a_fault(answer: dict[str, object], fault: str) -> None:
    assert fault_of(answer, 3, barred=[8, 9], genre="Drama") == fault
