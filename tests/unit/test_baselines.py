"""The baselines give the values their formulas do."""

from __future__ import annotations

import numpy as np
import pytest

from training.baselines import damped_bias, global_mean, svd
from training.interactions import Interactions


def _ratings(rows: list[tuple[int, int, float]]) -> Interactions:
    users, movies, ratings = (np.array(column) for column in zip(*rows, strict=True))
    return Interactions(users, movies, ratings.astype(np.float64), np.zeros(len(rows), np.int64), 3, 3)


_TRAIN = _ratings([(0, 0, 5.0), (0, 1, 3.0), (1, 0, 4.0), (1, 1, 2.0)])


def test_global_mean() -> None:
    assert global_mean(_TRAIN, _ratings([(2, 2, 1.0)])).tolist() == [3.5]


def test_damped_bias_follows_its_formula() -> None:
    movie_bias = (1.5 + 0.5) / 7
    user_bias = ((1.5 - movie_bias) + (-0.5 + movie_bias)) / 7  # the other movie's bias is opposite
    predicted = damped_bias(_TRAIN, _ratings([(0, 0, 5.0), (2, 0, 5.0), (2, 2, 5.0)]))
    assert predicted == pytest.approx([3.5 + movie_bias + user_bias, 3.5 + movie_bias, 3.5])


def test_svd_is_the_same_each_time_and_knows_a_stranger_by_the_mean() -> None:
    test = _ratings([(0, 0, 5.0), (2, 2, 5.0)])
    assert svd(_TRAIN, test).tolist() == svd(_TRAIN, test).tolist()
    assert svd(_TRAIN, test)[1] == pytest.approx(3.5)
