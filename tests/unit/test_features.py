from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from builders import GENRES, make_bundle
from twotower.features import FeatureSpec, Scaling
from twotower.histories import Histories
from twotower.statistics import MovieSums, UserStatistics, UserSums

# Two movies of Action and Drama, one of Drama alone, one of no genre.
MOVIE_GENRES = np.array([[1, 1], [0, 1], [0, 0]], dtype=np.bool_)
# One user rated all three movies, one nothing, one the last movie.
HISTORIES = Histories.in_order(
    np.array([0, 3, 3, 4]), np.array([0, 1, 2, 2]), np.array([5.0, 2.0, 3.5, 1.0])
)
YEARS = np.array([1995.0, np.nan, 2005.0])


def plain_spec(*, damping: float = 2.0, low: float = 0.5, high: float = 5.0) -> FeatureSpec:
    """A spec that scales nothing."""
    return FeatureSpec(
        genres=("Action", "Drama"),
        rating_scale=(low, high),
        global_mean=3.0,
        damping=damping,
        year_mean=2000.0,
        rating_at_zero=(low + high) / 2,
        rating_per_cosine=(high - low) / 2 or 1.0,
        user_scaling=Scaling(mean=(0.0,) * 6, deviation=(1.0,) * 6),
        movie_scaling=Scaling(mean=(0.0,) * 6, deviation=(1.0,) * 6),
    )


def statistics(*, drama: float) -> UserStatistics:
    """A user with four ratings of mean 2, two of them of Action."""
    return UserStatistics(np.array([4.0]), np.array([2.0]), np.array([[2.5, drama]]))


def test_statistics_of_ratings() -> None:
    found = UserSums.of(HISTORIES, MOVIE_GENRES).statistics()
    assert_array_equal(found.count, [3, 0, 1])
    assert_array_equal(found.mean, [3.5, 0, 1])
    assert_array_equal(found.genre_means, [[5, 3.5], [np.nan, np.nan], [np.nan, np.nan]])


def test_statistics_without_one_rating() -> None:
    sums = UserSums.of(HISTORIES, MOVIE_GENRES)
    users, movies = np.array([0, 0, 2]), np.array([0, 1, 2])
    without = sums.leaving_out(users, np.array([5.0, 2.0, 1.0]), MOVIE_GENRES[movies]).statistics()
    assert_array_equal(without.count, [2, 2, 0])
    assert_array_equal(without.mean, [2.75, 4.25, 0])
    assert_array_equal(without.genre_means, [[np.nan, 2], [5, 5], [np.nan, np.nan]])


def test_sums_of_movies() -> None:
    sums = MovieSums.of(HISTORIES.movie_rows, HISTORIES.ratings, movies=4)
    assert_array_equal(sums.count, [1, 1, 2, 0])
    assert_array_equal(sums.means(), [5, 2, 2.25, np.nan])
    without = sums.leaving_out(np.array([2, 0]), np.array([1.0, 5.0]))
    assert_array_equal(without.means(), [3.5, np.nan])


def test_features_of_a_user() -> None:
    (row,) = plain_spec().encode_users(statistics(drama=np.nan))
    expected = [math.log(5), (2 - 3) * 4 / (4 + 2), 0.5, 0, 1, 0]
    np.testing.assert_allclose(row, expected, rtol=1e-6)
    assert row.dtype == np.float32


def test_features_of_movies() -> None:
    sums = MovieSums.of(HISTORIES.movie_rows, HISTORIES.ratings, movies=3)
    rows = plain_spec().encode_movies(sums, YEARS, MOVIE_GENRES)
    expected = [
        [1995, 1, math.log(2), (5 - 3) / (1 + 2), 1, 1],
        [2000, 0, math.log(2), (2 - 3) / (1 + 2), 0, 1],
        [2005, 1, math.log(3), (4.5 - 6) / (2 + 2), 0, 0],
    ]
    np.testing.assert_allclose(rows, expected, rtol=1e-6)
    assert rows.dtype == np.float32


def test_an_unrated_movie_lies_at_the_global_mean() -> None:
    unrated = MovieSums(np.zeros(1), np.zeros(1))
    (row,) = plain_spec().encode_movies(unrated, YEARS[:1], MOVIE_GENRES[:1])
    assert row[2:4].tolist() == [0, 0]


@pytest.mark.parametrize("drama", [0.5, 2.0, 5.0])
def test_a_missing_genre_is_not_a_rated_one(drama: float) -> None:
    spec = plain_spec()
    (missing,), (rated,) = (spec.encode_users(statistics(drama=d)) for d in (np.nan, drama))
    assert missing[3] == 0.0  # the user's own mean
    assert rated[3] == drama - 2.0
    assert (missing[5], rated[5]) == (0, 1)


def test_a_user_without_ratings_is_the_average_user() -> None:
    bundle = make_bundle()
    histories = bundle.histories.rows_in(bundle.catalogue)
    users = UserSums.of(histories, bundle.catalogue.genre_matrix(GENRES)).statistics()
    average = bundle.features.encode_users(users).mean(axis=0)
    nobody = UserStatistics(np.zeros(1), np.zeros(1), np.full((1, len(GENRES)), np.nan))
    (row,) = bundle.features.encode_users(nobody)
    assert_array_equal(row, np.zeros(bundle.features.user_width))
    np.testing.assert_allclose(average, row, atol=1e-6)


def test_widths_are_those_of_the_rows() -> None:
    bundle = make_bundle()
    genres = bundle.catalogue.genre_matrix(GENRES)
    users = UserSums.of(bundle.histories.rows_in(bundle.catalogue), genres).statistics()
    movies = MovieSums(np.zeros(len(genres)), np.zeros(len(genres)))
    assert bundle.features.encode_users(users).shape == (5, bundle.features.user_width)
    rows = bundle.features.encode_movies(movies, bundle.catalogue.years, genres)
    assert rows.shape == (12, bundle.features.movie_width)


def test_constant_columns_are_not_blown_up() -> None:
    rows = np.array([[0.1, 1.0], [0.1, 3.0], [0.1, 5.0]])
    scaling = Scaling.of(rows)
    assert scaling.deviation[0] == 1.0
    np.testing.assert_allclose(scaling.apply(rows)[:, 0], 0, atol=1e-6)
    assert scaling.apply(np.array([[0.1 + 1e-3, 3.0]]))[0, 0] == pytest.approx(1e-3)


@pytest.mark.parametrize("damping", [0.0, 5.0])
@pytest.mark.parametrize("years", [YEARS, np.full(3, 1999.0), np.full(3, np.nan)])
def test_features_are_finite(damping: float, years: np.ndarray) -> None:
    users = UserSums.of(HISTORIES, MOVIE_GENRES)
    movies = MovieSums.of(np.array([0, 0]), np.array([3.0, 3.0]), movies=3)
    spec = FeatureSpec.fit(
        genres=("Action", "Drama"),
        rating_scale=(3.0, 3.0),
        damping=damping,
        users=users,
        movies=movies,
        years=years,
        movie_genres=MOVIE_GENRES,
    )
    assert np.isfinite(spec.encode_users(users.statistics())).all()
    assert np.isfinite(spec.encode_movies(movies, years, MOVIE_GENRES)).all()


def test_global_mean_is_over_ratings_not_over_movies() -> None:
    assert make_bundle().features.global_mean == make_bundle().histories.ratings.mean()


def test_ratings_are_scaled_to_the_range_of_a_cosine() -> None:
    spec = plain_spec(low=1.0, high=5.0)
    assert spec.scale_ratings(np.array([1.0, 2.0, 3.0, 5.0])).tolist() == [-1, -0.5, 0, 1]
    assert spec.unscale_ratings(np.array([-1.0, -0.5, 0.0, 1.0])).tolist() == [1, 2, 3, 5]


def test_a_cosine_just_beyond_one_gives_the_highest_rating() -> None:
    cosines = np.array([-1.0000001, 1.0000001], dtype=np.float32)
    assert plain_spec().unscale_ratings(cosines).tolist() == [0.5, 5]


def test_a_scale_of_one_rating() -> None:
    spec = plain_spec(low=3.0, high=3.0)
    assert np.isfinite(spec.scale_ratings(np.array([3.0]))).all()
    assert spec.unscale_ratings(np.array([-1.0, 0.3, 1.0])).tolist() == [3, 3, 3]


def test_a_spec_read_back_encodes_the_same_row() -> None:
    bundle = make_bundle()
    genres = bundle.catalogue.genre_matrix(GENRES)
    users = UserSums.of(bundle.histories.rows_in(bundle.catalogue), genres).statistics()
    again = FeatureSpec.model_validate_json(bundle.features.model_dump_json())
    assert_array_equal(again.encode_users(users), bundle.features.encode_users(users))
