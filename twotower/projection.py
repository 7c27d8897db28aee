"""The vector that ranks movies most like given scores do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

from twotower.arrays import Bools, FeatureRows
from twotower.loops import Landmarks

_FLATTER: Final = 2.4
_SPREAD: Final = 0.1
"""The least squares fit weighs movies by a softmax so much flatter, this share of it by all alike."""
_LONGEST_STEP: Final = 0.5
_SHORTEST_BOUND: Final = 1e-3
_MOST_HIDDEN: Final = 0.8
"""A user of whom a larger share than this is hidden has nothing hidden."""


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
        return self._landmarks.project(
            scores,
            hidden,
            most_hidden=_MOST_HIDDEN,
            temperature=self.temperature,
            ridge=self.ridge,
            flatter=_FLATTER,
            spread=_SPREAD,
            longest_step=_LONGEST_STEP,
            shortest_bound=_SHORTEST_BOUND,
        )

    @cached_property
    def _landmarks(self) -> Landmarks:
        return Landmarks(self.vectors)
