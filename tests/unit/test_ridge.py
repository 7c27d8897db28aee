"""Many ridge regressions at once are each what it would be alone, and share a prior worth having."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from training.ridge import GroupedRows, Prior
from twotower.arrays import Floats, Ints


def _rows(counts: Ints, coefficients: Floats, noise: float) -> GroupedRows:
    """So many rows of each group, in a random order, with targets that follow its coefficients."""
    random = np.random.default_rng(0)
    groups = random.permutation(np.repeat(np.arange(len(counts)), counts))
    design = random.normal(size=(len(groups), coefficients.shape[1]))
    exact = (design * coefficients[groups]).sum(axis=1)
    return GroupedRows(groups, design, exact + noise**0.5 * random.normal(size=len(groups)))


WIDTH = 3
MEANS = np.random.default_rng(1).normal(size=(6, WIDTH))
PRIOR = Prior(MEANS, np.array([[2.0, 0.5, 0.0], [0.5, 3.0, 1.0], [0.0, 1.0, 1.5]]))
ROWS = _rows(np.array([0, 1, 2, 3, 8, 30]), 2 * MEANS, noise=1.0)


def _ridge(chosen: np.ndarray, group: int) -> Floats:
    """One group's regression on some of the rows."""
    design, precision = ROWS.design[np.flatnonzero(chosen)], PRIOR.precision
    moment = design.T @ ROWS.targets[chosen] + precision @ PRIOR.mean[group]
    return np.linalg.solve(design.T @ design + precision, moment)


def test_a_groups_coefficients_are_those_of_its_own_ridge_regression() -> None:
    of_group, _ = ROWS.coefficients(PRIOR)
    expected = [_ridge(ROWS.groups == group, group) for group in range(len(MEANS))]
    assert_allclose(of_group, expected, atol=1e-10)


def test_coefficients_without_a_row_are_those_fitted_without_it() -> None:
    _, without = ROWS.coefficients(PRIOR)
    places = np.arange(len(ROWS.groups))
    for place, group in enumerate(ROWS.groups):
        expected = _ridge((ROWS.groups == group) & (places != place), group)
        assert_allclose(without[place], expected, atol=1e-10)


@pytest.mark.parametrize("wanted", [[], [3], [0, 5, 6, 40]])
def test_coefficients_without_a_row_are_had_of_those_wanted_alone(wanted: list[int]) -> None:
    of_group, without = ROWS.coefficients(PRIOR)
    same, of_some = ROWS.coefficients(PRIOR, np.array(wanted, dtype=np.int64))
    assert_allclose(same, of_group, atol=1e-12)
    assert_allclose(of_some, without[wanted], atol=1e-12)


def test_coefficients_are_the_same_however_many_groups_are_held_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = ROWS.coefficients(PRIOR)
    monkeypatch.setattr("training.ridge._NUMBERS_AT_ONCE", 2 * WIDTH**2)
    for found, together in zip(ROWS.coefficients(PRIOR), expected, strict=True):
        assert_allclose(found, together, atol=1e-12)


GROUPS, NOISE = 1_500, 0.5
MEAN = np.tile([1.0, -2.0], (GROUPS, 1))
COVARIANCE = np.array([[1.0, 0.4], [0.4, 0.6]])
GUESS = Prior(np.zeros((GROUPS, 2)), np.eye(2))


def _drawn(mean: Floats) -> GroupedRows:
    """Groups of no row to ten, their coefficients drawn around a mean, (groups, 2)."""
    random = np.random.default_rng(2)
    coefficients = mean + random.multivariate_normal(np.zeros(2), COVARIANCE, GROUPS)
    return _rows(random.integers(0, 11, GROUPS), coefficients, NOISE)


@pytest.mark.parametrize("held", [GROUPS, 500])
def test_a_prior_is_learned_from_all_groups_or_enough_of_them(
    monkeypatch: pytest.MonkeyPatch, held: int
) -> None:
    monkeypatch.setattr("training.ridge._NUMBERS_AT_ONCE", held * 2**2)
    prior = _drawn(MEAN).learn_prior(GUESS, noise=NOISE, steps=30)
    assert_allclose(prior.mean, MEAN, atol=0.1)
    assert_allclose(NOISE * np.linalg.inv(prior.precision), COVARIANCE, atol=0.12)


def test_a_mean_that_follows_content_is_found_for_groups_without_rows_too() -> None:
    content = np.column_stack([np.ones(GROUPS), np.linspace(-1, 1, GROUPS)])
    mean = content @ np.array([[1.0, -2.0], [0.5, 3.0]])
    rows = _drawn(mean)
    prior = rows.learn_prior(GUESS, noise=NOISE, steps=30, content=content)
    assert_allclose(prior.mean, mean, atol=0.2)
    assert (np.bincount(rows.groups, minlength=GROUPS) == 0).any()
