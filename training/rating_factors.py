"""Factors by which ratings are predicted, in closed form: what the rating towers start from.

Each movie is regressed on who rated it, and each user on what was rated. The users' regression is then
cut down to the directions that explain most. Every row is had without the value of the rating that it is
to predict; that there is one is known to the co-occurrences, and the priors are learned from all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from training.config import FactorConfig
from training.content import MovieContent
from training.interactions import Interactions
from training.ridge import GroupedRows, Prior
from twotower.arrays import Floats, Ints
from twotower.features import Fading
from twotower.histories import Histories, weighted_moments

LONGEST: Final = 0.98
"""How long a vector may be before it is brought to unit norm."""
_RATINGS_AT_ONCE: Final = 2**13
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
    around 0, in units of the noise's. The same as each of the n ratings learned from sees them,
    without itself: base_without (n,), movies_without (n, r), users_without (n, r). And as they would be
    if nobody had rated the movie: base_unrated (movies,), movies_unrated (movies, r).
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

    @classmethod
    def of(
        cls, train: Interactions, content: MovieContent, config: FactorConfig, fading: Fading
    ) -> Self:
        """Learn from ratings ordered by user and time."""
        global_mean = train.ratings.mean()
        users, movies = _cooccurrence(train, config.svd)
        tastes = _movies_on_users(train, content, users, config)
        design = _Design(content, movies, train)
        rows = design.rows(train.movie_rows, tastes.without, design.counts[train.movie_rows] - 1)
        surprises = train.ratings - global_mean - tastes.without[:, 0]
        histories = train.histories()
        weights = fading.weights(histories.ages)
        prior = _users_on_movies(
            GroupedRows(train.user_rows, rows, surprises),
            weights,
            design.penalties(config),
            train.users,
            config,
        )
        mean, shape, spread = prior.mean[0], *_leading(rows, prior, config.factors)
        every = np.arange(train.movies)
        all_rows = design.rows(every, tastes.of_movie, design.counts)
        unrated = design.rows(every, tastes.unrated, np.zeros(train.movies))
        # users' factors z are drawn with covariance spread' precision^-1 spread
        covariance = spread.T @ np.linalg.inv(prior.precision) @ spread
        precision: Floats = np.linalg.inv(covariance).astype(np.float64)
        factors, base = rows @ shape, tastes.without[:, 0] + rows @ mean
        missed = train.ratings - global_mean - base
        left_out = _without_each(histories, factors, missed, weights, precision)
        balance = np.sqrt(
            np.maximum(factors.std(axis=0), _TINY) / np.maximum(left_out.std(axis=0), _TINY)
        )
        return cls(
            base=tastes.of_movie[:, 0] + all_rows @ mean,
            movies=all_rows @ shape / balance,
            precision=precision / balance[:, None] / balance,
            base_without=base,
            movies_without=factors / balance,
            users_without=left_out * balance,
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
    """Bias and coefficients of movies, (movies, 1 + d): as they are, as each rating sees them,
    (n, 1 + d), and as their content alone suggests.
    """  # noqa: D205

    of_movie: Floats
    without: Floats
    unrated: Floats


def _movies_on_users(
    train: Interactions, content: MovieContent, users: Floats, config: FactorConfig
) -> _Tastes:
    ones = np.ones((len(train), 1))
    counts = np.bincount(train.user_rows, minlength=train.users)
    deviations = train.ratings - train.ratings.mean()
    means = np.bincount(train.user_rows, deviations, minlength=train.users) / (counts + config.damping)
    rows = GroupedRows(
        train.movie_rows,
        np.concatenate([ones, users[train.user_rows]], axis=1),
        deviations - means[train.user_rows],
    )
    penalties = np.r_[config.damping, np.full(users.shape[1], config.taste_penalty)]
    prior = rows.learn_prior(
        Prior(np.zeros((train.movies, len(penalties))), np.diag(penalties)),
        noise=config.noise,
        steps=config.movie_steps,
        content=_described(content),
    )
    return _Tastes(*rows.coefficients(prior), prior.mean)


def _users_on_movies(
    rows: GroupedRows, weights: Floats, penalties: Floats, users: int, config: FactorConfig
) -> Prior:
    root = np.sqrt(weights)
    weighted = GroupedRows(rows.groups, rows.design * root[:, None], rows.targets * root)
    guess = Prior(np.zeros((users, len(penalties))), np.diag(penalties))
    return weighted.learn_prior(guess, noise=config.noise, steps=config.user_steps)


def _leading(rows: Floats, prior: Prior, factors: int) -> tuple[Floats, Floats]:
    """The directions in which users' coefficients change predictions most: those of the rows, (k, r),
    and those of the coefficients, (k, r), such that (rows @ first) @ (coefficients @ second)' is best.
    """  # noqa: D205
    values, vectors = np.linalg.eigh(rows.T @ rows / len(rows))
    varied = values > _TINY * values[-1]  # or unseen movies would lie far out where nothing is known
    vectors, lengths = vectors[:, varied], np.sqrt(values[varied])
    stretched = vectors * lengths
    left, _, _ = np.linalg.svd(stretched.T @ np.linalg.inv(prior.precision) @ stretched)
    best = left[:, :factors]
    return (vectors / lengths) @ best, stretched @ best


def _without_each(
    histories: Histories, factors: Floats, surprises: Floats, weights: Floats, precision: Floats
) -> Floats:
    """Each rating's user's factors had there not been that rating: (n, r)."""
    users = histories.users
    precisions, moments = weighted_moments(histories.offsets, factors, surprises, weights, precision)
    covariances = np.linalg.inv(precisions)
    without: Floats = np.einsum("nkl,nl->nk", covariances, moments)[users]
    for start in range(0, len(users), _RATINGS_AT_ONCE):
        some = slice(start, start + _RATINGS_AT_ONCE)
        rows = factors[some]
        reach = np.einsum("nk,nkl->nl", rows, covariances[users[some]])
        missed = surprises[some] - (rows * without[some]).sum(axis=1)
        leverage = weights[some] * (reach * rows).sum(axis=1)
        without[some] -= reach * (weights[some] * missed / (1 - leverage))[:, None]
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
