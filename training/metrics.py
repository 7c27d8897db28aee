"""Measures of rankings and of predicted ratings, and what a difference of two is worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from twotower.arrays import Bools, FeatureRows, Floats, Ints

_RESAMPLES: Final = 2000


def top_k(scores: FeatureRows, k: int) -> Ints:
    """Columns of the k highest scores of each row, best first: (n, movies) to int64 (n, k).

    -1 stands where no score but -inf is left. Equal scores are ordered at random, by one fixed order of
    all movies, so that nothing is won by where a movie stands in the catalogue.
    """
    users, movies = scores.shape
    k = min(k, movies)
    rank = np.argsort(np.random.RandomState(7).permutation(movies))
    falling = -scores
    # Those as good as the k-th, more than k where some are equal; only they are sorted.
    last = np.partition(falling, k - 1, axis=1)[:, k - 1 : k]
    rows, columns = np.nonzero(falling <= last)
    best = np.lexsort((rank[columns], falling[rows, columns], rows))
    counts = np.bincount(rows, minlength=users)
    starts = np.cumsum(counts) - counts
    ranked = columns[best[starts[:, None] + np.arange(k)]]
    return np.where(np.isneginf(np.take_along_axis(scores, ranked, axis=1)), -1, ranked)


def ndcg(hits: Bools, relevant: Ints) -> Floats:
    """Normalised discounted cumulative gain at k with binary relevance (Järvelin and Kekäläinen 2002).

    hits: bool (n, k), whether the result at a place is relevant. relevant: int64 (n,), how many
    movies are, at least one. Returns float64 (n,) in [0, 1]; 1 where the first min(k, relevant)
    are all relevant.
    """
    discounts = 1 / np.log2(np.arange(2, hits.shape[1] + 2))
    ideal = np.cumsum(discounts)[np.minimum(relevant, hits.shape[1]) - 1]
    gained: Floats = hits @ discounts / ideal
    return gained


def recall(hits: Bools, relevant: Ints) -> Floats:
    """Relevant results by how many there could be, hits / min(k, relevant): float64 (n,)."""
    found: Floats = hits.sum(axis=1) / np.minimum(relevant, hits.shape[1])
    return found


def reciprocal_rank(hits: Bools) -> Floats:
    """One by the place of the first relevant result, 0 without: float64 (n,) (Voorhees 1999)."""
    first: Floats = np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0)
    return first


def self_information(rating_counts: Ints, users: int) -> Floats:
    """How surprising each movie is, in bits: float64 (movies,).

    -log2 of the share of users who rated it, one more added to each, so that an unrated movie is
    surprising but not infinitely so (Zhou et al. 2010; Vargas and Castells 2011).
    """
    information: Floats = -np.log2((rating_counts + 1) / (users + 1))
    return information


def rmse(errors: Floats) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean(errors**2)))


def mae(errors: Floats) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(errors)))


@dataclass(frozen=True)
class Interval:
    """A difference, and the bounds that hold it in 95 % of resamples."""

    difference: float
    low: float
    high: float

    @property
    def margin(self) -> float:
        """Half of its width."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}]"


def paired_mean_difference(ours: Floats, theirs: Floats) -> Interval:
    """Difference of the means of one measure of the same users: (n,), (n,).

    The bounds are the percentiles of a bootstrap over users (Efron and Tibshirani 1993; Sakai 2006
    for rankings), with a fixed seed.
    """
    resampled = _resampled(np.column_stack([ours - theirs, np.ones(len(ours))]))
    return _interval(float(np.mean(ours - theirs)), resampled[:, 0] / resampled[:, 1])


def paired_rmse_difference(ours: Floats, theirs: Floats, user_rows: Ints) -> Interval:
    """Difference of the RMSE of two predictions of the same ratings, by their squared errors.

    ours: (m,) or (m, seeds), theirs likewise; the RMSE of several seeds is their mean. Whole users
    (m,) are resampled: the errors of one user are alike.
    """
    return _paired_error_difference(np.sqrt, ours, theirs, user_rows)


def paired_mae_difference(ours: Floats, theirs: Floats, user_rows: Ints) -> Interval:
    """The same of the mean absolute error, by the absolute errors."""
    return _paired_error_difference(np.asarray, ours, theirs, user_rows)


def _paired_error_difference(
    of_mean: Callable[[Floats], Floats], ours: Floats, theirs: Floats, user_rows: Ints
) -> Interval:
    ours, theirs = (errors.reshape(len(errors), -1) for errors in (ours, theirs))
    _, places = np.unique(user_rows, return_inverse=True)
    errors = np.column_stack([ours, theirs])
    sums = [np.bincount(places, weights=column) for column in errors.T]
    resampled = _resampled(np.column_stack([*sums, np.bincount(places)]))
    whole = of_mean(errors.mean(axis=0, keepdims=True))
    of_resamples = of_mean(resampled[:, :-1] / resampled[:, -1:])
    difference, differences = (
        measured[:, : ours.shape[1]].mean(axis=1) - measured[:, ours.shape[1] :].mean(axis=1)
        for measured in (whole, of_resamples)
    )
    return _interval(float(difference[0]), differences)


def _resampled(values: Floats) -> Floats:
    """Sums over users (n, columns) drawn with replacement: (resamples, columns)."""
    random, n = np.random.default_rng(0), len(values)
    chances = np.full(n, 1 / n)
    return np.concatenate([random.multinomial(n, chances, 1) @ values for _ in range(_RESAMPLES)])


def _interval(difference: float, resampled: Floats) -> Interval:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Interval(difference, float(low), float(high))
