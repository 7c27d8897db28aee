"""The vector sought on landmarks ranks them as nearly like the scores as one of so few numbers can."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize

from builders import LAW
from training.teaching import softmax
from twotower.arrays import Bools, FeatureRows, Floats
from twotower.projection import SoftmaxProjection

SEEDS = st.integers(0, 2**32 - 1)


def _problem(seed: int, movies: int, users: int = 3) -> tuple[SoftmaxProjection, FeatureRows, Bools]:
    random = np.random.default_rng(seed)
    vectors = random.normal(scale=0.3, size=(movies, 4)).astype(np.float32)
    scores = random.normal(scale=0.3, size=(users, movies)).astype(np.float32)
    return SoftmaxProjection(vectors, 0.25, 0.003), scores, random.random((users, movies)) < 0.2


def _divergence(wanted: Floats, logits: Floats, hidden: Bools) -> float:
    shown = np.where(hidden, -np.inf, logits)
    logs = shown - shown.max() - np.log(np.exp(shown - shown.max()).sum())
    chosen = wanted > 0
    return float((wanted[chosen] * (np.log(wanted[chosen]) - logs[chosen])).sum())


@LAW
@given(seed=SEEDS, movies=st.integers(20, 60))
def test_the_divergence_comes_at_least_half_way_to_the_least_there_is(seed: int, movies: int) -> None:
    """From the vector 0, against a general minimiser. One step takes it nearly there, but not always."""
    projection, scores, hidden = _problem(seed, movies)
    vectors = projection.vectors.astype(np.float64)
    for found, row, out in zip(projection.nearest(scores, hidden), scores, hidden, strict=True):
        wanted = softmax(row[None] / np.float32(0.25), out[None])[0].astype(np.float64)

        def divergence(user: Floats, wanted: Floats = wanted, out: Bools = out) -> float:
            return _divergence(wanted, vectors @ user / 0.25, out)

        least = minimize(divergence, np.zeros(4)).fun
        assert divergence(found.astype(np.float64)) - least <= 0.5 * (divergence(np.zeros(4)) - least)


@LAW
@given(seed=SEEDS)
def test_scores_that_a_vector_gives_lead_back_to_it(seed: int) -> None:
    projection, _, hidden = _problem(seed, movies=60)
    users = np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32)
    found = SoftmaxProjection(projection.vectors, 0.25, 1e-6).nearest(
        users @ projection.vectors.T, hidden
    )
    assert_allclose(found, users, atol=0.01)


@LAW
@given(seed=SEEDS, movies=st.integers(1, 40), more=st.integers(0, 300))
def test_each_user_is_projected_as_alone(seed: int, movies: int, more: int) -> None:
    projection, scores, hidden = _problem(seed, movies, users=1 + more)
    together = projection.nearest(scores, hidden)
    for user in {0, more // 2, more}:
        alone = projection.nearest(scores[user : user + 1], hidden[user : user + 1])[0]
        assert_array_equal(together[user], alone)


@LAW
@given(seed=SEEDS, movies=st.integers(1, 40))
def test_what_is_hidden_counts_for_nothing(seed: int, movies: int) -> None:
    projection, scores, hidden = _problem(seed, movies)
    hidden &= hidden.mean(axis=1, keepdims=True) < 0.8
    other = np.where(hidden, -scores, scores)
    assert_allclose(projection.nearest(scores, hidden), projection.nearest(other, hidden), atol=1e-5)


@pytest.mark.parametrize("left", [0, 1, 2, 5, 20, 99])
def test_who_knows_nearly_everything_keeps_a_vector_of_their_own(left: int) -> None:
    projection, scores, _ = _problem(0, movies=100, users=2)
    hidden = np.arange(100) >= np.array([left, left])[:, None]
    one, other = projection.nearest(scores, hidden)
    assert min(np.linalg.norm(one), np.linalg.norm(other)) > 0.1
    assert one @ other < 0.9 * np.linalg.norm(one) * np.linalg.norm(other)


@LAW
@given(seed=SEEDS, movies=st.integers(1, 40), score=st.floats(-3, 3))
def test_scores_all_alike_or_all_hidden_give_no_vector(seed: int, movies: int, score: float) -> None:
    projection, scores, hidden = _problem(seed, movies)
    alike = np.full_like(scores, score)
    assert_allclose(projection.nearest(alike, hidden), 0, atol=1e-5)
    assert np.isfinite(projection.nearest(scores, np.ones_like(hidden))).all()
