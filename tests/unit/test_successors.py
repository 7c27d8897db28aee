"""Which movies follow which, against plain loops over pairs of ratings and one regression at a time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from builders import LAW
from training.config import HybridConfig, load_recipe
from training.successors import LONGEST_WINDOW, Pairs, Scorer, longest_window
from twotower.arrays import FeatureRows, Ints
from twotower.errors import TrainingError
from twotower.features import HistorySpec, best_scores, genre_directions
from twotower.histories import NO_RATINGS, Histories


def _shipped() -> HybridConfig:
    hybrid = load_recipe("hybrid").hybrid
    assert hybrid
    return hybrid


MOVIES, USERS = 12, 30
KEPT = np.array([0, 1, 3, 4, 7, 8, 11])
ALL = np.arange(USERS)
GENRES = np.random.default_rng(0).random((MOVIES, 3)) < 0.5
CONFIG = _shipped().retrieval.model_copy(update={"near": 2.0})  # these histories are short
RULES = _shipped().history
HISTORY = HistorySpec(**RULES.model_dump(), usual_shares=(0.2, 0.5, 0.3), factors=1)


def _histories() -> Histories:
    """Of no movie to all of them, some rated at the same time, seen up to a day later."""
    random = np.random.default_rng(1)
    counts = random.integers(0, MOVIES + 1, USERS)
    return Histories.in_order(
        np.cumsum([0, *counts]),
        np.concatenate([random.permutation(MOVIES)[:count] for count in counts]),
        random.integers(1, 11, counts.sum()) / 2,
        np.concatenate([np.sort(random.integers(0, 8, count)) for count in counts]),
        random.integers(8, 100_000, USERS),
    )


HISTORIES = _histories()


def _pairs(users: Ints) -> Pairs:
    return Pairs.of(HISTORIES, users, KEPT, HISTORY, CONFIG)


def _target(rating: float) -> float:
    if rating >= HISTORY.liked:
        return 1.0
    return CONFIG.neutral_target if rating >= HISTORY.disliked else 0.0


@pytest.mark.parametrize("users", [ALL, ALL[::3], ALL[:0]], ids=["all", "some", "none"])
def test_pairs_are_summed_over_every_two_ratings_of_a_user(users: Ints) -> None:
    gram, cross = np.zeros((2, MOVIES, MOVIES))
    values = HISTORY.values(HISTORIES.ratings)
    for user in users:
        span = range(HISTORIES.offsets[user], HISTORIES.offsets[user + 1])
        for first, second in ((first, second) for first in span for second in span):
            later = HISTORIES.ages[first] - HISTORIES.ages[second]
            near = CONFIG.far_weight + (1 - CONFIG.far_weight) * np.exp(-abs(later) / CONFIG.near)
            forward = CONFIG.forward * (1 if later > 0 else -1 if later < 0 else 0)
            where = HISTORIES.movie_rows[first], HISTORIES.movie_rows[second]
            gram[where] += values[first] * near * values[second]
            cross[where] += values[first] * near * (1 + forward) * _target(HISTORIES.ratings[second])
    found, kept = _pairs(users), np.ix_(KEPT, KEPT)
    assert_allclose(found.gram, gram[kept], rtol=1e-5)
    assert_allclose(found.cross, cross[kept], rtol=1e-5)
    assert found.gram.dtype == found.cross.dtype == np.float32


@pytest.mark.parametrize("window", [1, 2, 5])
def test_of_long_histories_pairs_are_summed_within_equal_parts(window: int) -> None:
    """As if each part were a user's who has the ratings' ages."""
    bounds = [0]
    for start, stop in pairwise(HISTORIES.offsets.tolist()):
        parts = -(-(stop - start) // window)
        bounds += [start + (stop - start) * part // parts for part in range(1, parts + 1)]
    assert np.diff(bounds).max() <= window
    apart = replace(HISTORIES, offsets=np.array(bounds), idle=np.zeros(len(bounds) - 1))
    expected = Pairs.of(apart, np.arange(len(apart)), KEPT, HISTORY, CONFIG)
    found = Pairs.of(HISTORIES, ALL, KEPT, HISTORY, CONFIG, window=window)
    assert_allclose(found.gram, expected.gram, rtol=1e-5)
    assert_allclose(found.cross, expected.cross, rtol=1e-5)


@LAW
@given(st.lists(st.integers(0, 9_000), min_size=1, max_size=30), st.integers(0, 10**8))
def test_the_longest_window_is_that_of_no_more_pairs_than_asked_for(
    counts: list[int], most: int
) -> None:
    def pairs(window: int) -> float:
        return sum(count * count / max(-(-count // window), 1) for count in counts)

    window = longest_window(np.array(counts), most)
    assert 1 <= window <= LONGEST_WINDOW
    assert window == 1 or pairs(window) <= most + 1
    assert window == LONGEST_WINDOW or pairs(window + 1) > most


def test_parts_add_up_to_all_and_can_be_taken_out_again() -> None:
    parts = [_pairs(users) for users in np.array_split(ALL, 3)]
    every, rest = Pairs.total(parts), Pairs.total(parts).without(parts[1])
    for found, users in ((every, ALL), (rest, np.r_[ALL[:10], ALL[20:]]), (parts[0], ALL[:10])):
        assert_allclose(found.gram, _pairs(users).gram, atol=1e-4)
        assert_allclose(found.cross, _pairs(users).cross, atol=1e-4)


@pytest.mark.parametrize("penalty", [1.0, 30.0])
def test_a_movie_is_regressed_on_all_others_and_not_on_itself(penalty: float) -> None:
    pairs = _pairs(ALL)
    table = pairs.solve(penalty)
    penalised = pairs.gram.astype(np.float64) + penalty * np.eye(len(KEPT))
    for movie in range(len(KEPT)):
        others = np.arange(len(KEPT)) != movie
        expected = np.linalg.solve(penalised[np.ix_(others, others)], pairs.cross[others, movie])
        assert_allclose(table[others, movie], expected, rtol=1e-3, atol=1e-4)
    assert not np.diag(table).any()
    assert table.dtype == np.float32


def test_regressions_that_have_no_solution_are_told() -> None:
    pairs = _pairs(ALL)
    with pytest.raises(TrainingError, match="cannot be solved at a penalty of 1"):
        replace(pairs, gram=-pairs.gram).solve(1.0)


SCORER = Scorer(KEPT, _pairs(ALL).solve(1.0), genre_directions(GENRES)[KEPT], HISTORY)


def test_scores_are_what_follows_the_movies_rated_and_the_genres_liked() -> None:
    weights = HISTORY.successor_weights(HISTORIES)
    shares = HISTORY.genre_shares(HISTORIES, GENRES)
    scores = SCORER.scores(HISTORIES, GENRES)
    place = {movie: place for place, movie in enumerate(KEPT.tolist())}
    for user in ALL:
        raw = np.zeros(len(KEPT))
        for rating in range(HISTORIES.offsets[user], HISTORIES.offsets[user + 1]):
            movie = int(HISTORIES.movie_rows[rating])
            raw += weights[rating] * SCORER.table[place[movie]] if movie in place else 0.0
        liked = [shares[user] @ GENRES[movie] / max(GENRES[movie].sum(), 1) ** 0.5 for movie in KEPT]
        assert_allclose(
            scores[user],
            raw / max(raw.mean(), 0.05 * np.abs(raw).max(), 1e-6) + liked,
            rtol=1e-3,
            atol=1e-4,
        )


def test_nothing_follows_where_no_movie_kept_is_rated() -> None:
    assert not SCORER.scores(NO_RATINGS, GENRES).any()
    others = np.setdiff1d(np.arange(MOVIES), KEPT)
    elsewhere = replace(HISTORIES, movie_rows=np.resize(others, len(HISTORIES.movie_rows)))
    assert not SCORER.follow(elsewhere, MOVIES).any()


@pytest.mark.parametrize("movies", [1, 99, 100, 250])
def test_the_best_are_a_hundred_or_all_there_are_and_can_be_divided_by(movies: int) -> None:
    scores: FeatureRows = np.random.default_rng(2).random((5, movies)).astype(np.float32)
    expected = [np.mean(sorted(row, reverse=True)[:100]) for row in scores.tolist()]
    assert_allclose(best_scores(scores)[:, 0], expected, rtol=1e-5)
    assert (best_scores(np.array([[0, 0], [-1, -2]], dtype=np.float32)) > 0).all()
