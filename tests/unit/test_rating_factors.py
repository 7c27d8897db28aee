"""Factors predict ratings in closed form, and no rating from itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from training.baselines import bias
from training.config import FactorConfig
from training.content import MovieContent
from training.interactions import Interactions
from training.rating_factors import RatingFactors
from training.ridge import GroupedRows, Prior
from training.splits import Fold
from twotower.arrays import Floats, Ints
from twotower.features import Fading
from twotower.loops import weighted_ridge

FADING = Fading(half_life=10.0, floor=0.5)
CONFIG = FactorConfig(
    svd=4,
    factors=5,
    damping=5.0,
    taste_penalty=20.0,
    content_penalty=30.0,
    user_taste_penalty=50.0,
    noise=0.3,
    movie_steps=3,
    user_steps=8,
)


def _simulated(users: int, movies: int, share: float) -> tuple[Interactions, MovieContent]:
    """Users rate what is to their taste more often, and higher.

    The last user and the last movie have but one rating, each other's.
    """
    random = np.random.default_rng(0)
    match = random.normal(size=(users, 2)) @ random.normal(size=(2, movies))
    rated = random.random(match.shape) < share * 2 / (1 + np.exp(-2 * match))
    rated[-1], rated[:, -1] = False, False
    rated[-1, -1] = True
    of_user, of_movie = 0.3 * random.normal(size=(users, 1)), 0.4 * random.normal(size=movies)
    noise = CONFIG.noise**0.5 * random.normal(size=match.shape)
    ratings = (3.5 + of_user + of_movie + 0.6 * match + noise)[rated]
    user_rows, movie_rows = np.nonzero(rated)
    times = random.integers(0, 1_000, len(ratings))
    years = np.where(random.random(movies) < 0.1, np.nan, random.integers(1950, 2020, movies))
    return (
        Interactions(user_rows, movie_rows, ratings, times, users, movies).by_user(),
        MovieContent(("Action", "Comedy", "Drama"), random.random((movies, 3)) < 0.4, years),
    )


TRAIN, CONTENT = _simulated(users=40, movies=30, share=0.3)


SOME = np.flatnonzero(TRAIN.user_rows % 3 == 1)
"""All ratings of some of the users."""


@pytest.mark.parametrize("chosen", [None, SOME], ids=["all", "some"])
def test_a_users_factors_without_a_rating_are_those_fitted_without_it(chosen: Ints | None) -> None:
    factors = RatingFactors.of(TRAIN, CONTENT, CONFIG, FADING, chosen)
    seen = TRAIN if chosen is None else TRAIN.take(chosen)
    assert len(factors.users_without) == len(seen)
    weights = FADING.weights(seen.histories().ages)
    surprises = seen.ratings - TRAIN.ratings.mean() - factors.base_without
    for place, user in enumerate(seen.user_rows):
        gram, moment = factors.precision.copy(), np.zeros(CONFIG.factors)
        for other in np.flatnonzero(seen.user_rows == user):
            if other != place:
                row = factors.movies_without[other]
                gram += weights[other] * np.outer(row, row)
                moment += weights[other] * surprises[other] * row
        assert_allclose(factors.users_without[place], np.linalg.solve(gram, moment), atol=1e-8)


def test_factors_predict_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = RatingFactors.of(TRAIN, CONTENT, CONFIG, FADING)
    monkeypatch.setattr("training.rating_factors._RATINGS_AT_ONCE", 7)
    parted = RatingFactors.of(TRAIN, CONTENT, CONFIG, FADING)
    for name in ("base", "base_without", "base_unrated"):
        assert_allclose(getattr(parted, name), getattr(whole, name), atol=1e-9)
    for name in ("movies", "movies_without", "movies_unrated"):  # their directions may turn
        expected = getattr(whole, name) @ whole.users_without.T
        assert_allclose(getattr(parted, name) @ parted.users_without.T, expected, atol=1e-8)


def _seen(ratings: Floats) -> tuple[Floats, Floats]:
    """The base that each rating sees, and what factors add to it.

    Of all directions, so that it does not matter which ones lead.
    """
    config = CONFIG.model_copy(update={"factors": 1_000})
    factors = RatingFactors.of(replace(TRAIN, ratings=ratings), CONTENT, config, FADING)
    return factors.base_without, (factors.movies_without * factors.users_without).sum(axis=1)


@pytest.mark.parametrize("place", range(0, len(TRAIN) - 1, len(TRAIN) // 8))
def test_no_rating_sees_itself_but_through_the_mean_the_priors_and_the_leading_directions(
    monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    def keep(_rows: GroupedRows, prior: Prior, **_: object) -> Prior:
        return prior

    monkeypatch.setattr(GroupedRows, "learn_prior", keep)
    ratings = TRAIN.ratings.copy()
    ratings[place] += 1
    ratings[-1] -= 1  # which keeps the mean, and shares no user and no movie with any other
    before, after = _seen(TRAIN.ratings), _seen(ratings)
    same_movie, same_user = (rows == rows[place] for rows in (TRAIN.movie_rows, TRAIN.user_rows))
    for seen, seen_after, others in zip(before, after, (same_movie, same_user), strict=True):
        change = np.abs(seen_after - seen)
        assert change[place] < 1e-7
        others[place] = False
        assert change[others].max() > 1e-3  # they see it


def test_a_movie_looks_to_its_raters_nearly_as_to_anybody() -> None:
    factors = RatingFactors.of(TRAIN, CONTENT, CONFIG, FADING)
    often = np.bincount(TRAIN.movie_rows)[TRAIN.movie_rows] >= 10
    for of_movie, without in (
        (factors.base, factors.base_without),
        (factors.movies, factors.movies_without),
    ):
        seen, left = of_movie[TRAIN.movie_rows][often], without[often]
        assert np.linalg.norm(seen - left) < 0.2 * np.linalg.norm(seen)


def test_factors_predict_what_was_held_out_better_than_the_bias() -> None:
    every, content = _simulated(users=120, movies=80, share=0.25)
    held_out = np.random.default_rng(1).random(len(every)) < 0.2
    train, test = every.take(~held_out), every.take(held_out)
    factors = RatingFactors.of(train, content, CONFIG, FADING)
    histories, mean, rows = train.histories(), train.ratings.mean(), train.movie_rows
    surprises, weights = train.ratings - mean - factors.base[rows], FADING.weights(histories.ages)
    of_user = weighted_ridge(
        histories.offsets,
        rows,
        factors.movies,
        targets=surprises,
        weights=weights,
        precision=factors.precision,
    )
    tastes = (factors.movies[test.movie_rows] * of_user[test.user_rows]).sum(axis=1)
    fitted = bias(Fold(train, train, test))
    assert fitted.ratings
    error, error_of_bias = (
        np.mean((predicted - test.ratings) ** 2)
        for predicted in (
            mean + factors.base[test.movie_rows] + tastes,
            fitted.ratings(test.user_rows, test.movie_rows),
        )
    )
    assert CONFIG.noise < error < 0.85 * error_of_bias
