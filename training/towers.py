"""The two towers in Keras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import keras
import numpy as np

from training.config import TowerConfig
from training.rating_factors import LONGEST
from twotower.arrays import FeatureRows, Floats

Side = Literal["user", "item"]


@dataclass(frozen=True)
class Skip:
    """A linear map beside the hidden layers, which start at 0: kernel (width, out), bias (out,)."""

    kernel: Floats
    bias: Floats
    trainable: bool = False


def build_tower(name: str, width: int, config: TowerConfig) -> keras.Model:
    """Dense relu layers, a linear one, L2-normalised: (n, width) to (n, dim) of unit norm.

    A vector of 0, as a row of 0 gives at first, becomes the first axis: it has no direction, and the
    gradient of its norm would be no number, nor any weight after it.
    """
    # Named, or Keras would count the layers of a process, and the exported bytes with them.
    features = keras.Input((width,), name=f"{name}_features")
    linear = _dense(features, config, config.dim, "glorot_uniform")
    moved = linear + np.eye(1, config.dim, dtype=np.float32) * _TINY**0.5
    squares = keras.ops.sum(moved * moved, axis=1, keepdims=True)
    embedding = moved * keras.ops.rsqrt(keras.ops.maximum(squares, _TINY**2))
    return keras.Model(features, embedding, name=f"{name}_tower")


def build_correction(
    name: str,
    config: TowerConfig,
    skip: Skip,
    rows: FeatureRows,
    *,
    dropout: float = 0.0,
    input_dropout: float = 0.0,
) -> keras.Model:
    """A skip, and dense layers that correct it: (n, width) to (n, out). They start as the skip alone.

    `rows` (m, width) are what the dense layers' inputs are scaled by.
    """
    width, out = skip.kernel.shape
    features = keras.Input((width,), name=f"{name}_features")
    linear = keras.layers.Dense(out, name="skip", trainable=skip.trainable)
    start = linear(features)
    linear.set_weights([skip.kernel.astype(np.float32), skip.bias.astype(np.float32)])
    mean, deviation = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    # A column that hardly varies is not blown up: what is rare in training may be common elsewhere.
    deviation = np.maximum(deviation, _LEAST_DEVIATION)
    scaled = keras.layers.Rescaling(
        (1 / deviation).tolist(), (-mean / deviation).tolist(), name="scaled"
    )(features)
    if input_dropout:
        scaled = keras.layers.Dropout(input_dropout, name="dropout_0")(scaled)
    correction = _dense(scaled, config, out, "zeros", dropout)
    return keras.Model(features, keras.layers.Add(name="corrected")([start, correction]), name=name)


def to_unit_norm(tower: keras.Model, side: Side, *, exact: bool) -> keras.Model:
    """The tower with its vectors (n, out) made of unit norm, which their inner products survive.

    A vector at most LONGEST long gets a coordinate more that fills it up to 1; the other side's is 0
    there (as for maximum inner product search: Bachrach et al., 2014). With `exact`, users fill up as
    well, in a coordinate of their own, (n, out + 2), and inner products stay what they are; without,
    users are scaled, (n, out + 1), and the order of the movies stays what it is. A user's vector of 0
    then ranks the longest movies first, which are the most liked.
    """
    vectors = tower.output
    length = keras.ops.sqrt(keras.ops.sum(vectors * vectors, axis=1, keepdims=True) + _TINY)
    nothing = keras.ops.zeros_like(length)
    if side == "user" and not exact:
        filled = [vectors / length, -(_TINY**0.5) / length]
    else:
        vectors = vectors * keras.ops.minimum(1.0, LONGEST / length)
        rest = keras.ops.sqrt(1.0 - keras.ops.sum(vectors * vectors, axis=1, keepdims=True))
        filled = [vectors, rest]
        if exact:
            filled = [vectors, rest, nothing] if side == "user" else [vectors, nothing, rest]
    return keras.Model(tower.input, keras.ops.concatenate(filled, axis=1), name=tower.name)


def join_towers(user_tower: keras.Model, item_tower: keras.Model) -> keras.Model:
    """The model that is fitted: user and item features to the dot product of both, (n, 1)."""
    inputs = [keras.Input(tower.input_shape[1:]) for tower in (user_tower, item_tower)]
    users, movies = user_tower(inputs[0]), item_tower(inputs[1])
    return keras.Model(inputs, keras.layers.Dot(axes=1)([users, movies]))


def join_heads(side: Side, width: int, heads: Mapping[str, tuple[slice, keras.Model]]) -> keras.Model:
    """A tower of several heads, each of which sees some of the columns: (n, width) to a dict by name."""
    features = keras.Input((width,), name=f"{side}_features")
    embeddings = {name: head(features[:, columns]) for name, (columns, head) in heads.items()}
    return keras.Model(features, embeddings, name=f"{side}_tower")


def _dense(
    features: keras.KerasTensor, config: TowerConfig, out: int, start: str, dropout: float = 0.0
) -> keras.KerasTensor:
    hidden = features
    for depth, units in enumerate(config.hidden, start=1):
        hidden = keras.layers.Dense(units, activation="relu", name=f"hidden_{depth}")(hidden)
        if dropout:
            hidden = keras.layers.Dropout(dropout, name=f"dropout_{depth}")(hidden)
    return keras.layers.Dense(out, kernel_initializer=start, name="linear")(hidden)


_LEAST_DEVIATION = 0.02
_TINY = 1e-12
