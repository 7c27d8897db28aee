"""Made-up movies and users whose vectors lie as learned ones do: in clusters of unequal width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from retrieval_svc.index import NO_ROWS, ExactIndex, Mask, Rows, Search
from training.partition import LEAST_MOVIES, divide
from twotower.arrays import Embeddings
from twotower.histories import Histories
from twotower.partition import Partition

DIM: Final = 32
USERS: Final = 512
_TOP: Final = 10
_CONDITIONS: Final = ("plain", "excluded", "filter")
_EXCLUDED: Final = 200
_PASSING: Final = 0.05


@dataclass(frozen=True)
class World:
    """Made-up movies and users, what each excludes, all of it quite near, and what a filter passes."""

    movies: Embeddings
    users: Embeddings
    excluded: Rows
    passing: Mask
    recall: float
    """The share of the exact top 10 that is to be found."""

    @classmethod
    def of(cls, movies: int, *, spread: float = 0.9, recall: float = 0.99) -> World:
        """Movies around one point for every two hundred; users among the movies of a point each.

        spread: how far from its point the movies of the widest lie, as against the point's length.
        """
        generator = np.random.default_rng(movies)
        axes: Embeddings = ((1 + np.arange(DIM) / 8) ** -0.5).astype(np.float32)
        points = _unit(generator.standard_normal((max(movies // 200, 8), DIM), np.float32) * axes)
        width = generator.uniform(spread / 3, spread, len(points)).astype(np.float32)
        near = generator.integers(len(points), size=movies)
        noise = _unit(generator.standard_normal((movies, DIM), np.float32) * axes)
        rows = _unit(points[near] + width[near, None] * noise)
        taste = _unit(generator.standard_normal((USERS, DIM), np.float32) * axes)
        users = _unit(
            points[generator.integers(len(points), size=USERS)] + np.float32(spread / 1.8) * taste
        )
        exact = ExactIndex(rows)
        best = np.array([hits.rows for hits in exact.search([Search(user, 1000) for user in users])])
        chosen = generator.permuted(np.tile(np.arange(1000), (USERS, 1)), axis=1)[:, :_EXCLUDED]
        excluded = np.take_along_axis(best, chosen, axis=1)
        return cls(rows, users, excluded, generator.random(movies) < _PASSING, recall)

    def partition(self, least_movies: int = LEAST_MOVIES) -> Partition | None:
        """How the movies are divided, by what users who have rated nothing are to find."""
        nothing = Histories.in_order(np.zeros(USERS + 1, np.int64), NO_ROWS, np.empty(0))
        return divide(
            self.movies,
            self.users.__getitem__,
            nothing,
            recall=self.recall,
            least_movies=least_movies,
        )

    @cached_property
    def best(self) -> dict[str, list[Rows]]:
        """The exact top 10 of the users by condition."""
        index = ExactIndex(self.movies)
        return {
            condition: [hits.rows for hits in index.search(self.searches(condition))]
            for condition in _CONDITIONS
        }

    def searches(self, condition: str) -> list[Search]:
        """The users' searches: all `plain`, each with its `excluded`, or by a `filter` alone."""
        return [
            Search(
                user,
                _TOP,
                rows if condition == "excluded" else NO_ROWS,
                self.passing if condition == "filter" else None,
            )
            for user, rows in zip(self.users, self.excluded, strict=True)
        ]


def _unit(vectors: Embeddings) -> Embeddings:
    rows: Embeddings = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return rows
