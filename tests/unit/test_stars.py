"""What is a like follows from the scale of the data, and is 4 on those of MovieLens."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import LAW
from training.config import load_recipe
from training.stars import LIKED, at_stars, rules_on, star_of

SCALES = {
    (0.5, 5.0): (4.0, 3.0),
    (1.0, 5.0): (4.0, 3.0),
    (0.0, 5.0): (4.0, 3.0),
    (1.0, 10.0): (8.0, 6.0),
    (0.0, 10.0): (8.0, 6.0),
    (0.0, 100.0): (80.0, 60.0),
    (0.0, 1.0): (0.8, 0.6),
    (1.0, 3.0): (2.4, 1.8),
    (1.0, 2.0): (1.6, 1.2),
    (80.0, 100.0): (96.0, 92.0),
    (-10.0, 10.0): (6.0, 2.0),
    (-1.0, 1.0): (0.6, 0.2),
    (4.0, 4.0): (4.0, 4.0),
    (0.0, 0.0): (0.0, 0.0),
}


@pytest.mark.parametrize(("scale", "places"), SCALES.items(), ids=map(str, SCALES))
def test_likes_and_dislikes_follow_from_the_scale(
    scale: tuple[float, float], places: tuple[float, float]
) -> None:
    hybrid = load_recipe("hybrid").hybrid
    assert hybrid
    rules = rules_on(hybrid.history, scale)
    assert (rules.liked, rules.disliked) == tuple(float(np.float32(each)) for each in places)
    assert rules.model_dump(exclude={"liked", "disliked"}) == hybrid.history.model_dump(
        exclude={"liked", "disliked"}
    )


@pytest.mark.parametrize("scale", [(0.5, 5.0), (1.0, 5.0)])
def test_on_the_scales_of_movielens_a_star_is_one(scale: tuple[float, float]) -> None:
    assert star_of(scale) == 1
    assert [at_stars(stars, scale) for stars in (0, 1, 2.5, 4, 5)] == [0, 1, 2.5, 4, 5]


@LAW
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=2, max_size=2).map(sorted))
def test_the_highest_rating_is_a_like_on_any_scale(scale: list[float]) -> None:
    low, high = scale
    assert low <= at_stars(LIKED, (low, high)) <= high
    assert star_of((low, high)) > 0


@LAW
@given(st.floats(0, 5, width=32), st.sampled_from([s for s in SCALES if s[0] < s[1]]))
def test_a_rating_at_the_place_of_a_like_is_one_as_float32(
    stars: float, scale: tuple[float, float]
) -> None:
    place = at_stars(stars, scale)
    assert np.array([place], dtype=np.float32).astype(np.float64)[0] >= place


def test_where_all_ratings_are_the_same_a_star_divides() -> None:
    assert star_of((4.0, 4.0)) == star_of((0.0, 0.0)) == 1
