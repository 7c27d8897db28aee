"""The compiled loops give what NumPy gives in double precision, and never leave their arrays."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from numpy.testing import assert_allclose, assert_array_equal

from builders import LAW, unit_rows
from twotower import loops
from twotower.arrays import Bools, FeatureRows, Floats

SEEDS = st.integers(0, 2**32 - 1)
RULE = {"best": 100, "share": 0.05, "least": 1e-6}
PROJECTION = {
    "most_hidden": 0.8,
    "temperature": 0.25,
    "ridge": 0.003,
    "flatter": 2.4,
    "spread": 0.1,
    "longest_step": 0.5,
    "shortest_bound": 1e-3,
}


def _softmax(logits: Floats, hidden: Bools) -> Floats:
    powers = np.where(hidden, 0.0, np.exp(logits - logits[~hidden].max()))
    shares: Floats = powers / powers.sum()
    return shares


def _fit(weights: Floats, vectors: Floats, right: Floats) -> Floats:
    means = weights @ vectors
    covariance = (vectors * weights[:, None]).T @ vectors - np.outer(means, means)
    return np.linalg.solve(covariance + PROJECTION["ridge"] * np.eye(len(means)), right).astype(float)


def _projected(vectors: Floats, scores: Floats, hidden: Bools) -> Floats:
    """As the documentation has it, in double precision."""
    if hidden.mean() >= PROJECTION["most_hidden"]:
        hidden = np.zeros_like(hidden)
    logits, spread = scores / PROJECTION["temperature"], PROJECTION["spread"]
    weights = (1 - spread) * _softmax(logits / PROJECTION["flatter"], hidden)
    weights += spread * ~hidden / (~hidden).sum()
    user = _fit(weights, vectors, (weights * (logits - weights @ logits)) @ vectors)
    now = _softmax(vectors @ user, hidden)
    step = _fit(now, vectors, (_softmax(logits, hidden) - now) @ vectors)
    bound = PROJECTION["longest_step"] * np.linalg.norm(user) + PROJECTION["shortest_bound"]
    user += step * (bound / max(np.linalg.norm(step), bound))
    moved: Floats = user * PROJECTION["temperature"]
    return moved


@LAW
@given(SEEDS, st.integers(1, 120), st.sampled_from([1, 2, 15, 16, 17, 31]), st.floats(0, 1))
def test_a_projection_is_that_of_double_precision(
    seed: int, movies: int, size: int, share_hidden: float
) -> None:
    random = np.random.default_rng(seed)
    vectors = random.normal(scale=0.3, size=(movies, size)).astype(np.float32)
    scores = random.normal(scale=0.5, size=(3, movies)).astype(np.float32)
    hidden = random.random((3, movies)) < share_hidden
    found = loops.Landmarks(vectors).project(scores, hidden, **PROJECTION)
    exact = vectors.astype(np.float64)
    for row, given_scores, out in zip(found, scores.astype(np.float64), hidden, strict=True):
        assert_allclose(row, _projected(exact, given_scores, out), rtol=1e-2, atol=2e-3)


@LAW
@given(
    stnp.arrays(
        np.float32,
        stnp.array_shapes(min_dims=2, max_dims=2, max_side=300),
        elements=st.floats(-1000, 1000, width=32) | st.sampled_from([0.0, -0.0, 1.0]),
    )
)
def test_the_mean_of_the_best_is_that_of_the_sorted(scores: FeatureRows) -> None:
    best = np.sort(scores.astype(np.float64), axis=1)[:, ::-1][:, : RULE["best"]].mean(axis=1)
    least = np.maximum(RULE["share"] * np.abs(scores).max(axis=1), RULE["least"])
    assert_allclose(loops.best_means(scores, **RULE)[:, 0], np.maximum(best, least), rtol=1e-5)


@LAW
@given(SEEDS, st.lists(st.integers(0, 40), min_size=1, max_size=5), st.integers(1, 130))
def test_landmarks_are_scored_as_by_matrices(seed: int, counts: list[int], landmarks: int) -> None:
    random = np.random.default_rng(seed)
    movies, genres, offsets = landmarks + 7, 3, np.cumsum([0, *counts])
    places, weights = random.integers(movies, size=offsets[-1]), random.random(offsets[-1])
    successors = random.normal(size=(movies, landmarks)).astype(np.float32)
    shares = random.normal(size=(len(counts), genres)).astype(np.float32)
    directions = random.random((genres, landmarks)).astype(np.float32)
    scores, rated = loops.score_landmarks(
        offsets, places, successors, weights=weights, shares=shares, directions=directions, **RULE
    )
    for user, (start, stop) in enumerate(pairwise(offsets)):
        some = places[start:stop]
        sums = (weights[start:stop] @ successors[some])[None].astype(np.float32)
        expected = sums / loops.best_means(sums, **RULE) + shares[user] @ directions
        assert_allclose(scores[user], expected[0], rtol=1e-3, atol=1e-3)
        assert_array_equal(rated[user], np.isin(np.arange(1, landmarks + 1), some))


@LAW
@given(SEEDS, st.integers(0, 3_000), st.sampled_from([1, 7, 16, 30]))
def test_a_regression_of_many_ratings_is_that_of_double_precision(
    seed: int, ratings: int, size: int
) -> None:
    random = np.random.default_rng(seed)
    table = random.normal(size=(50, size)).astype(np.float32)
    rows, (targets, weights) = random.integers(50, size=ratings), random.random((2, ratings))
    precision = np.eye(size) * 3 + 0.5
    (found,) = loops.weighted_ridge(
        np.array([0, ratings]), rows, table, targets=targets, weights=weights, precision=precision
    )
    design = table[rows].astype(np.float64)
    gram = (design * weights[:, None]).T @ design + precision
    assert_allclose(found, np.linalg.solve(gram, design.T @ (weights * targets)), atol=1e-4)


@LAW
@given(SEEDS, st.lists(st.integers(0, 9), min_size=1, max_size=4), st.integers(0, 3))
def test_flags_are_summed_exactly(seed: int, counts: list[int], kinds: int) -> None:
    random = np.random.default_rng(seed)
    offsets, flags = np.cumsum([0, *counts]), random.random((6, 5)) < 0.5
    rows, weights = (
        random.integers(6, size=offsets[-1]),
        random.integers(0, 11, (kinds, offsets[-1])) / 2,
    )
    sums = loops.flag_sums(offsets, rows, flags, weights=weights)
    for user, (start, stop) in enumerate(pairwise(offsets)):
        assert_array_equal(sums[user], weights[:, start:stop] @ flags[rows[start:stop]].astype(float))


FLAGS = np.ones((4, 2), np.bool_)
WEIGHTS = np.ones((1, 2))


@pytest.mark.parametrize(
    ("offsets", "rows", "weights", "error"),
    [
        ([0, 2], [0, 4], WEIGHTS, "0 to 4, allowed are 0 to 3"),
        ([0, 2], [-1, 3], WEIGHTS, "-1 to 3, allowed are 0 to 3"),
        ([0, 3], [0, 1], WEIGHTS, "offsets do not ascend from 0 to 2"),
        ([1, 2], [0, 1], WEIGHTS, "offsets do not ascend from 0 to 2"),
        ([0, 2, 1, 2], [0, 1], WEIGHTS, "offsets do not ascend from 0 to 2"),
        ([0, 2], [0, 1], WEIGHTS[:, :1], r"of shape \(1, 1\), not \(1, 2\)"),
    ],
)
def test_what_lies_outside_of_an_array_is_refused(
    offsets: list[int], rows: list[int], weights: Floats, error: str
) -> None:
    with pytest.raises((IndexError, ValueError), match=error):
        loops.flag_sums(np.array(offsets), np.array(rows), FLAGS, weights=weights)


@pytest.mark.parametrize(
    "changed",
    [
        {"ks": np.array([0])},
        {"excluded": np.array([9]), "excluded_offsets": np.array([0, 1])},
        {"mask_of": np.array([0])},
        {"mask_of": np.array([-2])},
        {"masks": np.ones((1, 5), np.bool_)},
        {"ks": np.array([1, 1])},
        {"vectors": unit_rows(np.random.default_rng(0), 1, 7)},
        {"vectors": unit_rows(np.random.default_rng(0), 1, 16)},
        {"vectors": unit_rows(np.random.default_rng(0), 1, 8)[0]},
    ],
)
def test_a_search_outside_of_its_arrays_is_refused(changed: dict[str, npt.NDArray[Any]]) -> None:
    rows = unit_rows(np.random.default_rng(0), 9, 8)
    right: dict[str, npt.NDArray[Any]] = {
        "vectors": rows[:1],
        "ks": np.array([3]),
        "excluded_offsets": np.array([0, 0]),
        "excluded": np.empty(0, np.int64),
        "masks": np.empty((0, 9), np.bool_),
        "mask_of": np.array([-1]),
    }
    table = loops.Table(rows)
    found, _, counts = table.search(**right)
    assert found[0, 0] == 0
    assert counts.tolist() == [3]
    with pytest.raises((IndexError, ValueError)):
        table.search(**(right | changed))


def test_more_rows_than_there_are_is_refused() -> None:
    rows = unit_rows(np.random.default_rng(0), 9, 8)
    assert_array_equal(loops.Table(rows).best(rows[:1], 9)[0], np.argsort(-(rows @ rows[0])))
    with pytest.raises(ValueError, match="there are no 10 rows with a score, only 9"):
        loops.Table(rows).best(rows[:1], 10)


@pytest.mark.parametrize("shape", [(3, 0), (0, 5)])
def test_means_of_nothing_are_the_least(shape: tuple[int, int]) -> None:
    assert (loops.best_means(np.empty(shape, np.float32), **RULE) == np.float32(RULE["least"])).all()
