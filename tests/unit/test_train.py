"""What the towers are fed and how they are fitted: no target, nor any held-out rating, gets in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.config import Recipe, load_recipe
from training.evaluate import RatingError
from training.interactions import Interactions
from training.movielens import Dataset, read_dataset
from training.splits import Split, temporal_split
from training.train import LeaveOneOutBatches, MovieContent, Statistics, TwoTowers, fit
from twotower.errors import TrainingError
from twotower.features import UserSums

_SCALE = (0.5, 5.0)


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return read_dataset(data)


@pytest.fixture(scope="module")
def content(dataset: Dataset) -> MovieContent:
    return MovieContent.of(dataset)


@pytest.fixture(scope="module")
def split(dataset: Dataset) -> Split:
    return temporal_split(Interactions.of(dataset))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    shipped = load_recipe("reference")
    return shipped.model_copy(update={"fit": shipped.fit.model_copy(update={"max_epochs": 2})})


def _statistics(train: Interactions, content: MovieContent) -> Statistics:
    return Statistics.of(train, content, _SCALE, damping=5.0)


def _weights(towers: TwoTowers) -> list[np.ndarray]:
    return [*towers.user_tower.get_weights(), *towers.item_tower.get_weights()]


def _pair_list(part: Interactions) -> list[tuple[int, int]]:
    return list(zip(part.user_rows.tolist(), part.movie_rows.tolist(), strict=True))


def _pairs(part: Interactions) -> set[tuple[int, int]]:
    return set(_pair_list(part))


def test_a_target_is_encoded_as_if_it_had_never_been_given(split: Split, content: MovieContent) -> None:
    statistics = _statistics(split.train, content)
    for place in np.random.default_rng(0).integers(0, len(split.train), 20):
        target = split.train.take(np.array([place]))
        without = split.train.take(np.arange(len(split.train)) != place)
        users, movies = statistics.leaving_out(target)
        sums, spec = UserSums.of(without.histories(), content.genres), statistics.spec
        assert (users == spec.encode_users(sums.statistics())[target.user_rows]).all()
        rows = spec.encode_movies(without.movie_sums(), content.years, content.genres)
        assert (movies == rows[target.movie_rows]).all()


def test_a_targets_own_rating_does_not_reach_its_features(split: Split, content: MovieContent) -> None:
    changed_ratings = split.train.ratings.copy()
    changed_ratings[0] = 5.5 - changed_ratings[0]
    changed = replace(split.train, ratings=changed_ratings)
    first = np.array([0])
    before = _statistics(split.train, content).leaving_out(split.train.take(first))
    spec = _statistics(split.train, content).spec  # whose means may see it: fixed for all rows alike
    after = replace(_statistics(changed, content), spec=spec).leaving_out(changed.take(first))
    assert (before[0] == after[0]).all()
    assert (before[1] == after[1]).all()


def test_no_held_out_rating_reaches_features_or_weights(
    dataset: Dataset, split: Split, content: MovieContent, recipe: Recipe
) -> None:
    """Turn every held-out rating upside down in the data: only the measured error may change."""
    interactions = Interactions.of(dataset)
    tested = _pairs(split.test)
    held_out = np.array([pair in tested for pair in _pair_list(interactions)])
    assert held_out.sum() == len(split.test)
    ratings = np.where(held_out, 5.5 - interactions.ratings, interactions.ratings)
    turned = temporal_split(replace(interactions, ratings=ratings))
    before = fit(split.refit, content, _SCALE, recipe, seed=1, epochs=1)
    after = fit(turned.refit, content, _SCALE, recipe, seed=1, epochs=1)
    assert before.statistics.spec == after.statistics.spec
    assert (before.statistics.user_rows() == after.statistics.user_rows()).all()
    assert (before.statistics.movie_rows() == after.statistics.movie_rows()).all()
    for weights, same in zip(_weights(before), _weights(after), strict=True):
        assert (weights == same).all()
    errors = [RatingError.of(s, "", before.predict(s.test), _SCALE).rmse for s in (split, turned)]
    assert errors[0] != errors[1]


def test_the_test_part_shares_no_pair_with_what_is_fitted(split: Split) -> None:
    assert not _pairs(split.refit) & _pairs(split.test)


def test_training_and_serving_encode_a_user_alike(dataset: Dataset, content: MovieContent) -> None:
    interactions = Interactions.of(dataset)
    statistics = _statistics(interactions, content)
    together = statistics.user_rows()
    for user in range(0, interactions.users, 7):
        own = interactions.take(interactions.user_rows == user)
        alone = replace(own, user_rows=np.zeros(len(own), np.int64), users=1)
        served = UserSums.of(alone.histories(), content.genres).statistics()
        assert (statistics.spec.encode_users(served)[0] == together[user]).all()


def test_batches_hold_every_rating_once_in_another_order_each_epoch(
    split: Split, content: MovieContent
) -> None:
    batches = LeaveOneOutBatches(_statistics(split.train, content), split.train, 100, seed=0)
    epochs = []
    for _ in range(2):
        targets = np.concatenate([batches[place][1][:, 0] for place in range(len(batches))])
        assert len(targets) == len(split.train)
        assert np.allclose(np.sort(targets), np.sort((split.train.ratings - 0.5) / 4.5 * 2 - 1))
        epochs.append(targets)
        batches.on_epoch_end()
    assert (epochs[0] != epochs[1]).any()


def test_the_same_seed_gives_the_same_weights_and_another_gives_others(
    split: Split, content: MovieContent, recipe: Recipe
) -> None:
    first, same, other = (
        fit(split.train, content, _SCALE, recipe, seed=seed, epochs=1) for seed in (1, 1, 2)
    )
    assert all((a == b).all() for a, b in zip(_weights(first), _weights(same), strict=True))
    assert any((a != b).any() for a, b in zip(_weights(first), _weights(other), strict=True))


def test_embeddings_are_of_unit_norm_and_predictions_on_the_scale(
    split: Split, content: MovieContent, recipe: Recipe
) -> None:
    towers = fit(split.train, content, _SCALE, recipe, seed=1, validation=split.validation)
    assert 1 <= towers.epochs <= recipe.fit.max_epochs
    for embeddings in (towers.embed_movies(), towers.embed_known_users()):
        assert embeddings.shape[1] == 32
        assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1, abs=1e-5)
    predicted = towers.predict(split.test)
    assert ((predicted >= 0.5) & (predicted <= 5.0)).all()


def test_constant_ratings_are_learned_without_a_number_that_is_not_finite(
    split: Split, content: MovieContent, recipe: Recipe
) -> None:
    constant = replace(split.train, ratings=np.full(len(split.train), 4.0))
    towers = fit(constant, content, (4.0, 4.0), recipe, seed=1, epochs=1)
    assert all(np.isfinite(weights).all() for weights in _weights(towers))
    assert (towers.predict(split.test) == 4.0).all()


@pytest.mark.parametrize("validated", [True, False])
def test_a_loss_that_is_no_number_ends_the_fit(
    split: Split, content: MovieContent, recipe: Recipe, *, validated: bool
) -> None:
    faulty = replace(split.train, ratings=np.full(len(split.train), np.nan))
    validation = split.validation if validated else None
    with pytest.raises(TrainingError, match="the loss is not finite after epoch"):
        fit(faulty, content, _SCALE, recipe, seed=1, validation=validation, epochs=1)
