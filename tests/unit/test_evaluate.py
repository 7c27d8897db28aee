"""A method is judged by what the users did afterwards, and by nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import LAW
from training import evaluate
from training.evaluate import MRR, NDCG, RECALL, Judged, K, judge
from training.interactions import Interactions
from training.methods import Fitted, Method
from training.pipeline import RANKERS, RATERS
from training.splits import Fold, Protocol, temporal
from twotower.arrays import FeatureRows, Floats, Ints
from twotower.errors import TrainingError

_SCALE = (1.0, 5.0)
_MOVIES = 14
_FOUND = {  # by user: movies from the best to the worst, those told in front
    0: [0, 1, 2, 5, 3, 6, 7, 8, 9, 10, 11, 12, 13, 4],
    2: [3, 2, 1, 0, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13],
    4: [13, 12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
}


def _interactions(rows: list[tuple[int, int, float]]) -> Interactions:
    users, movies, ratings = (np.array(column) for column in zip(*rows, strict=True))
    times = np.arange(len(rows), dtype=np.int64)
    return Interactions(users, movies, ratings.astype(np.float64), times, 5, _MOVIES, allowed=_SCALE)


_TRAIN = _interactions([(1, 3, 3.0), (1, 12, 1.0), (3, 3, 5.0), (3, 2, 2.0), (3, 0, 4.0)])
_HISTORY = _interactions([(0, 0, 5.0), (0, 1, 1.0), (2, 3, 3.0), (4, 13, 4.0), (4, 12, 4.0)])
_TEST = _interactions([(0, 3, 4.0), (0, 2, 5.0), (0, 4, 3.5), (2, 9, 2.0), (4, 11, 4.5)])
_GROUPS = np.array(["old", "old", "new", "old", "new"])


def _protocol(*folds: Fold, ranked: bool = True, rated: bool = True) -> Protocol:
    return Protocol("temporal", folds or (Fold(_TRAIN, _HISTORY, _TEST),), "", _GROUPS, ranked, rated)


def _scorer(found: Mapping[int, list[int]]) -> FeatureRows:
    """Scores that rank each user's movies so: (users, movies)."""
    scores = np.zeros((5, _MOVIES), dtype=np.float32)
    for user, best in found.items():
        scores[user, best] = np.arange(_MOVIES, 0, -1)
    return scores


def _told(scores: FeatureRows | None = None, ratings: float | None = None) -> Method:
    """A method that knows beforehand what it answers, the same rating to all."""

    def method(_: Fold) -> Fitted:
        def given_scores(users: Ints) -> FeatureRows:
            assert scores is not None
            return scores[users]

        def given_ratings(users: Ints, movies: Ints) -> Floats:
            assert ratings is not None
            assert len(users) == len(movies)
            return np.full(len(users), ratings)

        return Fitted(
            None if scores is None else given_scores, None if ratings is None else given_ratings
        )

    return method


@pytest.fixture(scope="module")
def judged() -> Judged:
    return judge(_protocol(), _told(_scorer(_FOUND), ratings=3.0))


def test_rankings_are_judged_by_what_was_liked_afterwards(judged: Judged) -> None:
    first, _, last = judged.users[[NDCG, RECALL, MRR]].to_numpy()
    gained, ideal = 1 + 1 / math.log2(4), 1 + 1 / math.log2(3)  # at places 1 and 3, of two movies
    assert first == pytest.approx([gained / ideal, 1, 1])
    assert last.tolist() == [0, 0, 0]  # its only one is at place 12


def test_who_liked_nothing_afterwards_does_not_count(judged: Judged) -> None:
    assert judged.users["user_row"].tolist() == [0, 2, 4]
    for measure in (NDCG, RECALL, MRR):
        assert judged.users[measure].isna().tolist() == [False, True, False]
        assert judged.users[measure].mean() == pytest.approx(judged.users[measure][0] / 2)


def test_users_come_with_how_much_was_told_and_their_group(judged: Judged) -> None:
    assert judged.users["history"].tolist() == [2, 1, 2]
    assert judged.users["group"].tolist() == ["old", "new", "new"]


def test_likes_come_with_how_often_the_movie_was_rated(judged: Judged) -> None:
    likes = sorted(judged.likes[["popularity", "found"]].itertuples(index=False, name=None))
    assert likes == [(0, False), (1, True), (2, True)]


def test_what_is_shown_is_the_ten_best_that_were_not_told(judged: Judged) -> None:
    rows = judged.shown["movie_row"].to_numpy().reshape(3, K)
    assert rows.tolist() == [_FOUND[0][2:12], _FOUND[2][1:11], _FOUND[4][2:12]]
    learned_from = 2
    popularity = np.bincount(_TRAIN.movie_rows, minlength=_MOVIES)
    surprise = -np.log2((popularity[rows.ravel()] + 1) / (learned_from + 1))
    assert judged.shown["surprise"].to_numpy() == pytest.approx(surprise)


def test_ratings_are_kept_beside_those_predicted(judged: Judged) -> None:
    assert judged.ratings["user_row"].tolist() == [0, 0, 0, 2, 4]
    assert judged.ratings["rating"].tolist() == [4.0, 5.0, 3.5, 2.0, 4.5]
    assert judged.ratings["predicted"].tolist() == [3.0] * 5
    assert judged.ratings["popularity"].tolist() == [2, 1, 0, 0, 0]
    assert judged.ratings["group"].tolist() == ["old", "old", "old", "new", "new"]


@pytest.mark.parametrize(("predicted", "kept"), [(9.0, 5.0), (-9.0, 1.0), (4.99, 4.99)])
def test_predictions_are_clipped_to_the_scale(predicted: float, kept: float) -> None:
    judged = judge(_protocol(), _told(ratings=predicted))
    assert judged.ratings["predicted"].tolist() == [kept] * 5


@pytest.mark.parametrize("ranked", [True, False])
@pytest.mark.parametrize("rated", [True, False])
def test_a_protocol_says_what_is_judged(*, ranked: bool, rated: bool) -> None:
    protocol = _protocol(ranked=ranked, rated=rated)
    judged = judge(protocol, _told(_scorer(_FOUND), ratings=3.0))
    lengths = [len(table) for table in (judged.users, judged.likes, judged.shown, judged.ratings)]
    assert lengths == [3 * ranked, 3 * ranked, 30 * ranked, 5 * rated]


def test_a_method_is_judged_by_what_it_can_do() -> None:
    only_ranks = judge(_protocol(), _told(_scorer(_FOUND)))
    assert (len(only_ranks.users), len(only_ranks.ratings)) == (3, 0)
    only_rates = judge(_protocol(), _told(ratings=3.0))
    assert (len(only_rates.users), len(only_rates.ratings)) == (0, 5)
    for judged in (only_ranks, only_rates):
        assert {"user_row", "history", NDCG, RECALL, MRR, "group"} <= set(judged.users)
        assert {"popularity", "found"} <= set(judged.likes)
        assert {"movie_row", "surprise"} <= set(judged.shown)
        assert {"user_row", "group", "popularity", "rating", "predicted"} <= set(judged.ratings)


def test_folds_are_judged_apart_and_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 10.0, 14.0])
    monkeypatch.setattr(evaluate, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    half = [_TEST.take(_TEST.user_rows == user) for user in (4, 0)]
    folds = [Fold(_TRAIN, _HISTORY, test) for test in half]
    seen: list[Fold] = []

    def method(fold: Fold) -> Fitted:
        seen.append(fold)
        return _told(_scorer(_FOUND), ratings=len(seen))(fold)

    judged = judge(_protocol(*folds), method)
    assert [fold is given for fold, given in zip(seen, folds, strict=True)] == [True, True]
    assert judged.users["user_row"].tolist() == [4, 0]
    assert judged.users.index.tolist() == [0, 1]
    assert judged.ratings["predicted"].tolist() == [1.0, 2.0, 2.0, 2.0]
    assert judged.train_seconds == 3


def test_a_fold_in_which_nobody_liked_anything_is_no_fault() -> None:
    folds = [Fold(_TRAIN, _HISTORY, _TEST.take(_TEST.user_rows == user)) for user in (0, 2)]
    judged = judge(_protocol(*folds), _told(_scorer(_FOUND)))
    assert judged.users[NDCG].isna().tolist() == [False, True]
    assert len(judged.likes) == 2


@st.composite
def _folds(draw: st.DrawFn) -> Fold:
    """A fold of five users, to each of whom ten movies or more can be shown."""
    told: list[tuple[int, int, float]] = []
    judged: list[tuple[int, int, float]] = []
    for user in range(5):
        own = draw(st.lists(st.integers(0, _MOVIES - 1), min_size=1, max_size=4, unique=True))
        left = st.sampled_from([movie for movie in range(_MOVIES) if movie not in own])
        later = draw(st.lists(left, min_size=user == 0, max_size=5, unique=True))
        told += [(user, movie, 4.0) for movie in own]
        judged += [(user, movie, draw(st.sampled_from([3.5, 4.0]))) for movie in later]
    history = _interactions(told)
    return Fold(history, history, _interactions(judged))


@LAW
@given(_folds(), st.integers(0, 100))
def test_what_was_told_is_never_shown(fold: Fold, seed: int) -> None:
    scores = np.random.default_rng(seed).integers(0, 4, (5, _MOVIES)).astype(np.float32)
    judged = judge(_protocol(fold), _told(scores))
    shown = judged.shown["movie_row"].to_numpy().reshape(-1, K)
    asking = judged.users["user_row"].tolist()
    assert asking == sorted(set(fold.test.user_rows.tolist()))
    for user, row in zip(asking, shown.tolist(), strict=True):
        told = fold.history.movie_rows[fold.history.user_rows == user]
        assert not set(row) & set(told.tolist())
        assert len(set(row)) == K
        left = np.delete(scores[user], told)
        assert sorted(scores[user, row], reverse=True) == sorted(left, reverse=True)[:K]


def test_a_told_movie_is_not_shown_where_no_other_is_left() -> None:
    told = [(0, movie, 3.0) for movie in range(_MOVIES - 2)]
    fold = Fold(_TRAIN, _interactions(told), _interactions([(0, _MOVIES - 1, 5.0)]))
    scores = np.tile(np.arange(_MOVIES, 0, -1, dtype=np.float32), (5, 1))
    judged = judge(_protocol(fold), _told(scores))
    assert judged.shown["movie_row"].tolist() == [_MOVIES - 2, _MOVIES - 1]
    assert judged.users[MRR].tolist() == [0.5]
    assert judged.likes["found"].tolist() == [True]


def test_a_prediction_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(TrainingError, match="5 of 5 predicted ratings are not numbers"):
        judge(_protocol(), _told(ratings=math.nan))


def test_many_users_are_judged_as_few_are(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = judge(_protocol(), _told(_scorer(_FOUND)))
    monkeypatch.setattr(evaluate, "_USERS_AT_ONCE", 2)
    apart = judge(_protocol(), _told(_scorer(_FOUND)))
    for name in ("users", "likes", "shown"):
        assert getattr(whole, name).equals(getattr(apart, name))


def test_scores_are_not_changed_by_being_judged() -> None:
    scores = _scorer(_FOUND)
    kept = scores.copy()
    judge(_protocol(), lambda _: Fitted(scores=lambda users: scores[: len(users)]))
    assert (scores == kept).all()


def test_every_baseline_can_be_judged() -> None:
    generator = np.random.default_rng(0)
    pairs = np.argwhere(generator.random((5, _MOVIES)) < 0.8)
    rows = [(user, movie, float(generator.integers(1, 6))) for user, movie in pairs.tolist()]
    protocol = temporal(_interactions(rows))
    for name, method in {**RANKERS, **RATERS}.items():
        judged = judge(protocol, method)
        assert bool(len(judged.ratings)) == (name in RATERS), name
        assert bool(len(judged.users)) == (name in RANKERS), name
        assert judged.ratings["predicted"].between(*_SCALE).all()
        assert judged.train_seconds > 0
