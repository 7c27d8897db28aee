"""Which movies are liked after which: ridge regressions of the movies on each other, in closed form.

As EASE (Steck, 2019), but asymmetric: pairs of a user's ratings that lie close in time count more than
those far apart, and what was rated after counts more than what was rated before.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from training.config import RetrievalConfig
from training.progress import track
from training.threads import all_blas_threads
from twotower.arrays import Bools, FeatureRows, Ints
from twotower.errors import TrainingError
from twotower.features import HistorySpec, best_scores
from twotower.histories import Histories

LONGEST_WINDOW: Final = 4_096
"""Ratings of one user of whose pairs arrays are held at once."""


@dataclass(frozen=True)
class Pairs:
    """Sums over pairs of a user's ratings, both movies of those kept: float32 (kept, kept)."""

    gram: FeatureRows
    cross: FeatureRows

    @classmethod
    def of(
        cls,
        histories: Histories,
        users: Ints,
        kept: Ints,
        history: HistorySpec,
        config: RetrievalConfig,
        *,
        window: int = LONGEST_WINDOW,
    ) -> Self:
        """Sum over some of the users. kept: int64, the movies' rows.

        Of a history with more ratings than `window`, over the pairs within equal parts that have not.
        """
        gram, cross = np.zeros((2, len(kept) ** 2), dtype=np.float32)
        place = _places(kept, int(max(histories.movie_rows.max(initial=0), kept.max())) + 1)
        inputs = history.values(histories.ratings).astype(np.float32)
        liked, disliked = histories.ratings >= history.liked, histories.ratings < history.disliked
        targets = np.where(liked, 1.0, np.where(disliked, 0.0, config.neutral_target))
        targets = targets.astype(np.float32)
        tracked = track(users, "summing pairs of ratings", len(users))
        for span in _windows(histories.offsets, tracked, window):
            rows = place[histories.movie_rows[span]]
            chosen = np.argsort(rows)[np.count_nonzero(rows < 0) :]  # in the order of memory
            rows = rows[chosen]
            cells = (rows[:, None] * len(kept) + rows).ravel()
            ages = histories.ages[span][chosen].astype(np.float32)
            later = ages[:, None] - ages  # how many ratings later the second of a pair came
            near = np.exp(np.abs(later) / np.float32(-config.near))
            near *= np.float32(1 - config.far_weight)
            near += np.float32(config.far_weight)
            near *= inputs[span][chosen][:, None]
            np.add.at(gram, cells, (near * inputs[span][chosen]).ravel())
            forward = np.sign(later, out=later)
            forward *= np.float32(config.forward)
            forward += 1
            near *= forward
            near *= targets[span][chosen]
            np.add.at(cross, cells, near.ravel())
        return cls(*(sums.reshape(len(kept), len(kept)) for sums in (gram, cross)))

    @classmethod
    def total(cls, parts: Iterable[Self]) -> Self:
        """The sums over several parts of the users."""
        parts = list(parts)
        gram, cross = np.zeros_like(parts[0].gram), np.zeros_like(parts[0].cross)
        for part in parts:
            gram += part.gram
            cross += part.cross
        return cls(gram, cross)

    def without(self, part: Self) -> Self:
        """The sums over all users but those of a part."""
        return type(self)(self.gram - part.gram, self.cross - part.cross)

    @all_blas_threads()
    def solve(self, penalty: float) -> FeatureRows:
        """Every movie's ridge regression on all the others: float32 (kept, kept), 0 in the diagonal.

        Raises TrainingError where the penalty is too small for what is summed.
        """
        inverse = np.array(self.gram, order="F")  # in place from here on: each array is large
        np.fill_diagonal(inverse, np.diag(inverse) + np.float32(penalty))
        inverse, failed = lapack.spotrf(inverse, lower=1, overwrite_a=1)
        if failed:
            raise TrainingError(f"movies' regressions cannot be solved at a penalty of {penalty:g}")
        inverse, _ = lapack.spotri(inverse, lower=1, overwrite_c=1)
        for place in range(len(inverse)):  # it gives one half
            inverse[place, place + 1 :] = inverse[place + 1 :, place]
        table: FeatureRows = inverse @ self.cross
        inverse *= np.diag(table) / np.diag(inverse)
        table -= inverse
        np.fill_diagonal(table, 0)
        return table


@dataclass(frozen=True)
class Scorer:
    """Scores every kept movie for users, as well as the closed form can, without any limit of dimension.

    table: float32 (kept, kept). genres: float32 (kept, genres), each row divided by the root of its sum.
    """

    kept: Ints
    table: FeatureRows
    genres: FeatureRows
    spec: HistorySpec

    def scores(self, histories: Histories, all_genres: Bools) -> FeatureRows:
        """What users will like next: float32 (n, kept). all_genres: bool (movies, genres)."""
        raw = self.follow(histories, len(all_genres))
        shares = self.spec.genre_shares(histories, all_genres).astype(np.float32)
        scores: FeatureRows = raw / best_scores(raw) + shares @ self.genres.T
        return scores

    def follow(self, histories: Histories, movies: int) -> FeatureRows:
        """What follows the rated movies, the newest counting most: float32 (n, kept)."""
        weights = self.spec.successor_weights(histories).astype(np.float32)
        bag = sp.csr_matrix(
            (weights, (histories.users, histories.movie_rows)), shape=(len(histories), movies)
        )
        follow: FeatureRows = bag[:, self.kept] @ self.table
        return follow


def _places(kept: Ints, movies: int) -> Ints:
    places = np.full(movies, -1, dtype=np.int64)
    places[kept] = np.arange(len(kept))
    return places


def longest_window(counts: Ints, most: int) -> int:
    """How long windows of histories may be so that they have at most so many pairs together, if any.

    counts: int64 (users,), the ratings of each. At least 1, at most LONGEST_WINDOW.
    """
    squares = counts.astype(np.float64) ** 2

    def pairs(window: int) -> int:
        return int((squares / np.maximum(-(-counts // window), 1)).sum())

    return max(bisect_right(range(1, LONGEST_WINDOW + 1), most, key=pairs), 1)


def _windows(offsets: Ints, users: Iterable[int], window: int) -> Iterator[slice]:
    """Where the equal parts of the users' histories lie, each of at most `window` ratings."""
    for user in users:
        start, stop = int(offsets[user]), int(offsets[user + 1])
        parts = -(-(stop - start) // window)
        bounds = [start + (stop - start) * part // parts for part in range(parts)] + [stop]
        yield from map(slice, bounds, bounds[1:])
