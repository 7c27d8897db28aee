"""Dividing many movies into cells, so that a search looks through a few of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from twotower.arrays import Embeddings, Ints
from twotower.histories import Histories
from twotower.partition import Partition

Cells = npt.NDArray[np.int32]

LEAST_MOVIES: Final = 20_000
"""Fewer are ranked all, which is about as fast, and exact: see `python -m bench.index`."""

_RECALL: Final = 0.99
_TOP: Final = 10
_USERS: Final = 1_000
"""By how many users recall is measured."""

_CELLS_BY_ROOT: Final = (4, 8, 16)
"""How many times the root of the number of movies, of which the cheapest to search is taken."""
_MOVIE_COSTS: Final = 4
"""How many times as much it takes to look at a movie of a list as at a centroid."""
_WORTH: Final = 8
"""How many times more movies there must be than are looked through."""

_SAMPLE_BY_CELL: Final = 64
_ROUNDS: Final = 10
_MANY_CELLS: Final = 2_000
"""Of so many, a movie is compared with those of the groups nearest to it alone."""
_NEAR_GROUPS: Final = 8
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
    asked = np.random.default_rng(0).permutation(len(rated))[:_USERS]
    users = embed_users(asked)
    seen = rated.of(asked)
    best = _best_movies(movies, users, np.split(seen.movie_rows, seen.offsets[1:-1]))
    candidates = [
        _divide_into(by_root * math.isqrt(len(movies)), movies, users, best, recall)
        for by_root in _CELLS_BY_ROOT
    ]
    cost, partition = min(candidates, key=itemgetter(0))
    return partition if cost < math.inf else None


def _divide_into(
    cells: int, movies: Embeddings, users: Embeddings, best: Sequence[Ints], recall: float
) -> tuple[float, Partition]:
    """A partition by which so much of users' best movies is found, and what a search of it costs.

    That is counted in centroids looked at; infinite where it is not worth it.
    """
    centroids = _cluster(movies, cells, np.random.default_rng(0))
    cell_of = _nearest(movies, centroids)
    sizes = np.bincount(cell_of, minlength=cells)
    orders = [np.argsort(-(centroids @ user)).astype(np.int32) for user in users]
    ranks = [np.argsort(order)[cell_of[rows]] for order, rows in zip(orders, best, strict=True)]
    probes = int(np.quantile(np.concatenate(ranks), recall, method="higher")) + 1
    looked_at = float(np.mean([sizes[order[:probes]].sum() for order in orders]))
    is_worth_it = looked_at * _WORTH < len(movies)
    cost = cells + _MOVIE_COSTS * looked_at if is_worth_it else math.inf
    return cost, Partition(centroids, cell_of, probes)


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


def _nearest(movies: Embeddings, centroids: Embeddings) -> Cells:
    """The cell of each movie: int32 (movies,). Of many, it may be but nearly the nearest.

    The centroids are then put into groups themselves, around centroids of their own.
    """
    if len(centroids) < _MANY_CELLS:
        return _by_blocks(movies, lambda some: (some @ centroids.T).argmax(axis=1), len(centroids))
    groups = _cluster(centroids, math.isqrt(len(centroids)), np.random.default_rng(0))
    group_of = _nearest(centroids, groups)
    members = [np.flatnonzero(group_of == group) for group in range(len(groups))]
    return _by_blocks(
        movies, lambda some: _nearest_of_groups(some, groups, members, centroids), len(groups)
    )


def _by_blocks(movies: Embeddings, find: Callable[[Embeddings], Ints], width: int) -> Cells:
    step = max(1, _BLOCK // width)
    return np.concatenate(
        [find(movies[start : start + step]).astype(np.int32) for start in range(0, len(movies), step)]
    )


def _nearest_of_groups(
    movies: Embeddings, groups: Embeddings, members: Sequence[Ints], centroids: Embeddings
) -> Ints:
    """The nearest of the centroids that are members of the groups nearest to each movie."""
    scores = movies @ groups.T
    least = np.partition(scores, -_NEAR_GROUPS, axis=1)[:, -_NEAR_GROUPS]
    best = np.full(len(movies), -np.inf, np.float32)
    nearest = np.zeros(len(movies), np.int64)
    for some, is_near in zip(members, (scores >= least[:, None]).T, strict=True):
        rows = np.flatnonzero(is_near)
        if not len(some) or not len(rows):
            continue
        within = movies[rows] @ centroids[some].T
        places = within.argmax(axis=1)
        highest = within[np.arange(len(rows)), places]
        is_nearer = highest > best[rows]
        best[rows[is_nearer]] = highest[is_nearer]
        nearest[rows[is_nearer]] = some[places[is_nearer]]
    return nearest


def _best_movies(movies: Embeddings, users: Embeddings, rated: Sequence[Ints]) -> list[Ints]:
    """The rows of each user's best movies but those rated."""
    step = max(1, _BLOCK // len(movies))
    return [
        _top(scores, rated[start + place])
        for start in range(0, len(users), step)
        for place, scores in enumerate(users[start : start + step] @ movies.T)
    ]


def _top(scores: npt.NDArray[np.float32], rated: Ints) -> Ints:
    scores[rated] = -np.inf
    best: Ints = np.argpartition(scores, len(scores) - _TOP)[-_TOP:]
    return best[np.isfinite(scores[best])]
