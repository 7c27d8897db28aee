"""Users' rating histories, and what can be summed or solved over each of them.

Every function works on n histories at once, and gives each the same row as it would get alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Final, Self

import numpy as np

from twotower.arrays import Floats, Ints

RATINGS_AT_ONCE: Final = 2**19
USERS_AT_ONCE: Final = 2_048
"""What is held of many users for each rating, or each user, is held of so many at once."""


@dataclass(frozen=True)
class Histories:
    """The ratings of n users, one user after the other, each user's in any order.

    offsets: int64 (n + 1,), user i's ratings lie at offsets[i]:offsets[i + 1].
    movie_rows: int64 (ratings,), row numbers of the catalogue.
    ratings: float64 (ratings,).
    ages: float64 (ratings,), how many ratings the user has given since.
    idle: float64 (n,), seconds since the user's last rating; 0 where that is not known.
    """

    offsets: Ints
    movie_rows: Ints
    ratings: Floats
    ages: Floats
    idle: Floats

    @classmethod
    def in_order(
        cls,
        offsets: Ints,
        movie_rows: Ints,
        ratings: Floats,
        timestamps: Ints | None = None,
        asked_at: Ints | None = None,
    ) -> Self:
        """Each user's ratings, oldest first; without timestamps (ratings,) no two at the same time.

        asked_at: int64 (n,), the time as of which users are looked at; without, just after their last
        rating.
        """
        idle = np.zeros(len(offsets) - 1)
        if timestamps is not None and asked_at is not None:
            rated = offsets[1:] > offsets[:-1]
            idle[rated] = np.maximum(asked_at[rated] - timestamps[offsets[1:][rated] - 1], 0)
        return cls(offsets, movie_rows, ratings, _ages(offsets, timestamps), idle)

    @classmethod
    def join(cls, histories: list[Self]) -> Self:
        """Several users' histories, one after the other."""
        counts = np.concatenate([np.zeros(1, np.int64), *(each.counts for each in histories)])
        return cls(
            np.cumsum(counts),
            np.concatenate([each.movie_rows for each in histories]),
            np.concatenate([each.ratings for each in histories]),
            np.concatenate([each.ages for each in histories]),
            np.concatenate([each.idle for each in histories]),
        )

    def of(self, users: Ints) -> Self:
        """The histories of some of the users, by their numbers, in that order."""
        counts = self.counts[users]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[users] - offsets[:-1], counts)
        return type(self)(
            offsets, self.movie_rows[places], self.ratings[places], self.ages[places], self.idle[users]
        )

    def blocks(self, ratings: int = RATINGS_AT_ONCE, users: int = USERS_AT_ONCE) -> Iterator[Self]:
        """The same users in order, some at a time, at least one block; no array is copied.

        At most so many users and so many ratings together, unless one user alone has more.
        """
        start = 0
        while start < len(self) or start == 0:
            most = int(self.offsets[start]) + ratings
            full = int(np.searchsorted(self.offsets, most, side="right")) - 1
            stop = min(max(full, start + 1), start + users, len(self))
            yield self._between(start, stop)
            start = max(stop, 1)

    def _between(self, start: int, stop: int) -> Self:
        span = slice(int(self.offsets[start]), int(self.offsets[stop]))
        return type(self)(
            self.offsets[start : stop + 1] - self.offsets[start],
            self.movie_rows[span],
            self.ratings[span],
            self.ages[span],
            self.idle[start:stop],
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def counts(self) -> Ints:
        """How many ratings each user has: int64 (n,)."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def users(self) -> Ints:
        """The number of the user of each rating: int64 (ratings,)."""
        return np.repeat(np.arange(len(self)), self.counts)


NO_RATINGS = Histories(
    np.zeros(2, np.int64), np.empty(0, np.int64), np.empty(0), ages=np.empty(0), idle=np.zeros(1)
)
"""One user who has rated nothing."""


def segment_sums(values: Floats, offsets: Ints) -> Floats:
    """Sums of consecutive segments: (ratings, ...) to (n, ...), 0 for an empty segment."""
    sums = np.zeros((len(offsets) - 1, *values.shape[1:]))
    filled = np.flatnonzero(offsets[1:] > offsets[:-1])
    if len(filled):
        # reduceat cannot express an empty segment; between filled ones there is nothing to skip
        sums[filled] = np.add.reduceat(values, offsets[filled], axis=0)
    return sums


def weighted_moments(
    offsets: Ints, design: Floats, targets: Floats, weights: Floats, precision: Floats
) -> tuple[Floats, Floats]:
    """Each segment's posterior precision (n, k, k), and what its coefficients are that times (n, k).

    design: (ratings, k), the rows themselves; otherwise as of `loops.weighted_ridge`.
    """
    precisions = np.empty((len(offsets) - 1, *precision.shape))
    moments = np.empty(precisions.shape[:2])
    weighted = design * weights[:, None]
    for segment, (start, stop) in enumerate(pairwise(offsets.tolist())):
        turned = weighted[start:stop].T
        np.matmul(turned, design[start:stop], out=precisions[segment])
        np.matmul(turned, targets[start:stop], out=moments[segment])
    precisions += precision
    return precisions, moments


def _ages(offsets: Ints, timestamps: Ints | None) -> Floats:
    """Ratings at the same time share their mean place: which of them came first is not known."""
    counts = np.diff(offsets)
    places = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    ages: Floats = np.repeat(counts, counts) - 1.0 - places
    if timestamps is None:
        return ages
    begins = np.ones(len(places), dtype=np.bool_)
    begins[1:] = (np.diff(timestamps) != 0) | (places[1:] == 0)
    moment = np.cumsum(begins) - 1
    means = np.bincount(moment, weights=ages) / np.bincount(moment)
    shared: Floats = means[moment]
    return shared
