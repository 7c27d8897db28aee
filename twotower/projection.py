"""The vector that ranks movies most like given scores do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from twotower.arrays import Bools, FeatureRows, Floats, Ints

_HIDDEN: Final = -1e4
"""The logit of what is left out: its softmax is 0."""
_FLATTER: Final = 2.4
_SPREAD: Final = 0.1
"""The least squares fit weighs movies by a softmax so much flatter, this share of it by all alike."""
_LONGEST_STEP: Final = 0.5
_SHORTEST_BOUND: Final = 1e-3
_MOST_HIDDEN: Final = 0.8
"""A user of whom a larger share than this is hidden has nothing hidden."""
_USERS_AT_ONCE: Final = 256


@dataclass(frozen=True)
class SoftmaxProjection:
    """From scores of some movies to the user's vector whose softmax comes nearest to theirs.

    Nearest in Kullback and Leibler's divergence: where the mean of the movies' vectors under both is
    the same. A weighted least squares fit, and from there one step of Newton's method, at most half
    as long as the fit is.

    vectors: float32 (movies, d). temperature: of both softmaxes. ridge: added to the diagonal of what
    is solved, so that it can be, with movies as few as they may be.
    """

    vectors: FeatureRows
    temperature: float
    ridge: float

    def nearest(self, scores: FeatureRows, hidden: Bools) -> FeatureRows:
        """Vectors of n users: float32 (n, d), 0 for a user whose scores are all the same.

        scores: float32 (n, movies). hidden: bool (n, movies), what counts in neither softmax, unless
        there is little else.
        """
        # So few left over would say nothing of the user, nor would a vector found on them.
        hidden = hidden & (hidden.mean(axis=1, keepdims=True) < _MOST_HIDDEN)
        found = np.empty((len(scores), self.vectors.shape[1]), dtype=np.float32)
        for start in range(0, len(scores), _USERS_AT_ONCE):
            some = slice(start, start + _USERS_AT_ONCE)
            found[some] = self._nearest(scores[some], hidden[some])
        return found

    def _nearest(self, scores: FeatureRows, hidden: Bools) -> Floats:
        logits = scores / np.float32(self.temperature)
        weights = (1 - _SPREAD) * softmax(logits / np.float32(_FLATTER), hidden).astype(np.float64)
        weights += _SPREAD * (~hidden / (~hidden).sum(axis=1, keepdims=True))
        weighted = weights * (logits - (weights * logits).sum(axis=1, keepdims=True))
        users = self._solve(weights, weighted @ self._vectors)
        wanted = softmax(logits, hidden) @ self._vectors
        weights = softmax((users @ self._vectors.T).astype(np.float32), hidden).astype(np.float64)
        step = self._solve(weights, wanted - weights @ self._vectors)
        bound = _LONGEST_STEP * _lengths(users) + _SHORTEST_BOUND
        users += step * (bound / np.maximum(_lengths(step), bound))
        return users * self.temperature

    def _solve(self, weights: Floats, right: Floats) -> Floats:
        """Divide (n, d) by the covariance of the vectors under the weights (n, movies)."""
        size = self.vectors.shape[1]
        means = weights @ self._vectors
        covariances = (weights @ self._products).take(self._square, axis=1)
        covariances -= means[:, :, None] * means[:, None, :]
        covariances.reshape(-1, size * size)[:, :: size + 1] += self.ridge
        solved = np.linalg.solve(covariances, right[:, :, None])[:, :, 0]
        return solved.astype(np.float64, copy=False)

    @cached_property
    def _vectors(self) -> Floats:
        """Of double precision: in single, what little covariance there is would be lost by rounding."""
        return self.vectors.astype(np.float64)

    @cached_property
    def _products(self) -> Floats:
        """Each movie's products of two coordinates, each once: float64 (movies, d * (d + 1) / 2)."""
        low, high = np.tril_indices(self.vectors.shape[1])
        return self._vectors[:, low] * self._vectors[:, high]

    @cached_property
    def _square(self) -> Ints:
        """Which of the products lies where in a matrix of all: int64 (d, d)."""
        low, high = np.tril_indices(self.vectors.shape[1])
        square = np.empty((self.vectors.shape[1],) * 2, dtype=np.int64)
        square[low, high] = square[high, low] = np.arange(len(low))
        return square


def softmax(logits: FeatureRows, hidden: Bools) -> FeatureRows:
    """Over each row, 0 where hidden unless all is: float32, of the same shape."""
    shown = np.where(hidden, np.float32(_HIDDEN), logits)
    shown -= shown.max(axis=1, keepdims=True)
    powers = np.exp(shown, out=shown)
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _lengths(vectors: Floats) -> Floats:
    lengths: Floats = np.linalg.norm(vectors, axis=1, keepdims=True)
    return lengths
