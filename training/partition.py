"""Dividing many movies into cells, so that a search looks through a few of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from twotower.arrays import Embeddings, Ints
from twotower.histories import Histories
from twotower.partition import Partition

LEAST_MOVIES: Final = 20_000
"""Fewer are ranked all, which is about as fast, and exact: see `python -m bench.index`."""

_RECALL: Final = 0.99
_TOP: Final = 10
_USERS: Final = 1_000
"""By how many users recall is measured."""

_CELLS_BY_ROOT: Final = 4
_WORTH: Final = 8
"""How many times more cells there must be than are looked through."""

_SAMPLE_BY_CELL: Final = 64
_ROUNDS: Final = 10
_BLOCK: Final = 2**24
"""How many inner products are held at once."""


def divide(
    movies: Embeddings,
    embed_users: Callable[[Ints], Embeddings],
    rated: Histories,
    *,
    recall: float = _RECALL,
    least_movies: int = LEAST_MOVIES,
) -> Partition | None:
    """The partition by which users find `recall` of their exact top 10; None where none is worth it.

    movies: float32 (n, dim) of unit norm, as are the vectors of some users, asked for by their numbers.
    rated: what the users have rated, which their searches leave out. Fewer movies than `least_movies`
    are not divided.
    """
    if len(movies) < least_movies:
        return None
    generator = np.random.default_rng(0)
    centroids = _cluster(movies, _CELLS_BY_ROOT * math.isqrt(len(movies)), generator)
    cells = _nearest(movies, centroids)
    asked = generator.permutation(len(rated))[:_USERS]
    ranks = [
        _cell_ranks(centroids @ embedding)[cells[_top(movies @ embedding, seen)]]
        for user, embedding in zip(asked, embed_users(asked), strict=True)
        for seen in [rated.movie_rows[rated.offsets[user] : rated.offsets[user + 1]]]
    ]
    probes = int(np.quantile(np.concatenate(ranks), recall, method="higher")) + 1
    return Partition(centroids, cells, probes) if probes * _WORTH < len(centroids) else None


def _cluster(movies: Embeddings, cells: int, generator: np.random.Generator) -> Embeddings:
    """Centroids of unit norm, float32 (cells, dim), by spherical k-means on a sample.

    Source: Dhillon and Modha, Machine Learning 42, 2001.
    """
    sample = movies[generator.permutation(len(movies))[: cells * _SAMPLE_BY_CELL]]
    centroids = sample[:cells]
    for _ in range(_ROUNDS):
        nearest = _nearest(sample, centroids)
        order = np.argsort(nearest, kind="stable")
        found, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(sample[order], starts, axis=0)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        # A cell that has lost its movies begins again at one of the sample.
        centroids = sample[generator.integers(len(sample), size=cells)]
        centroids[found] = np.where(norms > 0, sums / np.maximum(norms, 1e-12), centroids[found])
    return centroids


def _nearest(movies: Embeddings, centroids: Embeddings) -> npt.NDArray[np.int32]:
    """The cell of each movie: int32 (movies,)."""
    step = max(1, _BLOCK // len(centroids))
    return np.concatenate(
        [
            (movies[start : start + step] @ centroids.T).argmax(axis=1).astype(np.int32)
            for start in range(0, len(movies), step)
        ]
    )


def _top(scores: npt.NDArray[np.float32], rated: Ints) -> Ints:
    """The rows of the best movies but those rated."""
    scores[rated] = -np.inf
    best: Ints = np.argpartition(scores, len(scores) - _TOP)[-_TOP:]
    return best[np.isfinite(scores[best])]


def _cell_ranks(scores: npt.NDArray[np.float32]) -> Ints:
    """How many cells are nearer than each: int64 (cells,)."""
    ranks = np.empty(len(scores), np.int64)
    ranks[np.argsort(-scores)] = np.arange(len(scores))
    return ranks
