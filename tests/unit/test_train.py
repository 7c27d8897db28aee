"""What the towers are fed and how they are fitted: no target, nor any held-out rating, gets in."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.checkpoint import NOWHERE
from training.config import Bounds, Recipe, load_recipe
from training.content import MovieContent
from training.dataset import Dataset, read_dataset
from training.evaluate import recommend
from training.interactions import Interactions
from training.metrics import rmse
from training.rating import fit_rating, shuffled
from training.splits import Fold, Part, cold_user, temporal
from training.statistics import Statistics, draw_users
from training.train import TwoTowers, fit
from twotower.arrays import Floats
from twotower.errors import TrainingError
from twotower.histories import NO_RATINGS, Histories
from twotower.statistics import UserSums


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return read_dataset(data)


@pytest.fixture(scope="module")
def content(dataset: Dataset) -> MovieContent:
    return MovieContent.of(dataset)


@pytest.fixture(scope="module")
def fold(dataset: Dataset) -> Fold:
    """What a recipe is judged by."""
    return temporal(Interactions.of(dataset)).folds[0]


@pytest.fixture(scope="module")
def validation(dataset: Dataset) -> Fold:
    """What tells how long to fit it."""
    return temporal(Interactions.of(dataset), Part.VALIDATION).folds[0]


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    shipped = load_recipe("reference")
    return shipped.model_copy(update={"fit": shipped.fit.model_copy(update={"max_epochs": 2})})


@pytest.fixture(scope="module")
def two_headed(two_headed_recipe: Path) -> Recipe:
    return load_recipe(str(two_headed_recipe))


@pytest.fixture(scope="module")
def towers(fold: Fold, content: MovieContent, recipe: Recipe) -> TwoTowers:
    """Fitted for one epoch, with seed 1."""
    return fit(fold.train, content, recipe, seed=1, epochs=1)


def _statistics(train: Interactions, content: MovieContent) -> Statistics:
    return Statistics.of(train, content, damping=5.0)


def _weights(towers: TwoTowers) -> list[np.ndarray]:
    return [*towers.user_tower.get_weights(), *towers.item_tower.get_weights()]


def _predicted(towers: TwoTowers, fold: Fold) -> Floats:
    fitted = towers.asked_by(fold.history.histories())
    assert fitted.ratings
    return fitted.ratings(fold.test.user_rows, fold.test.movie_rows)


def _pair_list(part: Interactions) -> list[tuple[int, int]]:
    return list(zip(part.user_rows.tolist(), part.movie_rows.tolist(), strict=True))


def _pairs(part: Interactions) -> set[tuple[int, int]]:
    return set(_pair_list(part))


def test_a_target_is_encoded_as_if_it_had_never_been_given(fold: Fold, content: MovieContent) -> None:
    statistics = _statistics(fold.train, content)
    for place in np.random.default_rng(0).integers(0, len(fold.train), 20):
        target = fold.train.take(np.array([place]))
        without = fold.train.take(np.arange(len(fold.train)) != place)
        users, movies = statistics.leaving_out(np.array([place]))
        sums, spec = UserSums.of(without.histories(), content.genres), statistics.spec
        assert (users == spec.encode_users(sums.statistics())[target.user_rows]).all()
        rows = spec.encode_movies(without.movie_sums(), content.years, content.genres)
        assert (movies == rows[target.movie_rows]).all()


def test_a_targets_own_rating_does_not_reach_its_features(fold: Fold, content: MovieContent) -> None:
    changed_ratings = fold.train.ratings.copy()
    changed_ratings[0] = 5.5 - changed_ratings[0]
    changed = replace(fold.train, ratings=changed_ratings)
    first = np.array([0])
    before = _statistics(fold.train, content).leaving_out(first)
    spec = _statistics(fold.train, content).spec  # whose means may see it: fixed for all rows alike
    after = replace(_statistics(changed, content), spec=spec).leaving_out(first)
    assert (before[0] == after[0]).all()
    assert (before[1] == after[1]).all()


@pytest.mark.parametrize("heads", ["recipe", "two_headed"])
def test_no_held_out_rating_reaches_features_or_weights(
    dataset: Dataset, fold: Fold, content: MovieContent, heads: str, request: pytest.FixtureRequest
) -> None:
    """Hold out other movies with other ratings in their place: only the measured error may change."""
    interactions = Interactions.of(dataset)
    tested = _pairs(fold.test)
    held_out = np.array([pair in tested for pair in _pair_list(interactions)])
    assert held_out.sum() == len(fold.test)
    ratings = np.where(held_out, 5.5 - interactions.ratings, interactions.ratings)
    others = np.random.default_rng(0).integers(0, interactions.movies, len(interactions))
    movie_rows = np.where(held_out, others, interactions.movie_rows)
    (turned,) = temporal(replace(interactions, ratings=ratings, movie_rows=movie_rows)).folds
    chosen = request.getfixturevalue(heads)
    before, after = (fit(part.train, content, chosen, seed=1, epochs=1) for part in (fold, turned))
    assert before.encoder.spec == after.encoder.spec
    told, told_after = fold.history.histories(fold.asked_at), turned.history.histories(turned.asked_at)
    assert (before.encoder.encode(told) == after.encoder.encode(told_after)).all()
    assert (before.movie_rows == after.movie_rows).all()
    for weights, same in zip(_weights(before), _weights(after), strict=True):
        assert (weights == same).all()
    predicted = _predicted(before, fold)
    assert (predicted == _predicted(after, fold)).all()
    assert rmse(predicted - fold.test.ratings) != rmse(_predicted(after, turned) - turned.test.ratings)


def test_from_shuffled_ratings_two_heads_learn_no_more_than_their_mean(
    validation: Fold, content: MovieContent, two_headed: Recipe
) -> None:
    train, ratings = validation.train, validation.test.ratings
    towers = fit(train, content, two_headed, seed=1)
    shuffled_ratings = np.random.default_rng(0).permutation(train.ratings)
    fooled = fit(replace(train, ratings=shuffled_ratings), content, two_headed, seed=1)
    told = replace(validation, history=replace(train, ratings=shuffled_ratings))
    deviation = rmse(train.ratings.mean() - ratings)
    assert rmse(_predicted(towers, validation) - ratings) < 0.9 * deviation
    assert rmse(_predicted(fooled, told) - ratings) == pytest.approx(deviation, rel=0.03)


def _some(users: int, movies: int, count: int) -> Interactions:
    """Ratings by whoever of whatever, no pair twice."""
    random = np.random.default_rng(0)
    pairs = random.choice(users * movies, count, replace=False)
    stars = random.integers(1, 11, count) / 2
    return Interactions(pairs // movies, pairs % movies, stars, np.arange(count), users, movies)


def _content(movies: int, genres: int = 3) -> MovieContent:
    random = np.random.default_rng(1)
    years = np.where(random.random(movies) < 0.1, np.nan, random.integers(1920, 2020, movies))
    return MovieContent(tuple("abc"[:genres]), random.random((movies, genres)) < 0.5, years)


_MANY = _some(20, 40, 500)


@pytest.mark.parametrize(
    ("train", "content"),
    [
        (_some(1, 1, 1), _content(1)),
        (_some(1, 30, 20), _content(30)),
        (_some(20, 1, 15), _content(1)),
        (_some(3, 4, 12), _content(4)),
        (replace(_MANY, ratings=np.full(500, 4.0)), _content(40)),
        (replace(_MANY, ratings=np.minimum(_MANY.ratings, 3.5)), _content(40)),
        (_MANY, MovieContent((), np.empty((40, 0), np.bool_), np.full(40, np.nan))),
        (replace(_MANY, timestamps=np.zeros(500, np.int64)), _content(40)),
    ],
    ids=[
        "one rating",
        "one user",
        "one movie",
        "all rated",
        "constant",
        "no like",
        "no content",
        "one time",
    ],
)
def test_two_heads_are_fitted_to_whatever_there_is(
    two_headed: Recipe, train: Interactions, content: MovieContent
) -> None:
    towers = fit(train, content, two_headed, seed=1, epochs=1)
    users = towers.embed_users(Histories.join([train.histories(), NO_RATINGS]))
    for embeddings in (*users, *towers.embed_movies()):
        assert embeddings is not None
        assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    assert towers.encoder.factors is not None
    towers.encoder.factors.check(train.movies)


def test_ratings_on_a_larger_scale_are_learned_as_the_same_stars(two_headed: Recipe) -> None:
    larger = replace(_MANY, ratings=_MANY.ratings * 4, allowed=(2.0, 20.0))
    fitted = [
        fit(train, _content(40), two_headed, seed=1, epochs=1).asked_by(train.histories())
        for train in (_MANY, larger)
    ]
    stars, fours = (each.ratings(_MANY.user_rows, _MANY.movie_rows) for each in fitted if each.ratings)
    assert fours == pytest.approx(stars * 4, abs=1e-3)
    ranked = [recommend(each.scores, _MANY, np.arange(20)) for each in fitted if each.scores]
    assert (ranked[0] == ranked[1]).all()
    assert larger.liked.tolist() == _MANY.liked.tolist() == (_MANY.ratings >= 4).tolist()


def test_where_there_are_no_ratings_none_are_predicted(two_headed: Recipe) -> None:
    taken = replace(_MANY, ratings=np.ones(500), allowed=(1.0, 1.0), rated=False)
    towers = fit(taken, _content(40), two_headed, seed=1)
    users, movies = towers.embed_users(taken.histories()), towers.embed_movies()
    assert users.rating is None
    assert movies.rating is None
    assert np.linalg.norm(movies.retrieval, axis=1) == pytest.approx(1, abs=1e-5)
    fitted = towers.asked_by(taken.histories())
    assert fitted.scores
    assert fitted.ratings is None
    assert not towers.encoder.spec.predicts_ratings
    assert towers.encoder.factors is not None
    towers.encoder.factors.check(taken.movies)
    assert towers.encoder.columns.rating == slice(0, 0)
    assert towers.epochs == two_headed.hybrid.retrieval.epochs  # type: ignore[union-attr]


def test_a_checkerboard_is_learned_by_both_heads(two_headed: Recipe) -> None:
    """Every user loves the movies of one colour and none of the other, and has rated half of all."""
    users, movies = np.divmod(np.random.default_rng(0).permutation(60 * 80), 80)
    ratings = np.where((users + movies) % 2 == 0, 5.0, 1.0)
    train, held_out = (
        Interactions(users[half], movies[half], ratings[half], np.arange(2400), 60, 80)
        for half in (slice(0, 2400), slice(2400, None))
    )
    shipped = load_recipe("hybrid").hybrid
    assert shipped
    assert two_headed.hybrid
    large = two_headed.hybrid.model_copy(update={"factors": shipped.factors})
    recipe = two_headed.model_copy(update={"hybrid": large})
    towers = fit(train, _content(80), recipe, seed=1)
    fitted = towers.asked_by(train.histories())
    assert fitted.ratings
    assert fitted.scores
    predicted = fitted.ratings(held_out.user_rows, held_out.movie_rows)
    assert rmse(predicted - held_out.ratings) < 0.5  # 2 for any bias
    best = recommend(fitted.scores, train, np.arange(60))
    assert ((best + np.arange(60)[:, None]) % 2 == 0).mean() > 0.95


def test_no_part_shares_a_pair_with_what_is_fitted(fold: Fold, validation: Fold) -> None:
    assert not _pairs(fold.train) & _pairs(fold.test)
    assert not _pairs(validation.train) & _pairs(validation.test)
    assert not (_pairs(validation.train) | _pairs(validation.test)) & _pairs(fold.test)


def test_users_never_learned_from_are_known_by_what_is_told(
    dataset: Dataset, content: MovieContent, recipe: Recipe
) -> None:
    cold = cold_user(Interactions.of(dataset)).folds[0]
    turned = replace(cold, history=replace(cold.history, ratings=5.5 - cold.history.ratings))
    towers = fit(cold.train, content, recipe, seed=1, epochs=1)
    assert np.abs(_predicted(towers, cold) - _predicted(towers, turned)).max() > 0.01


def test_training_and_serving_encode_a_user_alike(dataset: Dataset, content: MovieContent) -> None:
    interactions = Interactions.of(dataset)
    statistics = _statistics(interactions, content)
    together = statistics.encoder().encode(interactions.histories())
    for user in range(0, interactions.users, 7):
        own = interactions.take(interactions.user_rows == user)
        alone = replace(own, user_rows=np.zeros(len(own), np.int64), users=1)
        served = UserSums.of(alone.histories(), content.genres).statistics()
        assert (statistics.spec.encode_users(served)[0] == together[user]).all()


def test_batches_hold_every_rating_once_in_another_order_each_epoch(
    fold: Fold, content: MovieContent, recipe: Recipe
) -> None:
    statistics, random = _statistics(fold.train, content), np.random.default_rng(0)
    config = recipe.fit.model_copy(update={"batch_size": 100})
    epochs = []
    for _ in range(2):
        targets = np.concatenate([scaled for _, scaled in shuffled(statistics, config, random)])
        assert len(targets) == len(fold.train)
        assert np.allclose(np.sort(targets), np.sort((fold.train.ratings - 0.5) / 4.5 * 2 - 1))
        epochs.append(targets)
    assert (epochs[0] != epochs[1]).any()


@pytest.mark.parametrize("heads", ["recipe", "two_headed"])
def test_a_movie_without_ratings_is_seen_as_any_other_would_be_if_nobody_had_rated_it(
    fold: Fold, content: MovieContent, heads: str, request: pytest.FixtureRequest
) -> None:
    chosen: Recipe = request.getfixturevalue(heads)
    train = fold.train.by_user()
    statistics = Statistics.of(train, content, 5.0, chosen.hybrid)
    rated = np.isin(np.arange(train.movies), train.movie_rows)
    assert 0 < rated.sum() < train.movies
    as_they_are, as_unrated = statistics.movie_rows, statistics.unrated_movie_rows
    np.testing.assert_allclose(as_unrated[~rated], as_they_are[~rated], atol=1e-6)
    assert (as_unrated[rated] != as_they_are[rated]).any(axis=1).all()


def test_the_share_of_movies_asked_for_is_shown_unrated(
    fold: Fold, content: MovieContent, two_headed: Recipe
) -> None:
    train = fold.train.by_user()
    statistics = Statistics.of(train, content, 5.0, two_headed.hybrid)

    def shares(unrated: float) -> float:
        config = two_headed.fit.model_copy(update={"unrated": unrated})
        seen = shuffled(statistics, config, np.random.default_rng(0))
        rows = np.concatenate([movies for (_, movies), _ in seen])
        known = {row.tobytes() for row in statistics.unrated_movie_rows}
        return float(np.mean([row.tobytes() in known for row in rows]))

    none, some = shares(0.0), shares(0.3)
    assert 0.25 * (1 - none) < some - none < 0.35 * (1 - none)


def test_averaged_over_long_weights_are_those_after_the_first_step(
    fold: Fold, content: MovieContent, two_headed: Recipe
) -> None:
    train, rate = fold.train.by_user(), 1e-3
    statistics = Statistics.of(train, content, 5.0, two_headed.hybrid)

    def farthest(averaging: float | None) -> float:
        changes = {"learning_rate": rate, "weight_decay": 0.0, "averaging": averaging}
        config = two_headed.fit.model_copy(update=changes)
        towers = fit_rating(
            statistics,
            two_headed.model_copy(update={"fit": config}),
            seed=0,
            validation=None,
            epochs=1,
            watch=lambda *_: nullcontext(lambda *_: None),
            checkpoint=NOWHERE,
        )
        return float(np.abs(towers.user.get_layer("linear").kernel).max())

    assert farthest(0.99999) < 1.1 * rate  # a step of Adam is as long as the rate; they started at 0
    assert farthest(None) > 5 * rate


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(
    fold: Fold, content: MovieContent, recipe: Recipe, towers: TwoTowers
) -> None:
    same, other = (fit(fold.train, content, recipe, seed=seed, epochs=1) for seed in (1, 2))
    assert all((a == b).all() for a, b in zip(_weights(towers), _weights(same), strict=True))
    assert any((a != b).any() for a, b in zip(_weights(towers), _weights(other), strict=True))


def test_embeddings_are_of_unit_norm_and_predictions_on_the_scale(fold: Fold, towers: TwoTowers) -> None:
    for embeddings in (
        towers.embed_movies().retrieval,
        towers.embed_users(fold.history.histories()).retrieval,
    ):
        assert embeddings.shape[1] == 32
        assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    predicted = _predicted(towers, fold)
    assert ((predicted >= 0.5) & (predicted <= 5.0)).all()


def test_scores_rank_as_predicted_ratings_do(fold: Fold, towers: TwoTowers) -> None:
    fitted = towers.asked_by(fold.history.histories())
    assert fitted.scores
    assert fitted.ratings
    users = np.array([3, 0, 11])
    scores = fitted.scores(users)
    assert scores.shape == (3, fold.train.movies)
    for user, scored in zip(users, scores, strict=True):
        ratings = fitted.ratings(np.full(len(scored), user), np.arange(len(scored)))
        assert (np.diff(ratings[np.argsort(scored)]) >= -1e-5).all()


def test_the_weights_are_those_of_the_best_epoch(
    validation: Fold, content: MovieContent, recipe: Recipe
) -> None:
    losses: list[float] = []

    def on_epoch(_epoch: int, _loss: float, validation_loss: float | None) -> None:
        assert validation_loss is not None
        losses.append(validation_loss)

    quick = {"learning_rate": 3e-2, "max_epochs": 8, "patience": 2}
    restless = recipe.model_copy(update={"fit": recipe.fit.model_copy(update=quick)})
    judged = {"validation": validation.test, "watch": lambda *_: nullcontext(on_epoch)}
    towers = fit(validation.train, content, restless, seed=1, **judged)
    assert towers.epochs == np.argmin(losses) + 1 < len(losses) <= 8
    again = fit(validation.train, content, restless, seed=1, epochs=towers.epochs)
    for weights, same in zip(_weights(towers), _weights(again), strict=True):
        assert (weights == same).all()
    squares = (_predicted(towers, validation) - validation.test.ratings) ** 2
    assert squares.mean() ** 0.5 == pytest.approx(min(losses), rel=1e-3)


def test_constant_ratings_are_learned_without_a_number_that_is_not_finite(
    fold: Fold, content: MovieContent, recipe: Recipe
) -> None:
    constant = replace(fold.train, ratings=np.full(len(fold.train), 4.0), allowed=None)
    towers = fit(constant, content, recipe, seed=1, epochs=1)
    assert all(np.isfinite(weights).all() for weights in _weights(towers))
    assert (_predicted(towers, replace(fold, history=constant)) == 4.0).all()


@pytest.mark.parametrize("validated", [True, False])
def test_a_loss_that_is_no_number_ends_the_fit(
    validation: Fold, content: MovieContent, recipe: Recipe, *, validated: bool
) -> None:
    faulty = replace(validation.train, ratings=np.full(len(validation.train), np.nan))
    held_out = validation.test if validated else None
    with pytest.raises(TrainingError, match="the loss is not finite after epoch"):
        fit(faulty, content, recipe, seed=1, validation=held_out, epochs=1)


@pytest.mark.parametrize("most", [1, 300, 2_000, 10**6])
def test_ratings_learned_from_are_all_of_some_users_and_no_more_than_asked_for(
    fold: Fold, most: int
) -> None:
    places = draw_users(fold.train, most)
    users = np.unique(fold.train.user_rows[places])
    assert places.tolist() == np.flatnonzero(np.isin(fold.train.user_rows, users)).tolist()
    assert len(users) == 1 or len(places) <= most
    assert len(places) == len(fold.train) or len(places) > most / 2 or len(users) == 1


@pytest.mark.parametrize("heads", ["recipe", "two_headed"])
def test_within_bounds_much_is_left_out_and_what_is_left_is_learned_as_before(
    fold: Fold, content: MovieContent, heads: str, request: pytest.FixtureRequest
) -> None:
    chosen: Recipe = request.getfixturevalue(heads)
    bounds = Bounds(movies=40, pairs=len(fold.train), ratings=len(fold.train) // 2)
    statistics = Statistics.of(fold.train.by_user(), content, 5.0, chosen.hybrid, bounds=bounds)
    assert 0 < len(statistics.learned) <= bounds.ratings
    targets = [scaled for _, scaled in shuffled(statistics, chosen.fit, np.random.default_rng(0))]
    assert sum(map(len, targets)) == len(statistics.learned)
    towers = fit(fold.train, content, chosen.model_copy(update={"bounds": bounds}), seed=1)
    if towers.encoder.factors:
        assert len(towers.encoder.factors.successors) == 1 + bounds.movies
    predicted = _predicted(towers, fold)
    assert rmse(predicted - fold.test.ratings) < fold.test.ratings.std()
