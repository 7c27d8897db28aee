"""The two towers in Keras."""

from __future__ import annotations

import keras

from training.config import TowerConfig


def build_tower(name: str, width: int, config: TowerConfig) -> keras.Model:
    """Dense relu layers, a linear one, L2-normalised: (n, width) to (n, dim) of unit norm."""
    # Named, or Keras would count the layers of a process, and the exported bytes with them.
    features = keras.Input((width,), name=f"{name}_features")
    hidden = features
    for depth, units in enumerate(config.hidden, start=1):
        hidden = keras.layers.Dense(units, activation="relu", name=f"hidden_{depth}")(hidden)
    linear = keras.layers.Dense(config.dim, name="linear")(hidden)
    embedding = keras.layers.UnitNormalization(name="embedding")(linear)
    return keras.Model(features, embedding, name=f"{name}_tower")


def join_towers(user_tower: keras.Model, item_tower: keras.Model) -> keras.Model:
    """The model that is fitted: user and item features to the dot product of both, (n, 1)."""
    inputs = [keras.Input(tower.input_shape[1:]) for tower in (user_tower, item_tower)]
    users, movies = user_tower(inputs[0]), item_tower(inputs[1])
    return keras.Model(inputs, keras.layers.Dot(axes=1)([users, movies]))
