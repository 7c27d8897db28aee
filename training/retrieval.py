"""Fitting the retrieval towers: they learn from a closed form what users will like next.

The closed form scores all movies by as many numbers as there are movies; the towers say nearly the same
by 32. They are taught its softmax (Hinton, Vinyals and Dean, 2015).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from training.checkpoint import Checkpoint
from training.config import Bounds, HybridConfig, OnEpoch, TowerConfig, Watch
from training.epochs import Epochs, Losses
from training.placement import place_movies, sum_evidence
from training.statistics import Statistics
from training.teaching import Examples, Teacher
from training.towers import Skip, build_correction, to_unit_norm
from twotower.arrays import FeatureRows
from twotower.features import HistorySpec, UserEncoder

_LAST_RATE: Final = 0.02
_NEVER: Final = 1e4


class RetrievalTowers(NamedTuple):
    """Fitted towers, (n, dim) of unit norm, and what feeds them.

    movie_rows: float32 (movies, width), the item tower's input.
    """

    user: keras.Model
    item: keras.Model
    encoder: UserEncoder
    movie_rows: FeatureRows


def fit_retrieval(
    statistics: Statistics,
    history: HistorySpec,
    towers: TowerConfig,
    hybrid: HybridConfig,
    bounds: Bounds,
    *,
    seed: int,
    watch: Watch,
    checkpoint: Checkpoint,
) -> RetrievalTowers:
    """Fit two towers to the histories of a training part, ordered by user and time."""
    random = np.random.default_rng(seed)
    config, out = hybrid.retrieval, towers.dim - 1
    teacher = Teacher(statistics, history, config, bounds, random=random, out=out)
    examples = teacher.examples(random)
    encoder = teacher.encoder
    user = build_correction(
        "user_retrieval",
        towers,
        _user_skip(encoder, out),
        examples.inputs,
        input_dropout=config.dropout,
    )
    vectors = tf.Variable(teacher.start)
    with watch("ranking", config.epochs, "cross-entropy") as on_epoch:
        _distil(user, vectors, examples, teacher, random, on_epoch=on_epoch, checkpoint=checkpoint)
    tower = to_unit_norm(user, "user", exact=False)
    columns = encoder.columns.retrieval
    users = np.concatenate(
        [
            tower(encoder.encode(block)[:, columns]).numpy()[:, :out]
            for block in teacher.histories.blocks()
        ]
    )
    train = statistics.train
    placed = place_movies(
        vectors.numpy(),
        teacher.kept,
        statistics.content,
        sum_evidence(train, history.values(train.ratings), users, hybrid.placement.damping),
        towers=towers,
        config=hybrid.placement,
    )
    return RetrievalTowers(tower, placed.tower, encoder, placed.rows)


def _user_skip(encoder: UserEncoder, out: int) -> Skip:
    """What the encoder found, as it is."""
    columns, statistics = encoder.columns.retrieval, encoder.spec.user_width
    kernel = np.zeros((columns.stop - columns.start, out))
    kernel[statistics : statistics + out] = np.eye(out)
    return Skip(kernel, np.zeros(out), trainable=True)


def _distil(
    user: keras.Model,
    vectors: tf.Variable,
    examples: Examples,
    teacher: Teacher,
    random: np.random.Generator,
    *,
    on_epoch: OnEpoch,
    checkpoint: Checkpoint,
) -> None:
    """Bring the softmax over users' products with the movies' vectors to the targets."""
    config, temperature = teacher.config, teacher.history.temperature
    batches = -(-len(examples.inputs) // config.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(
        config.learning_rate, config.epochs * batches, alpha=_LAST_RATE
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
    variables = [*user.trainable_variables, vectors]
    optimizer.build(variables)

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
    def step(inputs: tf.Tensor, targets: tf.Tensor, rated: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            products = tf.matmul(user(inputs, training=True), vectors, transpose_b=True)
            logits = products / temperature - _NEVER * tf.cast(rated, tf.float32)
            losses = tf.nn.softmax_cross_entropy_with_logits(tf.cast(targets, tf.float32), logits)
            loss = tf.reduce_mean(losses)
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def one_epoch() -> Losses:
        order = random.permutation(len(examples.inputs))
        losses = [
            step(*(tf.constant(each[places]) for each in examples))
            for places in np.array_split(order, batches)
        ]
        return float(np.mean(losses)), None

    learning = Epochs(user, optimizer, random, checkpoint, beside=[vectors])
    learning.run(one_epoch, config.epochs, on_epoch)
