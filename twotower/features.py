"""Encoding of users and movies as the towers' inputs: the only implementation, for training and serving.

A user's ratings are summed (`UserSums`), the sums become statistics (`UserStatistics`: count, mean,
mean per genre), and the statistics become a feature row. Sums can leave one rating out exactly, which
is how training sees them: a row never contains its own target. Statistics can also come straight from
a request, and then encode to the same row as the ratings behind them would.

Missing is not zero: a genre without ratings is encoded as the user's own mean and flagged as missing.
Without any rating, the row is the average user's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

# Sums are kept in float64: exact for ratings in steps of a half, so that leaving one out and summing
# in another order change nothing.
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
FeatureRows = npt.NDArray[np.float32]

_CONSTANT: Final = 1e-6
"""A feature that deviates less than this is taken for constant."""


@dataclass(frozen=True)
class Histories:
    """The ratings of n users, one user after the other.

    offsets: int64 (n + 1,), user i's ratings lie at offsets[i]:offsets[i + 1].
    movie_rows: int64 (ratings,), row numbers of the catalogue.
    ratings: float64 (ratings,).
    """

    offsets: Ints
    movie_rows: Ints
    ratings: Floats

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def counts(self) -> Ints:
        """How many ratings each user has: int64 (n,)."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class UserStatistics:
    """What the features of n users are made of.

    count: float64 (n,). mean: float64 (n,), the mean rating, any value where count is 0.
    genre_means: float64 (n, genres), NaN where the user rated no movie of the genre.
    """

    count: Floats
    mean: Floats
    genre_means: Floats


@dataclass(frozen=True)
class UserSums:
    """Sums over each user's ratings: count and total (n,), the same per genre (n, genres)."""

    count: Floats
    total: Floats
    genre_count: Floats
    genre_total: Floats

    @classmethod
    def of(cls, histories: Histories, genres: Bools) -> Self:
        """Sum each user's ratings. `genres`: bool (movies, genres) of the catalogue."""
        belongs = genres[histories.movie_rows].astype(np.float64)
        return cls(
            count=histories.counts.astype(np.float64),
            total=_segment_sums(histories.ratings, histories.offsets),
            genre_count=_segment_sums(belongs, histories.offsets),
            genre_total=_segment_sums(belongs * histories.ratings[:, None], histories.offsets),
        )

    def leaving_out(self, users: Ints, ratings: Floats, movie_genres: Bools) -> Self:
        """The sums of `users` (m,) without one of their ratings each.

        ratings: float64 (m,). movie_genres: bool (m, genres), of the movies rated.
        """
        belongs = movie_genres.astype(np.float64)
        return type(self)(
            count=self.count[users] - 1,
            total=self.total[users] - ratings,
            genre_count=self.genre_count[users] - belongs,
            genre_total=self.genre_total[users] - belongs * ratings[:, None],
        )

    def statistics(self) -> UserStatistics:
        """Sums to means; NaN for a genre without ratings."""
        return UserStatistics(
            count=self.count,
            mean=_means(self.total, self.count, missing=0.0),
            genre_means=_means(self.genre_total, self.genre_count, missing=np.nan),
        )


@dataclass(frozen=True)
class MovieSums:
    """Sums over each movie's ratings: count and total, float64 (movies,)."""

    count: Floats
    total: Floats

    @classmethod
    def of(cls, movie_rows: Ints, ratings: Floats, movies: int) -> Self:
        """Sum the ratings of each of `movies` movies."""
        return cls(
            count=np.bincount(movie_rows, minlength=movies).astype(np.float64),
            total=np.bincount(movie_rows, weights=ratings, minlength=movies).astype(np.float64),
        )

    def leaving_out(self, movie_rows: Ints, ratings: Floats) -> Self:
        """The sums of the movies rated, without one of their ratings each: (m,)."""
        return type(self)(self.count[movie_rows] - 1, self.total[movie_rows] - ratings)

    def means(self) -> Floats:
        """The mean rating of each movie, NaN without ratings."""
        return _means(self.total, self.count, missing=np.nan)


class Scaling(BaseModel):
    """Mean and standard deviation of each feature; a constant feature has deviation 1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, rows: Floats) -> Self:
        """Measure the columns of rows (n, features)."""
        deviation = rows.std(axis=0)
        deviation[deviation < _CONSTANT] = 1.0
        return cls(mean=tuple(rows.mean(axis=0).tolist()), deviation=tuple(deviation.tolist()))

    def apply(self, rows: Floats) -> FeatureRows:
        """Rows to mean 0 and deviation 1, as float32."""
        scaled: Floats = (rows - np.array(self.mean)) / np.array(self.deviation)
        return scaled.astype(np.float32)


class FeatureSpec(BaseModel):
    """Everything that encoding depends on beside its input, written to `features.json` of a bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    genres: tuple[str, ...]
    """The genre vocabulary, in the order of the columns."""
    rating_scale: tuple[float, float]
    """The lowest and the highest rating."""
    global_mean: float
    """The mean of all ratings of the training part."""
    damping: float
    """How many ratings at the global mean a user's or a movie's mean is damped by."""
    year_mean: float
    """The year that a movie without one is given, beside its flag."""
    user_scaling: Scaling
    movie_scaling: Scaling

    @property
    def user_width(self) -> int:
        """Features of a user: log count, mean, and per genre a mean and a flag."""
        return 2 + 2 * len(self.genres)

    @property
    def movie_width(self) -> int:
        """Features of a movie: year, year flag, log count, mean, and a flag per genre."""
        return 4 + len(self.genres)

    @classmethod
    def fit(
        cls,
        *,
        genres: tuple[str, ...],
        rating_scale: tuple[float, float],
        damping: float,
        users: UserSums,
        movies: MovieSums,
        years: Floats,
        movie_genres: Bools,
    ) -> Self:
        """Measure the training part. years: float64 (movies,), NaN where missing."""
        global_mean = float(movies.total.sum() / movies.count.sum())
        year_mean = float(np.nanmean(years)) if np.isfinite(years).any() else 0.0
        return cls(
            genres=genres,
            rating_scale=rating_scale,
            global_mean=global_mean,
            damping=damping,
            year_mean=year_mean,
            user_scaling=Scaling.of(_user_columns(users.statistics(), global_mean, damping)),
            movie_scaling=Scaling.of(
                _movie_columns(
                    movies,
                    years,
                    movie_genres,
                    global_mean=global_mean,
                    damping=damping,
                    year_mean=year_mean,
                )
            ),
        )

    def encode_users(self, users: UserStatistics) -> FeatureRows:
        """Feature rows of n users: float32 (n, user_width). Without ratings: the average user's."""
        rows = self.user_scaling.apply(_user_columns(users, self.global_mean, self.damping))
        rows[users.count == 0] = 0.0  # scaled, the mean of all users is 0
        return rows

    def encode_movies(self, movies: MovieSums, years: Floats, movie_genres: Bools) -> FeatureRows:
        """Feature rows of n movies: float32 (n, movie_width).

        years: float64 (n,), NaN where missing. movie_genres: bool (n, genres).
        """
        return self.movie_scaling.apply(
            _movie_columns(
                movies,
                years,
                movie_genres,
                global_mean=self.global_mean,
                damping=self.damping,
                year_mean=self.year_mean,
            )
        )

    def scale_ratings(self, ratings: Floats) -> Floats:
        """Ratings to [-1, 1], the range of a cosine (min-max scaling)."""
        low, high = self.rating_scale
        return (ratings - low) / ((high - low) or 1.0) * 2 - 1

    def unscale_ratings(self, cosines: npt.NDArray[np.floating]) -> Floats:
        """Cosines in [-1, 1] to ratings, within the rating scale."""
        low, high = self.rating_scale
        return np.clip(low + (cosines.astype(np.float64) + 1) / 2 * (high - low), low, high)


def genre_matrix(genres_of_movies: Sequence[Sequence[str]], vocabulary: Sequence[str]) -> Bools:
    """Which movie has which genre: bool (movies, genres), columns as in `vocabulary`."""
    column = {genre: index for index, genre in enumerate(vocabulary)}
    matrix = np.zeros((len(genres_of_movies), len(column)), dtype=np.bool_)
    for row, genres in enumerate(genres_of_movies):
        matrix[row, [column[genre] for genre in genres]] = True
    return matrix


def _user_columns(users: UserStatistics, global_mean: float, damping: float) -> Floats:
    known = np.isfinite(users.genre_means)
    mean = np.where(users.count > 0, users.mean, global_mean)
    return np.column_stack(
        [
            np.log1p(users.count),
            _means((mean - global_mean) * users.count, users.count + damping, missing=0.0),
            np.where(known, users.genre_means - mean[:, None], 0.0),
            known,
        ]
    )


def _movie_columns(
    movies: MovieSums,
    years: Floats,
    movie_genres: Bools,
    *,
    global_mean: float,
    damping: float,
    year_mean: float,
) -> Floats:
    return np.column_stack(
        [
            np.where(np.isfinite(years), years, year_mean),
            np.isfinite(years),
            np.log1p(movies.count),
            _means(movies.total - global_mean * movies.count, movies.count + damping, missing=0.0),
            movie_genres,
        ]
    )


def _segment_sums(values: Floats, offsets: Ints) -> Floats:
    """Sums of consecutive segments: (ratings, ...) to (n, ...), 0 for an empty segment."""
    sums = np.zeros((len(offsets) - 1, *values.shape[1:]))
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        # reduceat cannot express an empty segment; between filled ones there is nothing to skip
        sums[filled] = np.add.reduceat(values, offsets[filled], axis=0)
    return sums


def _means(total: Floats, count: Floats, *, missing: float) -> Floats:
    means = np.full(total.shape, missing)
    np.divide(total, count, out=means, where=count > 0)
    return means
