"""Fitting towers to ratings, by squared error on the cosine that stands for the rating."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple, Self

import keras
import numpy as np
import tensorflow as tf

from training.checkpoint import Checkpoint
from training.config import FitConfig, Recipe, Watch
from training.epochs import Epochs, Losses
from training.interactions import Interactions
from training.progress import track
from training.rating_factors import RatingFactors
from training.statistics import Inputs, Statistics
from training.towers import Skip, build_correction, build_tower, join_towers, to_unit_norm
from twotower.arrays import FeatureRows, Floats, Ints

_LAST_RATE: Final = 0.05
_BATCHES_AT_ONCE: Final = 256
"""Encoded together, and run by TensorFlow between two returns to Python."""
_SCALED_BY: Final = 20_000
"""Ratings by which the towers' inputs are scaled."""
_PREDICTED_AT_ONCE: Final = 4_096


class RatingTowers(NamedTuple):
    """Two fitted towers, (n, dim) of unit norm, and how many epochs their weights have seen."""

    user: keras.Model
    item: keras.Model
    epochs: int


def fit_rating(
    statistics: Statistics,
    recipe: Recipe,
    *,
    seed: int,
    validation: Interactions | None,
    epochs: int | None,
    watch: Watch,
    checkpoint: Checkpoint,
) -> RatingTowers:
    """Fit two towers to the ratings of a training part, each encoded without itself.

    With `validation` and patience, training stops early, and the weights are those of the best epoch;
    without, it runs for `epochs` (default: the recipe's maximum). Raises TrainingError where the loss
    is no number any more.
    """
    config = recipe.fit
    epochs = epochs or config.max_epochs
    user, item = _build(statistics, recipe)
    model = join_towers(user, item)
    ratings = len(statistics.learned)
    optimizer = _optimizer(config, epochs * math.ceil(ratings / config.batch_size))
    run = _runner(model, optimizer)
    random = np.random.default_rng(seed)
    held_out = _HeldOut.of(statistics, validation) if validation else None
    _, scale = statistics.spec.line

    def one_epoch() -> Losses:
        batches = shuffled(statistics, config, random)
        squares = sum(
            float(run(*inputs, targets, config.batch_size)) * len(targets)
            for inputs, targets in track(batches, "one epoch", ratings, lambda batch: len(batch[1]))
        )
        error = scale * math.sqrt(squares / ratings)
        return error, scale * _rmse(model, held_out) if held_out else None

    learning = Epochs(model, optimizer, random, checkpoint)
    with watch("ratings", epochs, "RMSE") as on_epoch:
        best = learning.run(one_epoch, epochs, on_epoch, patience=config.patience)
    if config.averaging:
        optimizer.finalize_variable_values(model.trainable_variables)
    return RatingTowers(user, item, best)


def shuffled(
    statistics: Statistics, config: FitConfig, random: np.random.Generator
) -> Iterator[tuple[Inputs, Floats]]:
    """All ratings to learn from once, in new order: both towers' inputs, and targets (m,).

    Some of the movies are shown as if nobody had rated them.
    """
    order = random.permutation(len(statistics.learned))
    size = config.batch_size * _BATCHES_AT_ONCE
    for start in range(0, len(order), size):
        places = order[start : start + size]
        scaled = statistics.spec.scale_ratings(statistics.learned.ratings[places])
        users, movies = statistics.leaving_out(places)
        if config.unrated:
            unrated = random.random(len(places)) < config.unrated
            rows = statistics.learned.movie_rows[places[unrated]]
            movies[unrated] = statistics.unrated_movie_rows[rows]
        yield (users, movies), scaled.astype(np.float32)


def _optimizer(config: FitConfig, steps: int) -> keras.optimizers.Optimizer:
    rate: Any = config.learning_rate
    averaged = config.averaging is not None
    if config.patience is None and not averaged:
        rate = keras.optimizers.schedules.CosineDecay(rate, steps, alpha=_LAST_RATE)
    if config.weight_decay or averaged:
        return keras.optimizers.AdamW(
            rate,
            weight_decay=config.weight_decay,
            use_ema=averaged,
            ema_momentum=config.averaging or 0.0,
        )
    return keras.optimizers.Adam(rate)


def _runner(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> Any:
    """What takes one gradient step for each batch of the rows given, and returns the mean loss."""
    variables = model.trainable_variables
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def run(users: tf.Tensor, movies: tf.Tensor, targets: tf.Tensor, size: int) -> tf.Tensor:
        rows = tf.shape(targets)[0]
        total = tf.constant(0.0)
        for start in tf.range(0, rows, size):
            stop = tf.minimum(start + size, rows)
            with tf.GradientTape() as tape:
                cosines = model([users[start:stop], movies[start:stop]], training=True)[:, 0]
                loss = tf.reduce_mean(tf.square(cosines - targets[start:stop]))
            optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
            total += loss * tf.cast(stop - start, tf.float32)
        return total / tf.cast(rows, tf.float32)

    return run


def _rmse(model: keras.Model, held_out: _HeldOut) -> float:
    errors = [
        model([held_out.users[held_out.user_rows[some]], held_out.movies[held_out.movie_rows[some]]])[
            :, 0
        ].numpy()
        - held_out.targets[some]
        for start in range(0, len(held_out.targets), _PREDICTED_AT_ONCE)
        for some in [slice(start, start + _PREDICTED_AT_ONCE)]
    ]
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def _build(statistics: Statistics, recipe: Recipe) -> tuple[keras.Model, keras.Model]:
    """Towers of dense layers alone, or such that correct what the factors predict."""
    factors = statistics.factors
    if factors is None:
        spec = statistics.spec
        return (
            build_tower("user", spec.user_width, recipe.towers),
            build_tower("item", spec.movie_width, recipe.towers),
        )
    sample = np.linspace(0, len(statistics.learned) - 1, _SCALED_BY).astype(np.int64)
    rows = statistics.leaving_out(np.unique(sample))
    skips = _skips(statistics, factors, recipe.towers.dim - 2)
    user, item = (
        build_correction(name, recipe.towers, skip, part, dropout=recipe.fit.dropout)
        for name, skip, part in zip(("user_rating", "item_rating"), skips, rows, strict=True)
    )
    return to_unit_norm(user, "user", exact=True), to_unit_norm(item, "item", exact=True)


def _skips(statistics: Statistics, factors: RatingFactors, out: int) -> tuple[Skip, Skip]:
    """[constant, factors] of users against [base / constant, factors] of movies."""
    r = factors.movies.shape[1]
    of_user = np.zeros((r + statistics.spec.user_width, out))
    of_user[:r, 1 : r + 1] = np.eye(r) * factors.user_scale
    constant = np.zeros(out)
    constant[0] = factors.constant * factors.user_scale
    of_movie = np.zeros((statistics.spec.movie_width + 1 + r, out))
    of_movie[-r - 1, 0] = factors.movie_scale / factors.constant
    of_movie[-r:, 1 : r + 1] = np.eye(r) * factors.movie_scale
    return Skip(of_user, constant), Skip(of_movie, np.zeros(out))


class _HeldOut(NamedTuple):
    """What towers are judged by: inputs of all users and movies, the rows of both, (m,), and targets."""

    users: FeatureRows
    movies: FeatureRows
    user_rows: Ints
    movie_rows: Ints
    targets: Floats

    @classmethod
    def of(cls, statistics: Statistics, held_out: Interactions) -> Self:
        return cls(
            statistics.user_rows(statistics.train.histories()),
            statistics.movie_rows,
            held_out.user_rows,
            held_out.movie_rows,
            statistics.spec.scale_ratings(held_out.ratings),
        )
