"""The baselines give the values their formulas do, and look at nothing they are judged by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from training import baselines
from training.baselines import bias, ease, hgb, ials, item_knn, mean, popular, svd
from training.content import MovieContent
from training.interactions import Interactions
from training.methods import Fitted, Method
from training.pipeline import BASELINES, RANKERS, RATERS
from training.splits import Fold
from training.stars import LIKED
from twotower.arrays import FeatureRows, Floats

_SCALE = (0.5, 5.0)
_USERS, _MORE_USERS, _MOVIES = 24, 60, 40
_CONTENT = MovieContent(
    vocabulary=("Comedy", "Drama"),
    genres=np.stack([np.arange(_MOVIES) % 2 == 0, np.arange(_MOVIES) % 2 == 1], axis=1),
    years=np.linspace(1960, 2000, _MOVIES),
)
_METHODS: dict[str, Method] = {"mean": mean, **RANKERS, **RATERS, "hgb": hgb(_CONTENT)}


def _ratings(rows: list[tuple[int, int, float]], users: int = 3, movies: int = 3) -> Interactions:
    user_rows, movie_rows, ratings = (np.array(column) for column in zip(*rows, strict=True))
    times = np.zeros(len(rows), np.int64)
    return Interactions(user_rows, movie_rows, ratings.astype(np.float64), times, users, movies)


def _fold(train: Interactions, history: Interactions | None = None) -> Fold:
    """A fold whose test part is empty: no method may need it."""
    nothing = train.take(np.zeros(0, np.int64))
    return Fold(train, train if history is None else history, nothing)


def _predicted(fitted: Fitted, pairs: list[tuple[int, int]]) -> Floats:
    assert fitted.ratings
    users, movies = (np.array(column) for column in zip(*pairs, strict=True))
    return fitted.ratings(users, movies)


def _scores(fitted: Fitted, users: list[int]) -> FeatureRows:
    assert fitted.scores
    return fitted.scores(np.array(users))


_TRAIN = _ratings([(0, 0, 5.0), (0, 1, 3.0), (1, 0, 4.0), (1, 1, 2.0)])


def test_the_mean_is_that_of_all_training_ratings() -> None:
    fitted = mean(_fold(_TRAIN, _ratings([(2, 2, 1.0)])))
    assert _predicted(fitted, [(2, 2), (0, 0)]).tolist() == [3.5, 3.5]
    assert fitted.scores is None


def test_the_biases_follow_their_formula() -> None:
    movie_bias = (1.5 + 0.5) / 7
    user_bias = ((1.5 - movie_bias) + (-0.5 + movie_bias)) / 7  # the other movie's bias is opposite
    predicted = _predicted(bias(_fold(_TRAIN)), [(0, 0), (2, 0), (2, 2)])
    assert predicted == pytest.approx([3.5 + movie_bias + user_bias, 3.5 + movie_bias, 3.5])


def test_the_bias_of_a_user_never_learned_from_is_of_what_was_told() -> None:
    movie_bias = (1.5 + 0.5) / 7
    told = _ratings([(2, 0, 5.0), (2, 2, 2.0)])
    user_bias = (5.0 - 3.5 - movie_bias + 2.0 - 3.5) / 7
    predicted = _predicted(bias(_fold(_TRAIN, told)), [(2, 0), (2, 2), (0, 0)])
    assert predicted == pytest.approx([3.5 + movie_bias + user_bias, 3.5 + user_bias, 3.5 + movie_bias])


def test_svd_knows_a_stranger_by_the_mean() -> None:
    assert _predicted(svd(_fold(_TRAIN)), [(2, 2)]) == pytest.approx([3.5])


def test_svd_learns_the_same_on_any_scale() -> None:
    percent = replace(_TRAIN, ratings=_TRAIN.ratings * 20, allowed=(0.0, 100.0))
    pairs = [(user, movie) for user in range(2) for movie in range(2)]
    stars, hundreds = (_predicted(svd(_fold(train)), pairs) for train in (_TRAIN, percent))
    assert hundreds == pytest.approx(stars * 20)
    assert np.ptp(stars) > 0.5


def test_likes_are_those_of_the_scale() -> None:
    tens = replace(_TRAIN, ratings=_TRAIN.ratings * 2, allowed=(1.0, 10.0))
    assert tens.liked.tolist() == _TRAIN.liked.tolist() == [True, False, True, False]
    assert (_scores(popular(_fold(tens)), [0]) == _scores(popular(_fold(_TRAIN)), [0])).all()


def test_svd_learns_from_what_is_told_of_users_never_learned_from() -> None:
    likes = _ratings([(2, 0, 5.0), (2, 1, 5.0), (3, 0, 1.0), (3, 1, 1.0)], users=5)
    train = replace(_TRAIN, users=5)
    generous, strict, stranger = _predicted(svd(_fold(train, likes)), [(2, 2), (3, 2), (4, 2)])
    assert strict + 0.3 < stranger < generous - 0.3


def test_popular_ranks_by_likes_not_by_ratings() -> None:
    train = _ratings([(0, 0, 4.0), (1, 0, 5.0), (2, 0, 3.5), (0, 1, LIKED), (1, 2, 3.5), (2, 2, 0.5)])
    fitted = popular(_fold(train))
    assert _scores(fitted, [2, 0]).tolist() == [[2, 1, 0], [2, 1, 0]]
    assert fitted.ratings is None


def test_ease_is_the_closed_form_of_its_paper() -> None:
    """By the inverse of movies x movies, where the code takes that of users x users."""
    generator = np.random.default_rng(0)
    users, movies = 30, 12
    given = [
        (user, movie, float(generator.choice([1, 2, 4, 5])))
        for user in range(users)
        for movie in range(movies)
        if generator.random() < 0.8
    ]
    everything = _ratings(given, users, movies)
    learned = everything.user_rows < 20
    fold = _fold(everything.take(learned), everything.take(~learned))
    likes = np.zeros((users, movies))
    for user, movie, rating in given:
        likes[user, movie] = rating >= LIKED
    inverse = np.linalg.inv(likes[:20].T @ likes[:20] + 150 * np.eye(movies))
    weights = np.eye(movies) - inverse / np.diag(inverse)
    assert np.diag(weights) == pytest.approx(0)
    asked = list(range(20, 30))
    assert _scores(ease(fold), asked) == pytest.approx(likes[asked] @ weights, rel=1e-4, abs=1e-7)
    assert np.abs(likes[asked] @ weights).max() > 0.01


def _block_world(users: int) -> tuple[Interactions, list[set[int]]]:
    """Two halves of movies, each user at home in one: has liked half of it; and the other half of it.

    Everybody has seen, and not liked, much of what is not theirs.
    """
    generator = np.random.default_rng(0)
    rows: list[tuple[int, int, float]] = []
    left: list[set[int]] = []
    for user in range(users):
        own = np.arange(_MOVIES // 2) + (user % 2) * (_MOVIES // 2)
        liked = generator.permutation(own)[: len(own) // 2]
        other = generator.permutation((own + _MOVIES // 2) % _MOVIES)[: len(own) // 2]
        rows += [(user, int(movie), 4.5) for movie in liked]
        rows += [(user, int(movie), 2.0) for movie in other]
        left.append(set(own.tolist()) - set(liked.tolist()))
    return _ratings(rows, users, _MOVIES), left


@pytest.mark.parametrize("method", [item_knn, ials, ease])
@pytest.mark.parametrize("cold", [False, True], ids=["learned from", "never learned from"])
def test_the_rest_of_what_one_likes_is_ranked_first(method: Method, *, cold: bool) -> None:
    everything, left = _block_world(_USERS)
    asked = list(range(_USERS - 4, _USERS))
    learned = everything.user_rows < asked[0]
    fold = _fold(everything.take(learned), everything) if cold else _fold(everything)
    scored = np.array(_scores(method(fold), asked))
    scored[everything.matrix()[asked].nonzero()] = -np.inf
    for user, row in zip(asked, scored, strict=True):
        best = np.argsort(-row)[: len(left[user])]
        assert set(best.tolist()) == left[user]


def _tastes(seed: int) -> Interactions:
    """Half of the users like one genre and half the other: every movie and user has the same mean."""
    generator = np.random.default_rng(seed)
    pairs = [(user, int(movie)) for user in range(60) for movie in generator.permutation(_MOVIES)[:30]]
    noise = generator.uniform(-0.5, 0.5, len(pairs))
    rows = [
        (user, movie, (4.5 if (user + movie) % 2 else 1.5) + off)
        for (user, movie), off in zip(pairs, noise.tolist(), strict=True)
    ]
    return _ratings(rows, 60, _MOVIES)


def test_trees_learn_what_the_biases_cannot() -> None:
    everything = _tastes(0)
    tested = np.random.default_rng(1).random(len(everything)) < 0.2
    test = everything.take(tested)
    fold = _fold(everything.take(~tested))

    def error(fitted: Fitted) -> float:
        assert fitted.ratings
        return float(np.std(fitted.ratings(test.user_rows, test.movie_rows) - test.ratings))

    assert error(hgb(_CONTENT)(fold)) < error(bias(fold)) / 2


@pytest.fixture(scope="module")
def fold() -> Fold:
    """Half-star ratings, of some users their last ones judged, with users who are only told of."""
    generator = np.random.default_rng(0)
    everything, _ = _block_world(_MORE_USERS)
    everything = replace(
        everything,
        ratings=np.clip(everything.ratings + generator.integers(-2, 3, len(everything)) / 2, *_SCALE),
        timestamps=generator.integers(0, 10**6, len(everything)),
    )
    tested = generator.random(len(everything)) < 0.25
    cold = everything.user_rows >= _MORE_USERS - 6
    return Fold(
        train=everything.take(~tested & ~cold),
        history=everything.take(~tested),
        test=everything.take(tested),
    )


def _asked(fitted: Fitted, test: Interactions) -> list[FeatureRows | Floats]:
    """All that a method says of the users of a test part and of its pairs."""
    said: list[FeatureRows | Floats] = []
    if fitted.scores:
        said.append(np.array(fitted.scores(np.unique(test.user_rows))))
    if fitted.ratings:
        said.append(fitted.ratings(test.user_rows, test.movie_rows))
    return said


def _turned(test: Interactions) -> Interactions:
    order = np.random.default_rng(2).permutation(len(test))
    return replace(test.take(order), ratings=5.5 - test.ratings[order], timestamps=-test.timestamps)


_UNSEEN: dict[str, Callable[[Interactions], Interactions]] = {
    "the same again": lambda test: test,
    "turned upside down": _turned,
    "taken away": lambda test: test.take(np.zeros(0, np.int64)),
}


@pytest.mark.parametrize("change", _UNSEEN)
@pytest.mark.parametrize("name", _METHODS)
def test_no_baseline_depends_on_what_it_is_judged_by(fold: Fold, name: str, change: str) -> None:
    other = replace(fold, test=_UNSEEN[change](fold.test))
    before, after = (_asked(_METHODS[name](given), fold.test) for given in (fold, other))
    assert before
    for said, again in zip(before, after, strict=True):
        assert (said == again).all()
        assert np.isfinite(said).all()
        assert (len(np.unique(said)) == 1) == (name == "mean")


@pytest.mark.parametrize("name", RANKERS)
def test_a_ranking_of_one_user_is_that_of_many(fold: Fold, name: str) -> None:
    fitted = RANKERS[name](fold)
    together = _scores(fitted, [0, 5, 57])
    assert together.shape == (3, _MOVIES)
    assert np.asarray(together).dtype == np.float32
    assert _scores(fitted, [5]) == pytest.approx(together[1:2], abs=1e-6)


@pytest.mark.parametrize("name", RANKERS)
def test_rankings_of_data_without_any_like_are_without_preference(name: str) -> None:
    train = _ratings([(user, movie, 3.0) for user in range(5) for movie in range(8)], 5, 8)
    assert not np.any(_scores(RANKERS[name](_fold(train)), [0, 4]))


@pytest.mark.parametrize("name", RANKERS)
def test_users_without_any_like_get_a_ranking(name: str) -> None:
    everything, _ = _block_world(_USERS)
    fitted = RANKERS[name](_fold(everything, everything.take(everything.user_rows > 0)))
    assert np.isfinite(_scores(fitted, [0])).all()


def test_every_baseline_of_the_module_is_compared() -> None:
    assert set(BASELINES) == {"popular", "bias", "svd", "hgb", "item_knn", "ials", "ease"}
    for name, method in {**RANKERS, **RATERS}.items():
        assert getattr(baselines, name) is method
