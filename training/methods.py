"""What every method that is compared looks like once it is fitted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from training.splits import Fold
from twotower.arrays import FeatureRows, Floats, Ints

Scores = Callable[[Ints], FeatureRows]
"""User rows (n,) to a score for every movie, float32 (n, movies): higher is ranked first."""

Ratings = Callable[[Ints, Ints], Floats]
"""User rows and movie rows (m,) to predicted ratings, float64 (m,)."""


@dataclass(frozen=True)
class Fitted:
    """A fitted method, which ranks, predicts ratings, or does both."""

    scores: Scores | None = None
    ratings: Ratings | None = None


Method = Callable[[Fold], Fitted]
"""Learns from a fold's train and is told its history; its test it leaves alone."""
