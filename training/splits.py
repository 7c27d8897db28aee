"""Splits of ratings into what a model may learn from and what it is judged by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.interactions import Interactions
from twotower.features import Ints

TRAIN, VALIDATION, TEST = 0, 1, 2

Parts = npt.NDArray[np.int8]


@dataclass(frozen=True)
class Split:
    """Ratings in three parts, which together are all and share none."""

    name: str
    train: Interactions
    validation: Interactions
    test: Interactions
    refit: Interactions
    """Train and validation together: what a model is fitted on before the test."""
    digest: str
    """SHA-256 over the part of each rating, in the order of the data."""

    @classmethod
    def of(cls, name: str, interactions: Interactions, parts: Parts, order: Ints | None = None) -> Split:
        """Split by the part of each rating: int8 (n,) of TRAIN, VALIDATION, TEST.

        The ratings of a part keep the order of the data, or take that of `order`, int64 (n,).
        """
        if order is None:
            order = np.arange(len(interactions))
        sequence = parts[order]
        return cls(
            name=name,
            train=interactions.take(order[sequence == TRAIN]),
            validation=interactions.take(order[sequence == VALIDATION]),
            test=interactions.take(order[sequence == TEST]),
            refit=interactions.take(order[sequence != TEST]),
            digest=hashlib.sha256(parts.tobytes()).hexdigest(),
        )


def temporal_split(interactions: Interactions) -> Split:
    """Each user's last 20 % by time test, the 10 % before validation; equal times at random."""
    ties = np.random.RandomState(0).random_sample(len(interactions))
    order = np.lexsort((ties, interactions.timestamps, interactions.user_rows))
    counts = np.bincount(interactions.user_rows, minlength=interactions.users)
    starts = np.cumsum(counts) - counts
    users = interactions.user_rows[order]
    left = counts[users] - (np.arange(len(order)) - starts[users])  # 1 for the user's last rating
    tested = np.round(0.2 * counts)[users]
    validated = np.round(0.1 * counts)[users]
    parts = np.full(len(order), TRAIN, dtype=np.int8)
    parts[order[left <= tested + validated]] = VALIDATION
    parts[order[left <= tested]] = TEST
    return Split.of("temporal", interactions, parts)


def random_split(interactions: Interactions) -> Split:
    """20 % of all ratings test, 10 % validation, at random with a fixed seed.

    The parts stay shuffled: what learns in the order of the data (SVD by SGD) learns better so.
    """
    order = np.random.RandomState(0).permutation(len(interactions))
    tested, validated = len(order) // 5, len(order) // 10
    parts = np.full(len(order), TRAIN, dtype=np.int8)
    parts[order[:tested]] = TEST
    parts[order[tested : tested + validated]] = VALIDATION
    return Split.of("random", interactions, parts, order)
