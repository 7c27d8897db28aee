"""Samples are of three lengths of history, newest likes first, and recommend nothing that was rated."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from builders import RATING_SCALE, make_dataset
from training.dataset import Dataset
from training.interactions import Interactions
from training.methods import Fitted
from training.samples import Sample, movie_titles, sample
from twotower.arrays import FeatureRows, Floats, Ints

_MOVIES = 40


def _dataset(ratings: list[tuple[int, int, float, int]]) -> Dataset:
    columns = ["user_id", "movie_id", "rating", "timestamp"]
    movies = pd.DataFrame(
        {
            "movie_id": np.arange(_MOVIES) * 10,
            "title": ["", *(f"Number {row}" for row in range(1, _MOVIES))],
            "year": pd.array([1999, None, *range(2002, 2000 + _MOVIES)], dtype="Int16"),
            "genres": [()] * _MOVIES,
        }
    )
    table = pd.DataFrame(ratings, columns=columns).astype({"rating": "float32"})
    return replace(make_dataset("made-up", "0" * 64, table, movies), allowed=RATING_SCALE)


def _sample(ratings: list[tuple[int, int, float, int]], fitted: Fitted) -> tuple[Sample, ...]:
    dataset = _dataset(ratings)
    return sample(dataset, Interactions.of(dataset), fitted)


def _scores(users: Ints) -> FeatureRows:
    """The higher the row, the better."""
    return np.tile(np.arange(_MOVIES, dtype=np.float32), (len(users), 1))


def _ratings(users: Ints, movies: Ints) -> Floats:
    return users + movies / 100


_FITTED = Fitted(scores=_scores, ratings=_ratings)


def test_titles_come_with_what_is_known_of_the_year() -> None:
    assert movie_titles(_dataset([(1, 0, 4.0, 1)]).movies)[:3] == (
        "(no title) (1999)",
        "Number 1",
        "Number 2 (2002)",
    )


def test_a_short_a_medium_and_a_long_history_are_shown() -> None:
    lengths = {50 + place: place for place in range(1, 12)}  # by user id
    ratings = [
        (user, movie * 10, 4.0, movie) for user, length in lengths.items() for movie in range(length)
    ]
    found = _sample(ratings, _FITTED)
    assert [one.user for one in found] == [
        "User 52, a short history: 2 ratings",
        "User 56, a medium history: 6 ratings",
        "User 60, a long history: 10 ratings",
    ]
    assert found[0].liked == ("Number 1", "(no title) (1999)")
    assert found[2].liked == tuple(f"Number {row} ({2000 + row})" for row in range(9, 3, -1))


def test_the_best_that_was_not_rated_is_recommended_with_its_rating() -> None:
    rated = [(8, (_MOVIES - 1) * 10, 5.0, 1), (8, (_MOVIES - 3) * 10, 1.0, 2)]
    (found,) = _sample([(7, 0, 3.0, 1), *rated], _FITTED)  # user 7 likes nothing
    assert found.user.startswith("User 8,")
    assert found.liked == ("Number 39 (2039)",)
    rows = [38, *range(36, 27, -1)]
    assert [one.title for one in found.recommended] == [f"Number {row} ({2000 + row})" for row in rows]
    assert [one.predicted_rating for one in found.recommended] == [1 + row / 100 for row in rows]


def test_a_method_that_only_ranks_predicts_no_rating() -> None:
    (found,) = _sample([(7, 0, 4.0, 1)], Fitted(scores=_scores))
    assert {one.predicted_rating for one in found.recommended} == {None}


def test_where_nobody_liked_anything_somebody_is_shown() -> None:
    (found,) = _sample([(7, 0, 1.0, 1)], _FITTED)
    assert found.user.endswith("history: 1 rating")
    assert found.liked == ()
    assert len(found.recommended) == 10


def test_a_user_is_called_what_the_data_say() -> None:
    dataset = _dataset([(7, 0, 4.0, 1)])
    named = replace(dataset, users=dataset.users.assign(external_id=["ada"]))
    (found,) = sample(named, Interactions.of(named), _FITTED)
    assert found.user.startswith("User ada, a ")


def test_no_more_is_recommended_than_is_left() -> None:
    rated = [(7, row * 10, 4.0, row) for row in range(_MOVIES - 2)]
    (found,) = _sample(rated, _FITTED)
    assert [one.title for one in found.recommended] == ["Number 39 (2039)", "Number 38 (2038)"]


def test_a_method_that_does_not_rank_has_no_sample() -> None:
    with pytest.raises(ValueError, match="a method that ranks"):
        _sample([(7, 0, 4.0, 1)], Fitted(ratings=_ratings))
