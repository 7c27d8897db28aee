"""Ratings by row: the form in which they are split, summed and learned from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from training.dataset import Dataset
from training.layouts import HALF_STARS, Scale
from training.stars import LIKED, at_stars, span
from twotower.arrays import Floats, Ints
from twotower.histories import Histories
from twotower.statistics import MovieSums


@dataclass(frozen=True)
class Interactions:
    """n ratings: each user's and each movie's row, the rating, and when it was given.

    user_rows, movie_rows, timestamps (seconds, UTC): int64 (n,). ratings: float64 (n,). `users` and
    `movies` count the rows there are, rated or not. timed: whether it is known when; without,
    timestamps are 0. allowed: what ratings may be, where that is known. rated: whether it is known how;
    without, ratings are 1.
    """

    user_rows: Ints
    movie_rows: Ints
    ratings: Floats
    timestamps: Ints
    users: int
    movies: int
    timed: bool = True
    allowed: Scale | None = HALF_STARS
    rated: bool = True

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        """Number users by ascending id, and movies by their order in the (sorted) table."""
        user_ids, user_rows = np.unique(dataset.ratings["user_id"].to_numpy(), return_inverse=True)
        movie_ids = dataset.movies["movie_id"].to_numpy()
        return cls(
            user_rows=user_rows.astype(np.int64),
            movie_rows=np.searchsorted(movie_ids, dataset.ratings["movie_id"].to_numpy()),
            ratings=dataset.ratings["rating"].to_numpy().astype(np.float64),
            timestamps=dataset.ratings["timestamp"].to_numpy(),
            users=len(user_ids),
            movies=len(movie_ids),
            timed=dataset.timed,
            allowed=dataset.allowed,
            rated=dataset.rated,
        )

    def __len__(self) -> int:
        return len(self.ratings)

    @cached_property
    def scale(self) -> Scale:
        """What is allowed, or else from the lowest to the highest of these ratings."""
        return self.allowed or span(self.ratings)

    @property
    def digest(self) -> str:
        """SHA-256 of all that it holds."""
        digest = hashlib.sha256(f"{self.users} {self.movies} {self.scale}".encode())
        for values in (self.user_rows, self.movie_rows, self.ratings, self.timestamps):
            digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def take(self, chosen: npt.NDArray[np.bool_] | Ints) -> Self:
        """Some of the ratings, of the same users and movies."""
        return replace(
            self,
            user_rows=self.user_rows[chosen],
            movie_rows=self.movie_rows[chosen],
            ratings=self.ratings[chosen],
            timestamps=self.timestamps[chosen],
        )

    @property
    def liked(self) -> npt.NDArray[np.bool_]:
        """Which of them are likes: bool (n,)."""
        return self.ratings >= at_stars(LIKED, self.scale)

    def join(self, other: Self) -> Self:
        """These ratings, then those of the other, which must be of the same users and movies."""
        return replace(
            self,
            user_rows=np.concatenate([self.user_rows, other.user_rows]),
            movie_rows=np.concatenate([self.movie_rows, other.movie_rows]),
            ratings=np.concatenate([self.ratings, other.ratings]),
            timestamps=np.concatenate([self.timestamps, other.timestamps]),
        )

    def by_user(self) -> Self:
        """Ordered by user, then time, then as before; themselves where they are so already."""
        users, times = np.diff(self.user_rows), np.diff(self.timestamps)
        if bool(((users > 0) | ((users == 0) & (times >= 0))).all()):
            return self
        return self.take(np.lexsort((self.timestamps, self.user_rows)))

    def histories(self, asked_at: Ints | None = None) -> Histories:
        """Each user's ratings, oldest first, who ask at these times (users,); without, just after."""
        ordered = self.by_user()
        counts = np.bincount(ordered.user_rows, minlength=self.users)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Histories.in_order(
            offsets, ordered.movie_rows, ordered.ratings, ordered.timestamps, asked_at
        )

    def matrix(self) -> sp.csr_matrix:
        """Who rated what: float32 (users, movies), one where there is a rating."""
        ones = np.ones(len(self), dtype=np.float32)
        return sp.csr_matrix((ones, (self.user_rows, self.movie_rows)), shape=(self.users, self.movies))

    def movie_sums(self) -> MovieSums:
        """Sums over each movie's ratings."""
        return MovieSums.of(self.movie_rows, self.ratings, self.movies)
