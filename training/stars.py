"""Places on any scale of ratings, as stars of five: what is a like follows from the scale."""

from __future__ import annotations

from typing import Final

import numpy as np

from training.layouts import Scale
from twotower.arrays import Floats
from twotower.features import HistoryRules

MOST: Final = 5.0
LIKED: Final = 4.0
"""The least stars of what was liked, and that a ranking should find."""


def span(ratings: Floats) -> Scale:
    """The scale of ratings of which no other is known: from the lowest to the highest there is."""
    return float(ratings.min()), float(ratings.max())


def star_of(scale: Scale) -> float:
    """What one star of five comes to on a scale; 1 where all ratings are the same."""
    return (scale[1] - _origin(scale)) / MOST or 1.0


def at_stars(stars: float, scale: Scale) -> float:
    """The rating as high on a scale as so many stars of five, rounded to float32 as ratings are."""
    origin = _origin(scale)
    return float(np.float32(origin + (scale[1] - origin) * stars / MOST))


def rules_on(rules: HistoryRules, scale: Scale) -> HistoryRules:
    """A recipe's rules, which are in stars, on the scale of the data."""
    return rules.model_copy(
        update={name: at_stars(getattr(rules, name), scale) for name in ("liked", "disliked")}
    )


def _origin(scale: Scale) -> float:
    """Where there are no stars: at 0, as of 0 to 100 and of 1 to 10; at the lowest where that is far."""
    low, high = scale
    return 0.0 if 0 <= low <= high / 2 else low
