"""Measures are what their definitions say, and intervals hold what they promise."""

from __future__ import annotations

import math

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from builders import LAW
from training.metrics import (
    Interval,
    mae,
    ndcg,
    paired_mae_difference,
    paired_mean_difference,
    paired_rmse_difference,
    recall,
    reciprocal_rank,
    rmse,
    self_information,
    top_k,
)
from twotower.arrays import Bools, FeatureRows, Floats, Ints

_MOVIES, _USERS, _K = 60, 40, 10


@st.composite
def _judgements(draw: st.DrawFn) -> tuple[list[list[bool]], list[int]]:
    """Whether each place of some rankings is a hit, and how many hits there could have been."""
    places = draw(st.integers(1, 12))
    ranking = st.lists(st.booleans(), min_size=places, max_size=places)
    hits = draw(st.lists(ranking, min_size=1, max_size=5))
    return hits, [draw(st.integers(max(1, sum(own)), 20)) for own in hits]


def _dcg(gains: list[bool]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))


@LAW
@given(_judgements())
def test_rankings_are_measured_as_defined(judged: tuple[list[list[bool]], list[int]]) -> None:
    hits, relevant = judged
    found, could_be = np.array(hits), np.array(relevant)
    ideal = [[True] * min(count, len(own)) for own, count in zip(hits, relevant, strict=True)]
    pairs = list(zip(hits, ideal, strict=True))
    assert ndcg(found, could_be) == pytest.approx([_dcg(own) / _dcg(best) for own, best in pairs])
    assert recall(found, could_be) == pytest.approx([sum(own) / len(best) for own, best in pairs])
    first = [1 / (own.index(True) + 1) if any(own) else 0.0 for own in hits]
    assert reciprocal_rank(found) == pytest.approx(first)
    for values in (ndcg(found, could_be), recall(found, could_be), reciprocal_rank(found)):
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()


def test_a_ranking_worked_out_by_hand() -> None:
    hits = np.array([[False, True, True, False], [True, True, False, False], [False] * 4])
    relevant = np.array([3, 2, 9])
    gained = 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg(hits, relevant) == pytest.approx([gained / (1 + gained), 1, 0])
    assert recall(hits, relevant) == pytest.approx([2 / 3, 1, 0])
    assert reciprocal_rank(hits) == pytest.approx([1 / 2, 1, 0])


@pytest.fixture(scope="module")
def scores() -> FeatureRows:
    """A score of each movie for each user, no two the same for one user."""
    generator = np.random.default_rng(0)
    return generator.permuted(np.tile(np.arange(_MOVIES, dtype=np.float32), (_USERS, 1)), axis=1)


@pytest.fixture(scope="module")
def relevant() -> Bools:
    """Which movies each user liked: one of them one movie only, another all."""
    generator = np.random.default_rng(1)
    chances = np.linspace(0.02, 0.6, _USERS)[:, None]
    liked: Bools = generator.random((_USERS, _MOVIES)) < chances
    liked[:, 0] = True
    liked[0, 1:] = False
    liked[-1] = True
    return liked


@pytest.fixture(scope="module")
def hits(scores: FeatureRows, relevant: Bools) -> Bools:
    return np.take_along_axis(relevant, top_k(scores, _K), axis=1)


def test_ndcg_is_that_of_scikit_learn(scores: FeatureRows, relevant: Bools, hits: Bools) -> None:
    ours = ndcg(hits, relevant.sum(axis=1))
    pairs = zip(relevant[:, None], scores[:, None], strict=True)
    assert ours == pytest.approx([ndcg_score(liked, scored, k=_K) for liked, scored in pairs])
    assert ours.mean() == pytest.approx(ndcg_score(relevant, scores, k=_K))


def test_rankings_are_measured_as_by_trec_eval(
    scores: FeatureRows, relevant: Bools, hits: Bools
) -> None:
    counts = relevant.sum(axis=1)
    best = top_k(scores, _K)
    evaluator = pytrec_eval.RelevanceEvaluator(
        {
            str(user): {f"m{movie}": 1 for movie in np.flatnonzero(liked)}
            for user, liked in enumerate(relevant)
        },
        {"ndcg_cut_10", "recip_rank", "recall_10", "success_10"},
    )
    theirs = evaluator.evaluate(
        {
            str(user): {f"m{movie}": float(scores[user, movie]) for movie in row}
            for user, row in enumerate(best)
        }
    )
    for user, (own_ndcg, own_recall, own_rank) in enumerate(
        zip(ndcg(hits, counts), recall(hits, counts), reciprocal_rank(hits), strict=True)
    ):
        measured = theirs[str(user)]
        of_all = own_recall * min(_K, counts[user]) / counts[user]  # theirs is not limited by places
        assert own_ndcg == pytest.approx(measured["ndcg_cut_10"])
        assert own_rank == pytest.approx(measured["recip_rank"])
        assert of_all == pytest.approx(measured["recall_10"])
        assert (own_recall > 0) == measured["success_10"]


@LAW
@given(st.integers(1, 5), st.integers(1, 30), st.integers(1, 12), st.integers(0, 100))
def test_the_best_are_the_highest_in_order(users: int, movies: int, k: int, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 6, (users, movies)).astype(np.float32)
    best = top_k(scores, k)
    assert best.shape == (users, min(k, movies))
    assert best.dtype == np.int64
    for row, scored in zip(best, scores, strict=True):
        assert len(set(row.tolist())) == len(row)
        assert scored[row].tolist() == sorted(scored.tolist(), reverse=True)[:k]


@LAW
@given(st.integers(1, 12), st.integers(1, 14), st.integers(1, 5), st.integers(0, 99))
def test_the_best_are_those_of_a_stable_sort_of_all(movies: int, k: int, levels: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.choice([-np.inf, *range(levels)], (4, movies)).astype(np.float32)
    order = top_k(np.zeros((1, movies), dtype=np.float32), movies)[0]
    expected = [sorted(order.tolist(), key=lambda movie: -row[movie])[:k] for row in scores]
    hidden = [
        [-1 if np.isinf(row[m]) else m for m in best] for row, best in zip(scores, expected, strict=True)
    ]
    assert top_k(scores, k).tolist() == hidden


def test_equal_scores_are_in_one_order_that_is_not_the_catalogues() -> None:
    alike = top_k(np.zeros((3, 100), dtype=np.float32), 100)
    assert (alike == alike[0]).all()
    assert sorted(alike[0].tolist()) == list(range(100))
    assert abs(np.corrcoef(alike[0], np.arange(100))[0, 1]) < 0.3
    two_levels = np.repeat(np.array([[0, 1]], dtype=np.float32), 50)[None]
    upper = alike[0][alike[0] >= 50]
    assert top_k(two_levels, 50).tolist() == [upper.tolist()]


def test_what_is_ruled_out_is_not_among_them() -> None:
    scores = np.full((2, 20), -np.inf, dtype=np.float32)
    scores[0, [3, 7, 11]] = -1e30, 5, 0
    scores[1] = np.arange(20)
    assert top_k(scores, 10)[0].tolist() == [7, 11, 3] + [-1] * 7
    assert top_k(scores, 10)[1].tolist() == list(range(19, 9, -1))


def test_self_information_is_in_bits() -> None:
    assert self_information(np.array([0, 1, 3, 7]), users=7) == pytest.approx([3, 2, 1, 0])


def test_errors_are_measured_as_defined() -> None:
    errors = np.array([3.0, -4.0, 0.0, 0.0])
    assert rmse(errors) == 2.5
    assert mae(errors) == 1.75
    assert rmse(np.zeros(3)) == mae(np.zeros(3)) == 0


_values = st.lists(
    st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(0, 5)), min_size=1, max_size=40
)


def _columns(values: list[tuple[float, float, int]]) -> tuple[Floats, Floats, Ints]:
    ours, theirs, users = (np.array(column) for column in zip(*values, strict=True))
    return ours, theirs, users


@LAW
@given(_values)
def test_the_bounds_hold_the_difference(values: list[tuple[float, float, int]]) -> None:
    ours, theirs, users = _columns(values)
    of_means = paired_mean_difference(ours, theirs)
    assert of_means.difference == pytest.approx(ours.mean() - theirs.mean(), abs=1e-12)
    of_roots = paired_rmse_difference(ours, theirs, users)
    assert of_roots.difference == pytest.approx(math.sqrt(ours.mean()) - math.sqrt(theirs.mean()))
    for found in (of_means, of_roots):
        assert found.low - 1e-9 <= found.difference <= found.high + 1e-9


@LAW
@given(_values)
def test_no_difference_has_no_width(values: list[tuple[float, float, int]]) -> None:
    ours, _, users = _columns(values)
    assert paired_mean_difference(ours, ours) == Interval(0, 0, 0)
    assert paired_rmse_difference(ours, ours, users) == Interval(0, 0, 0)
    assert paired_mae_difference(ours, ours, users) == Interval(0, 0, 0)


def test_a_constant_difference_is_its_own_bounds() -> None:
    theirs = np.random.default_rng(0).random(50)
    found = paired_mean_difference(theirs + 0.25, theirs)
    assert [found.difference, found.low, found.high] == pytest.approx([0.25] * 3)
    users = np.arange(50) % 7
    found = paired_rmse_difference(np.full(50, 4.0), np.full(50, 1.0), users)
    assert [found.difference, found.low, found.high] == pytest.approx([1.0] * 3)


def test_the_bounds_are_those_of_the_normal_distribution_where_there_are_many_users() -> None:
    ours, theirs = np.random.default_rng(3).normal(size=(2, 2000))
    found = paired_mean_difference(ours, theirs)
    assert found.margin == pytest.approx(1.96 * (ours - theirs).std() / math.sqrt(2000), rel=0.07)
    apart = paired_mean_difference(ours, np.zeros(2000))
    together = paired_mean_difference(ours, ours + 0.01 * theirs)
    assert together.margin < apart.margin / 10  # users are paired


def test_whole_users_are_resampled() -> None:
    ours = np.array([1.0, 9.0, 9.0, 9.0])
    users = np.array([8, 2, 2, 2])
    found = paired_rmse_difference(ours, np.zeros(4), users)
    # Drawn are twice the first, twice the second, or both: roots 1, 3 and that of 28/4.
    assert [found.difference, found.low, found.high] == pytest.approx([math.sqrt(7), 1, 3])
    alone = paired_rmse_difference(ours, np.zeros(4), np.zeros(4, dtype=np.int64))
    assert [alone.low, alone.high] == pytest.approx([math.sqrt(7)] * 2)
    found = paired_mae_difference(ours, np.zeros(4), users)
    assert [found.difference, found.low, found.high] == pytest.approx([7, 1, 9])


def test_the_order_of_ratings_does_not_matter() -> None:
    generator = np.random.default_rng(0)
    ours, theirs = generator.random((2, 200))
    users = generator.integers(0, 20, 200)
    order = generator.permutation(200)
    found = paired_rmse_difference(ours, theirs, users)
    again = paired_rmse_difference(ours[order], theirs[order], users[order])
    assert [again.difference, again.low, again.high] == pytest.approx(
        [found.difference, found.low, found.high]
    )


def test_intervals_are_the_same_each_time_and_turn_with_the_sides() -> None:
    ours, theirs = np.random.default_rng(0).random((2, 30))
    users = np.arange(30) // 3
    found = paired_mean_difference(ours, theirs)
    assert paired_mean_difference(ours, theirs) == found
    assert paired_rmse_difference(ours, theirs, users) == paired_rmse_difference(ours, theirs, users)
    turned = paired_mean_difference(theirs, ours)
    assert [turned.low, turned.high] == pytest.approx([-found.high, -found.low])


def test_an_interval_says_its_margin_and_its_signs() -> None:
    interval = Interval(difference=0.01234, low=-0.001, high=0.0203)
    assert interval.margin == pytest.approx(0.01065)
    assert str(interval) == "+0.0123 [-0.0010, +0.0203]"
