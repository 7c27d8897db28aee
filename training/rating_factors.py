"""Factors by which ratings are predicted, in closed form: what the rating towers start from.

Each movie is regressed on who rated it, and each user on what was rated. The users' regression is then
cut down to the directions that explain most. Every row is had without the value of the rating that it is
to predict; that there is one is known to the co-occurrences, and the priors are learned from all.

Movies' regressions are of all ratings. What users are regressed on, and what a rating sees without
itself, is had of the ratings that towers learn from alone, a block after the other: those of some of the
users where there are many.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from training.config import FactorConfig
from training.content import MovieContent
from training.interactions import Interactions
from training.progress import track
from training.ridge import GroupedRows, Prior
from twotower.arrays import Floats, Ints
from twotower.features import Fading
from twotower.histories import Histories, weighted_moments

LONGEST: Final = 0.98
"""How long a vector may be before it is brought to unit norm."""
_RATINGS_AT_ONCE: Final = 2**14
_NEARLY_ALL: Final = 0.999
_DENSE: Final = 1_000_000
"""Users times movies up to which all dimensions are found. Where some are alike, as among few users, the
solver that finds the first ones alone gives others in each process; nor does it ever give all."""
_TINY: Final = 1e-6
"""What does not deviate by more is divided by this."""
_YEARS: Final = 20.0
"""Years are measured in this many, from their mean."""
_USUAL_LOG_COUNT: Final = 4.0
_BIAS_SCALE: Final = 3.0
_TASTE_SCALE: Final = 0.06
"""How movies' coefficients are scaled to deviations of about 1."""


@dataclass(frozen=True)
class RatingFactors:
    """Predicted rating = global mean + base of the movie + factors of the movie times the user's.

    base: float64 (movies,). movies: float64 (movies, r). precision: float64 (r, r), of users' factors
    around 0, in units of the noise's. The same as each of m ratings sees them, without itself:
    base_without (m,), movies_without (m, r), users_without (m, r). And as they would be if nobody had
    rated the movie: base_unrated (movies,), movies_unrated (movies, r).
    """

    base: Floats
    movies: Floats
    precision: Floats
    base_without: Floats
    movies_without: Floats
    users_without: Floats
    base_unrated: Floats
    movies_unrated: Floats

    @property
    def constant(self) -> float:
        """The coordinate of users that stands against movies' base, for vectors of like lengths."""
        return float(np.sqrt(max(self.base_without.std(), _TINY)))

    @property
    def user_scale(self) -> float:
        """What brings [constant, factors] of nearly all users to at most the longest length."""
        squares = self.constant**2 + (self.users_without**2).sum(axis=1)
        return _scale_to_longest(squares)

    @property
    def movie_scale(self) -> float:
        """The same for [base / constant, factors] of movies."""
        squares = (self.base_without / self.constant) ** 2 + (self.movies_without**2).sum(axis=1)
        return _scale_to_longest(squares)

    def times(self, unit: float) -> Self:
        """The same of ratings in another unit, this much larger: predictions are so much larger, too."""
        root = float(np.sqrt(unit))  # of which users and movies get one each, as they are balanced
        return type(self)(
            base=self.base * unit,
            movies=self.movies * root,
            precision=self.precision * unit,
            base_without=self.base_without * unit,
            movies_without=self.movies_without * root,
            users_without=self.users_without * root,
            base_unrated=self.base_unrated * unit,
            movies_unrated=self.movies_unrated * root,
        )

    @classmethod
    def of(
        cls,
        train: Interactions,
        content: MovieContent,
        config: FactorConfig,
        fading: Fading,
        chosen: Ints | None = None,
    ) -> Self:
        """Learn from ratings ordered by user and time, in stars: what the config says is in these.

        chosen: int64 (m,), ascending, which ratings are to be seen without themselves: all of some of
        the users; without, all there are.
        """
        chosen = np.arange(len(train)) if chosen is None else chosen
        global_mean = train.ratings.mean()
        users, movies = _cooccurrence(train, config.svd)
        tastes = _movies_on_users(train, content, users, config, chosen)
        design = _Design(content, movies, train)
        seen = _of_these_users(train.take(chosen))
        rows = _SeenRows(design, seen.movie_rows, tastes.without)
        histories = seen.histories()
        weights = fading.weights(histories.ages)
        surprises = seen.ratings - global_mean - tastes.without[:, 0]
        root = np.sqrt(weights)
        weighted = GroupedRows(
            seen.user_rows, _Weighted(rows, root), surprises * root, "regressions of users"
        )
        penalties = design.penalties(config)
        prior = weighted.learn_prior(
            Prior(np.zeros((seen.users, len(penalties))), np.diag(penalties)),
            noise=config.noise,
            steps=config.user_steps,
        )
        mean, shape, spread = prior.mean[0], *_leading(rows, prior, config.factors)
        every = np.arange(train.movies)
        all_rows = design.rows(every, tastes.of_movie, design.counts)
        unrated = design.rows(every, tastes.unrated, np.zeros(train.movies))
        # users' factors z are drawn with covariance spread' precision^-1 spread
        covariance = spread.T @ np.linalg.inv(prior.precision) @ spread
        precision: Floats = np.linalg.inv(covariance).astype(np.float64)
        projected = rows.times(np.column_stack([mean, shape]))
        base, factors = tastes.without[:, 0] + projected[:, 0], projected[:, 1:]
        missed = seen.ratings - global_mean - base
        left_out = _without_each(histories, factors, missed, weights, precision)
        balance = np.sqrt(
            np.maximum(factors.std(axis=0), _TINY) / np.maximum(left_out.std(axis=0), _TINY)
        )
        return cls(
            base=tastes.of_movie[:, 0] + all_rows @ mean,
            movies=all_rows @ shape / balance,
            precision=precision / balance[:, None] / balance,
            base_without=base,
            movies_without=np.divide(factors, balance, out=factors),
            users_without=np.multiply(left_out, balance, out=left_out),
            base_unrated=tastes.unrated[:, 0] + unrated @ mean,
            movies_unrated=unrated @ shape / balance,
        )


def _scale_to_longest(squares: Floats) -> float:
    return float(LONGEST / max(np.quantile(np.sqrt(squares), _NEARLY_ALL), _TINY))


def _cooccurrence(train: Interactions, dimensions: int) -> tuple[Floats, Floats]:
    """Users and movies by who rated what, whatever the rating: (users, d), (movies, d), deviation 1."""
    rated = train.matrix().astype(np.float64)
    of_user, of_movie = np.asarray(rated.sum(axis=1)).ravel(), np.asarray(rated.sum(axis=0)).ravel()
    scaled = sp.diags(1 / np.sqrt(np.maximum(of_user, 1))) @ rated
    if dimensions < min(scaled.shape) and scaled.shape[0] * scaled.shape[1] > _DENSE:
        left, values, right = svds(scaled, k=dimensions, random_state=0)
    else:
        left, values, right = np.linalg.svd(scaled.toarray(), full_matrices=False)
        left, values, right = left[:, :dimensions], values[:dimensions], right[:dimensions]
    users = left * values * np.sqrt(of_user / (of_user + 1))[:, None]
    movies = right.T * values / np.sqrt(of_movie + 1)[:, None]
    return users / max(users.std(), _TINY), movies / max(movies.std(), _TINY)


@dataclass(frozen=True)
class _Tastes:
    """Bias and coefficients of movies, (movies, 1 + d): as they are, as each of the chosen ratings sees
    them, (m, 1 + d), and as their content alone suggests.
    """  # noqa: D205

    of_movie: Floats
    without: Floats
    unrated: Floats


@dataclass(frozen=True)
class _OfUsers:
    """Rows of a table (users, k), one for each rating's user: (n, k), never held as a whole."""

    table: Floats
    user_rows: Ints

    def __getitem__(self, places: Ints, /) -> Floats:
        return self.table[self.user_rows[places]]


def _movies_on_users(
    train: Interactions, content: MovieContent, users: Floats, config: FactorConfig, chosen: Ints
) -> _Tastes:
    counts = np.bincount(train.user_rows, minlength=train.users)
    deviations = train.ratings - train.ratings.mean()
    means = np.bincount(train.user_rows, deviations, minlength=train.users) / (counts + config.damping)
    rows = GroupedRows(
        train.movie_rows,
        _OfUsers(np.column_stack([np.ones(train.users), users]), train.user_rows),
        deviations - means[train.user_rows],
        "regressions of movies",
    )
    penalties = np.r_[config.damping, np.full(users.shape[1], config.taste_penalty)]
    prior = rows.learn_prior(
        Prior(np.zeros((train.movies, len(penalties))), np.diag(penalties)),
        noise=config.noise,
        steps=config.movie_steps,
        content=_described(content),
    )
    return _Tastes(*rows.coefficients(prior, chosen), prior.mean)


def _of_these_users(chosen: Interactions) -> Interactions:
    """The same ratings, of no other users than theirs."""
    users, user_rows = np.unique(chosen.user_rows, return_inverse=True)
    return replace(chosen, user_rows=user_rows, users=len(users))


@dataclass(frozen=True)
class _Weighted:
    """Rows, each multiplied by a number of its own, (m,)."""

    rows: _SeenRows
    by: Floats

    def __getitem__(self, places: Ints, /) -> Floats:
        return self.rows[places] * self.by[places, None]


def _leading(rows: _SeenRows, prior: Prior, factors: int) -> tuple[Floats, Floats]:
    """The directions in which users' coefficients change predictions most: those of the rows, (k, r),
    and those of the coefficients, (k, r), such that (rows @ first) @ (coefficients @ second)' is best.
    """  # noqa: D205
    values, vectors = np.linalg.eigh(rows.mean_square())
    varied = values > _TINY * values[-1]  # or unseen movies would lie far out where nothing is known
    vectors, lengths = vectors[:, varied], np.sqrt(values[varied])
    stretched = vectors * lengths
    left, _, _ = np.linalg.svd(stretched.T @ np.linalg.inv(prior.precision) @ stretched)
    best = left[:, :factors]
    return (vectors / lengths) @ best, stretched @ best


def _without_each(
    histories: Histories, factors: Floats, surprises: Floats, weights: Floats, precision: Floats
) -> Floats:
    """Each rating's user's factors had there not been that rating: (m, r)."""
    without = np.empty_like(factors)
    start = 0
    blocks = histories.blocks(_RATINGS_AT_ONCE)
    for block in track(blocks, "leaving ratings out", len(factors), lambda block: len(block.movie_rows)):
        some = slice(start, start + len(block.movie_rows))
        rows, of_block = factors[some], block.users
        precisions, moments = weighted_moments(
            block.offsets, rows, surprises[some], weights[some], precision
        )
        covariances = np.linalg.inv(precisions)
        own = np.einsum("nkl,nl->nk", covariances, moments)[of_block]
        reach = np.einsum("nk,nkl->nl", rows, covariances[of_block])
        missed = surprises[some] - (rows * own).sum(axis=1)
        leverage = weights[some] * (reach * rows).sum(axis=1)
        without[some] = own - reach * (weights[some] * missed / (1 - leverage))[:, None]
        start = some.stop
    return without


class _Design:
    """What users are regressed on: year, popularity, bias, genres, who else rated it, and how."""

    def __init__(self, content: MovieContent, movies: Floats, train: Interactions) -> None:
        self.counts = np.bincount(train.movie_rows, minlength=train.movies).astype(np.float64)
        self._years = _years(content)
        self._genres = content.genres.astype(np.float64)
        self._movies = movies

    def penalties(self, config: FactorConfig) -> Floats:
        """What each coefficient is damped by before that is learned: (k,)."""
        described, tastes = 3 + self._genres.shape[1], 2 * self._movies.shape[1]
        return np.concatenate(
            [
                [config.damping],
                np.full(described, config.content_penalty),
                np.full(tastes, config.user_taste_penalty),
            ]
        )

    def rows(self, movie_rows: Ints, tastes: Floats, counts: Floats) -> Floats:
        """tastes: (m, 1 + d), counts: (m,), as seen where the movie is rated: (m, k)."""
        return np.concatenate(
            [
                np.ones((len(movie_rows), 1)),
                self._years[movie_rows, None],
                np.log1p(counts)[:, None] - _USUAL_LOG_COUNT,
                tastes[:, :1] * _BIAS_SCALE,
                self._genres[movie_rows],
                self._movies[movie_rows] * (counts > 0)[:, None],
                tastes[:, 1:] / _TASTE_SCALE,
            ],
            axis=1,
        )


@dataclass(frozen=True)
class _SeenRows:
    """The design as each of m ratings sees it, without itself: (m, k), never held as a whole.

    movie_rows: int64 (m,). without: float64 (m, 1 + d), the tastes as each rating sees them.
    """

    design: _Design
    movie_rows: Ints
    without: Floats

    def __getitem__(self, places: Ints | slice, /) -> Floats:
        movies = self.movie_rows[places]
        return self.design.rows(movies, self.without[places], self.design.counts[movies] - 1)

    def _blocks(self) -> Iterator[slice]:
        starts = range(0, len(self.movie_rows), _RATINGS_AT_ONCE)
        return (slice(start, start + _RATINGS_AT_ONCE) for start in starts)

    def times(self, matrix: Floats) -> Floats:
        """The product with a matrix (k, c): float64 (m, c)."""
        product = np.empty((len(self.movie_rows), matrix.shape[1]))
        for some in self._blocks():
            np.matmul(self[some], matrix, out=product[some])
        return product

    def mean_square(self) -> Floats:
        """The mean of the rows' outer squares: (k, k)."""
        squares = (rows.T @ rows for some in self._blocks() for rows in [self[some]])
        total: Floats = sum(squares, start=np.zeros(()))
        return total / len(self.movie_rows)


def _years(content: MovieContent) -> Floats:
    known = np.isfinite(content.years)
    mean = content.years[known].mean() if known.any() else 0.0
    return np.where(known, (content.years - mean) / _YEARS, 0.0)


def _described(content: MovieContent) -> Floats:
    """What a movie without ratings is placed by: (movies, c)."""
    years = _years(content)
    return np.column_stack(
        [np.ones(len(years)), years, years**2, np.isfinite(content.years), content.genres]
    )
