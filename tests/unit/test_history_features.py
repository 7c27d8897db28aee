"""How ratings are encoded one by one: what each counts for, and the columns that come of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from builders import GENRES, make_bundle
from twotower.arrays import Floats
from twotower.factors import MovieFactors
from twotower.features import Fading, HistorySpec, UserEncoder, seconds_away, time_away
from twotower.histories import NO_RATINGS, Histories
from twotower.projection import SoftmaxProjection
from twotower.statistics import UserStatistics

DAY = 86_400
BUNDLE = make_bundle()
FLAGS = BUNDLE.catalogue.genre_matrix(GENRES)
MOVIES, LANDMARKS, FACTORS = len(FLAGS), 5, 3
PRECISION = np.diag([1.0, 2.0, 3.0])
HISTORY = HistorySpec(
    liked=4.0,
    disliked=3.0,
    neutral_weight=0.5,
    disliked_weight=0.3,
    successors=Fading(half_life=2.0, floor=0.1),
    genres=Fading(half_life=3.0, floor=0.2),
    ratings=Fading(half_life=4.0, floor=0.5),
    temperature=0.5,
    ridge=0.01,
    usual_shares=(0.2, 0.3, 0.4, 0.1),
    factors=FACTORS,
)


def _tables() -> MovieFactors:
    """Random tables; the movies after the sixth are liked too seldom to have rows of their own."""
    random = np.random.default_rng(0)
    rows = random.normal(size=(7, LANDMARKS)).astype(np.float32)
    rows[0] = 0.0
    return MovieFactors(
        places=np.array([1, 2, 3, 4, 5, 6, *[0] * (MOVIES - 6)]),
        successors=rows,
        landmark_vectors=random.normal(size=(LANDMARKS, 3)).astype(np.float32),
        base_ratings=random.normal(size=MOVIES).astype(np.float32),
        rating_factors=random.normal(size=(MOVIES, FACTORS)).astype(np.float32),
        rating_precision=PRECISION.astype(np.float32),
    )


TABLES = _tables()
SPEC = BUNDLE.features.model_copy(update={"history": HISTORY})
ENCODER = UserEncoder(SPEC, FLAGS, TABLES)
STATISTICS = slice(FACTORS, FACTORS + SPEC.user_width)
TOLD = slice(STATISTICS.stop, STATISTICS.stop + SPEC.user_width)
VECTOR = slice(TOLD.stop, TOLD.stop + 3)


def _history(rated: list[tuple[int, float]], times: list[int] | None = None, away: int = 0) -> Histories:
    """One user's ratings by movie row, oldest first, as seen so many seconds after the last one."""
    rows, ratings = np.array(rated or np.empty((0, 2))).T
    timestamps = np.array(times or range(len(rated)), dtype=np.int64)
    asked_at = np.array([max(timestamps, default=0) + away])
    return Histories.in_order(
        np.array([0, len(rated)]), rows.astype(np.int64), ratings, timestamps, asked_at
    )


def _random_histories() -> list[Histories]:
    """Of no rating to forty, of which some come at the same time, seen up to two days later."""
    random = np.random.default_rng(1)
    return [
        _history(
            [(int(random.integers(MOVIES)), int(random.integers(1, 11)) / 2) for _ in range(count)],
            np.sort(random.integers(0, 30, count)).tolist(),
            int(random.integers(0, 2 * DAY)),
        )
        for count in (0, 1, *random.integers(2, 41, 30).tolist())
    ]


HISTORIES = _random_histories()
EVERY = Histories.join(HISTORIES)


@pytest.mark.parametrize(("half_life", "floor"), [(1.0, 0.01), (4.0, 0.2), (100.0, 1.0)])
def test_weights_fall_from_one_half_way_to_the_floor_each_half_life(
    half_life: float, floor: float
) -> None:
    weights = Fading(half_life=half_life, floor=floor).weights(half_life * np.array([0, 1, 2, 1e6]))
    assert_allclose(weights, [1, (1 + floor) / 2, (1 + 3 * floor) / 4, floor], atol=1e-12)


def test_a_like_counts_whole_and_what_is_none_for_less() -> None:
    values = HISTORY.values(np.array([0.5, 2.5, 3.0, 3.5, 4.0, 5.0]))
    assert values.tolist() == [0.3, 0.3, 0.5, 0.5, 1, 1]


@pytest.mark.parametrize("seconds", [DAY, 7 * DAY])
def test_after_a_day_old_ratings_count_as_new_ones_for_what_comes_next(seconds: int) -> None:
    returned = replace(EVERY, idle=np.full(len(EVERY), float(seconds)))
    assert_allclose(HISTORY.successor_weights(returned), HISTORY.values(EVERY.ratings))


def test_until_then_they_fade_the_less_the_longer_the_user_is_away() -> None:
    values, away = HISTORY.values(EVERY.ratings), time_away(EVERY.idle)[EVERY.users]
    faded = HISTORY.successors.weights(EVERY.ages)
    assert_allclose(HISTORY.successor_weights(EVERY), values * (faded + away * (1 - faded)))


def test_time_away_runs_from_just_now_to_a_day_and_can_be_undone() -> None:
    seconds = np.linspace(0, DAY, 50)
    away = time_away(seconds)
    assert (away[0], away[-1], *time_away(np.array([9.0 * DAY]))) == (0, 1, 1)
    assert_allclose(seconds_away(away), seconds, atol=1e-6)
    assert_allclose(time_away(seconds_away(np.linspace(0, 1, 50))), np.linspace(0, 1, 50), atol=1e-12)


def _genre_shares(history: Histories) -> Floats:
    total, sums = 0.0, np.zeros(len(GENRES))
    for row, rating, age in zip(history.movie_rows, history.ratings, history.ages, strict=True):
        weight = 0.2 + 0.8 * 0.5 ** (age / 3.0) if rating >= HISTORY.liked else 0.0
        total += weight
        sums += weight * FLAGS[row]
    return sums / total - HISTORY.usual_shares if total else sums


def test_genre_shares_are_of_likes_alone_and_less_the_usual() -> None:
    histories = [*HISTORIES, _history([(0, 1.0), (1, 3.5)])]
    shares = HISTORY.genre_shares(Histories.join(histories), FLAGS)
    assert_allclose(shares, [_genre_shares(history) for history in histories], atol=1e-12)
    assert not shares[-1].any()


def _own_factors(history: Histories) -> Floats:
    gram, moment = PRECISION.copy(), np.zeros(FACTORS)
    for row, rating, age in zip(history.movie_rows, history.ratings, history.ages, strict=True):
        weight = 0.5 + 0.5 * 0.5 ** (age / 4.0)
        factors = TABLES.rating_factors[row].astype(np.float64)
        gram += weight * np.outer(factors, factors)
        moment += weight * factors * (rating - SPEC.global_mean - TABLES.base_ratings[row])
    return np.linalg.solve(gram, moment).astype(np.float64)


def _vector_and_length(history: Histories) -> list[float]:
    total, rated = np.zeros(LANDMARKS), np.zeros(LANDMARKS, dtype=np.bool_)
    for weight, row in zip(HISTORY.successor_weights(history), history.movie_rows, strict=True):
        total += weight * TABLES.successors[TABLES.places[row]]
        rated |= np.arange(LANDMARKS) == TABLES.places[row] - 1
    genres = FLAGS[:LANDMARKS] / np.sqrt(np.maximum(FLAGS[:LANDMARKS].sum(axis=1, keepdims=True), 1))
    scores = total / max(total.mean(), 0.05 * np.abs(total).max(), 1e-6) + genres @ _genre_shares(
        history
    )
    projection = SoftmaxProjection(TABLES.landmark_vectors, HISTORY.temperature, HISTORY.ridge)
    (vector,) = projection.nearest(scores[None].astype(np.float32), rated[None])
    return [*vector, float(np.linalg.norm(vector))]


@pytest.mark.parametrize("history", HISTORIES)
def test_a_row_holds_own_factors_statistics_vector_shares_and_time_away(history: Histories) -> None:
    (row,) = ENCODER.encode(history)
    statistics = UserEncoder(BUNDLE.features, FLAGS).encode(history)[0]
    told = statistics * (np.arange(len(statistics)) == 0) if len(history.ratings) else statistics
    tail = *_vector_and_length(history), *_genre_shares(history), *time_away(history.idle)
    expected = [*_own_factors(history), *statistics, *told, *tail]
    assert_allclose(row, expected, rtol=1e-3, atol=1e-4)
    assert row.dtype == np.float32
    assert_array_equal(row[ENCODER.columns.rating], ENCODER.encode_for_rating(history)[0])
    assert ENCODER.columns.retrieval == slice(STATISTICS.stop, len(row))
    assert ENCODER.columns.width == len(row)


def test_a_batch_encodes_as_its_users_alone() -> None:
    alone = np.concatenate([ENCODER.encode(history) for history in HISTORIES])
    assert_array_equal(ENCODER.encode_for_rating(EVERY), alone[:, ENCODER.columns.rating])
    assert_array_equal(ENCODER.encode(EVERY), alone)


@pytest.mark.parametrize("rating", [1.0, 5.0])
def test_one_more_rating_changes_own_factors_and_the_vector(rating: float) -> None:
    one = Histories(
        np.array([0, 1]), np.zeros(1, np.int64), np.array([rating]), np.zeros(1), np.zeros(1)
    )
    some_left = [history for history in HISTORIES if len({3, 4} - {*history.movie_rows.tolist()}) == 2]
    assert len(some_left) > 2  # where all landmarks are rated, there is no vector left to change
    for history in some_left:
        older = replace(history, ages=history.ages + 1)
        both = replace(Histories.join([older, one]), offsets=history.offsets + one.offsets)
        changed = ENCODER.encode(replace(both, idle=history.idle)) != ENCODER.encode(history)
        assert changed[0, :FACTORS].all()
        assert changed[0, VECTOR].all()


def test_the_order_of_ratings_matters_where_they_come_at_different_times() -> None:
    rated = [(0, 5.0), (1, 4.0), (2, 1.0)]
    forth, back = (ENCODER.encode(_history(order)) for order in (rated, rated[::-1]))
    assert np.abs(forth - back)[0, VECTOR].max() > 0.1
    forth, back = (ENCODER.encode(_history(order, times=[7] * 3)) for order in (rated, rated[::-1]))
    assert_allclose(forth, back, rtol=1e-4, atol=1e-5)


def test_a_stranger_has_finite_features_and_no_factors() -> None:
    (row,) = ENCODER.encode(NO_RATINGS)
    assert np.isfinite(row).all()
    assert not row[ENCODER.columns.rating].any()


def test_aggregates_stand_in_for_the_statistics_alone() -> None:
    told = UserStatistics(np.array([4.0]), np.array([2.0]), np.array([[2.5, np.nan, 1.0, np.nan]]))
    stranger, described = ENCODER.encode(Histories.join([NO_RATINGS] * 2), {1: told})
    for columns in (STATISTICS, TOLD):
        assert_array_equal(described[columns], SPEC.encode_users(told)[0])
        described[columns] = stranger[columns]
    assert_array_equal(described, stranger)
