"""Fitting the two towers to ratings."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from training.config import OnEpoch, Recipe
from training.interactions import Interactions
from training.methods import Fitted
from training.statistics import Inputs, MovieContent, Statistics
from training.towers import build_tower, join_towers
from twotower.errors import TrainingError
from twotower.features import FeatureRows, Floats, Histories, Ints


@dataclass(frozen=True)
class TwoTowers:
    """Fitted towers beside the statistics that feed them."""

    statistics: Statistics
    user_tower: keras.Model
    item_tower: keras.Model
    epochs: int
    """How many epochs the weights have seen."""

    def embed_users(self, histories: Histories) -> FeatureRows:
        """Embeddings of users with these ratings: float32 (users, dim) of unit norm."""
        return _embed(self.user_tower, self.statistics.user_rows(histories))

    def embed_movies(self) -> FeatureRows:
        """Embeddings of every movie: float32 (movies, dim) of unit norm."""
        return _embed(self.item_tower, self.statistics.movie_rows())

    def asked_by(self, histories: Histories) -> Fitted:
        """Scores and ratings for users with these ratings."""
        users, movies = self.embed_users(histories), self.embed_movies()

        def ratings(user_rows: Ints, movie_rows: Ints) -> Floats:
            cosines = (users[user_rows] * movies[movie_rows]).sum(axis=1)
            return self.statistics.spec.unscale_ratings(cosines)

        return Fitted(scores=lambda user_rows: users[user_rows] @ movies.T, ratings=ratings)


def fit(
    train: Interactions,
    content: MovieContent,
    rating_scale: tuple[float, float],
    recipe: Recipe,
    *,
    seed: int,
    validation: Interactions | None = None,
    epochs: int | None = None,
    on_epoch: OnEpoch = lambda *_: None,
) -> TwoTowers:
    """Fit both towers by squared error on the min-max-scaled rating.

    With `validation`, training stops early, and the weights are those of the best epoch; without,
    it runs for `epochs` (default: the recipe's maximum). The same seed gives the same weights.
    Raises TrainingError where the loss is no number any more.
    """
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    statistics = Statistics.of(train, content, rating_scale, recipe.features.damping)
    user_tower = build_tower("user", statistics.spec.user_width, recipe.towers)
    item_tower = build_tower("item", statistics.spec.movie_width, recipe.towers)
    model = join_towers(user_tower, item_tower)
    model.compile(
        keras.optimizers.Adam(recipe.fit.learning_rate),
        loss="mse",
        steps_per_execution=_STEPS_PER_EXECUTION,
        jit_compile=False,
    )
    stopper = keras.callbacks.EarlyStopping(
        monitor="val_loss", patience=recipe.fit.patience, restore_best_weights=True
    )
    history = model.fit(
        LeaveOneOutBatches(statistics, train, recipe.fit.batch_size, seed),
        epochs=epochs or recipe.fit.max_epochs,
        validation_data=_held_out(statistics, validation) if validation else None,
        validation_batch_size=4096,
        callbacks=[stopper, _Reporter(on_epoch)] if validation else [_Reporter(on_epoch)],
        verbose=0,
        shuffle=False,  # the batches come shuffled
    )
    losses = history.history["val_loss" if validation else "loss"]
    if not np.isfinite(losses).all():
        raise TrainingError(
            f"the loss is not finite after epoch {len(losses)}: the recipe's learning_rate of "
            f"{recipe.fit.learning_rate:g} may be too high"
        )
    best = int(np.argmin(losses)) + 1 if validation else len(losses)
    return TwoTowers(statistics, user_tower, item_tower, best)


class LeaveOneOutBatches(keras.utils.PyDataset):  # type: ignore[misc]
    """The ratings of a training part in shuffled batches, each encoded without its own target."""

    def __init__(self, statistics: Statistics, train: Interactions, batch_size: int, seed: int) -> None:
        super().__init__()
        self._statistics = statistics
        self._train = train
        self._batch_size = batch_size
        self._random = np.random.default_rng(seed)
        self.on_epoch_end()

    def __len__(self) -> int:
        return math.ceil(len(self._train) / self._batch_size)

    def __getitem__(self, index: int) -> tuple[Inputs, Floats]:
        start = index * self._batch_size
        targets = self._train.take(self._order[start : start + self._batch_size])
        scaled = self._statistics.spec.scale_ratings(targets.ratings)
        return self._statistics.leaving_out(targets), scaled[:, None]

    def on_epoch_end(self) -> None:
        """Shuffle anew."""
        self._order = self._random.permutation(len(self._train))


class _Reporter(keras.callbacks.Callback):  # type: ignore[misc]
    def __init__(self, on_epoch: OnEpoch) -> None:
        super().__init__()
        self._on_epoch = on_epoch

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        self._on_epoch(epoch + 1, logs["loss"], logs.get("val_loss"))


def _embed(tower: keras.Model, rows: FeatureRows) -> FeatureRows:
    embeddings: FeatureRows = tower(rows).numpy()
    return embeddings


def _held_out(statistics: Statistics, held_out: Interactions) -> tuple[Inputs, Floats]:
    users = statistics.spec.encode_users(statistics.users.statistics())[held_out.user_rows]
    movies = statistics.movie_rows()[held_out.movie_rows]
    return (users, movies), statistics.spec.scale_ratings(held_out.ratings)[:, None]


# Batches run by TensorFlow between two returns to Python: the model is small, so returning is dear.
_STEPS_PER_EXECUTION = 64
