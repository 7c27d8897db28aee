"""What is counted of users and of movies: sums over ratings, and the means they give.

Sums are kept in float64: exact for ratings in steps of a half, so that leaving one out and summing in
another order change nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

from twotower.arrays import Bools, Floats, Ints
from twotower.histories import Histories, segment_sums
from twotower.loops import flag_sums


@dataclass(frozen=True)
class UserStatistics:
    """What the features of n users are made of.

    count: float64 (n,). mean: float64 (n,), the mean rating, any value where count is 0.
    genre_means: float64 (n, genres), NaN where the user rated no movie of the genre.
    """

    count: Floats
    mean: Floats
    genre_means: Floats

    def of_user(self, user: int) -> Self:
        """Those of one of the users."""
        chosen = slice(user, user + 1)
        return type(self)(self.count[chosen], self.mean[chosen], self.genre_means[chosen])


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
        parts = [cls._of_some(block, genres) for block in histories.blocks()]
        if len(parts) == 1:
            return parts[0]
        names = [field.name for field in fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @classmethod
    def _of_some(cls, histories: Histories, genres: Bools) -> Self:
        ratings = histories.ratings
        of_genres = flag_sums(
            histories.offsets,
            histories.movie_rows,
            genres,
            weights=np.stack([np.ones_like(ratings), ratings]),
        )
        return cls(
            count=histories.counts.astype(np.float64),
            total=segment_sums(ratings, histories.offsets),
            genre_count=of_genres[:, 0],
            genre_total=of_genres[:, 1],
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
            mean=ratio(self.total, self.count, missing=0.0),
            genre_means=ratio(self.genre_total, self.genre_count, missing=np.nan),
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
        return ratio(self.total, self.count, missing=np.nan)


def ratio(total: Floats, count: Floats, *, missing: float) -> Floats:
    """`total` over `count`, `missing` where the count is 0."""
    means = np.full(total.shape, missing)
    np.divide(total, count, out=means, where=count > 0)
    return means
