"""Movies' retrieval vectors: learned where a movie is known well, and else what its content says.

The item tower's dense layers learn from the well-known movies where content places a movie. What they
miss is the movie's own: known exactly of those movies, and of the others guessed from who rated them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import keras
import numpy as np
import scipy.sparse as sp

from training.config import PlacementConfig, TowerConfig
from training.content import MovieContent
from training.interactions import Interactions
from training.rating_factors import LONGEST
from training.towers import Skip, build_correction, to_unit_norm
from twotower.arrays import Embeddings, FeatureRows, Floats, Ints
from twotower.features import genre_directions

_FIRST_DECADE: Final = 1920
_DECADES: Final = 11
_LEAST_MOMENT: Final = 1e-3
_BATCHES_AT_ONCE: Final = 8
_LEAST_LENGTH: Final = 1e-6


class PlacedMovies(NamedTuple):
    """The item tower, (n, width) to (n, dim) of unit norm, and its rows: float32 (movies, width)."""

    tower: keras.Model
    rows: FeatureRows


def place_movies(
    learned: FeatureRows,
    known: Ints,
    content: MovieContent,
    evidence: Floats,
    *,
    towers: TowerConfig,
    config: PlacementConfig,
) -> PlacedMovies:
    """Give every movie a vector; of the `known` movies' rows the `learned` ones, float32 (known, d).

    evidence: float64 (movies, d), of those who rated a movie, from `sum_evidence`.
    """
    described = _describe(content)
    dense = _fit_content(described[known], learned, towers, config)
    placed = dense(described).numpy().astype(np.float64)
    missed, seen = learned - placed[known], evidence[known]
    normal = seen.T @ seen + _LEAST_MOMENT * np.eye(seen.shape[1])
    own = evidence @ np.linalg.solve(normal, seen.T @ missed) - config.caution * placed
    own[known] = missed
    scale = LONGEST / max(float(np.linalg.norm(learned, axis=1).max()), _LEAST_LENGTH)
    rows = np.column_stack([described, own]).astype(np.float32)
    return PlacedMovies(_item_tower(dense, rows.shape[1], scale), rows)


def sum_evidence(train: Interactions, values: Floats, users: Embeddings, damping: float) -> Floats:
    """By how much those who rate a movie differ from the average user: float64 (movies, d).

    values: float64 (ratings,), how much a rating counts. users: float32 (users, d). damping: how many
    average users are thought to like each movie beside.
    """
    shape = (train.movies, train.users)
    counted = sp.csr_matrix((values, (train.movie_rows, train.user_rows)), shape=shape)
    known = np.unique(train.user_rows)
    sums = counted @ (users - users[known].mean(axis=0)).astype(np.float64)
    evidence: Floats = sums / (np.asarray(counted.sum(axis=1)) + damping)
    return evidence


def _describe(content: MovieContent) -> FeatureRows:
    """Genres, and how near the year is to each decade's first: float32 (movies, genres + decades)."""
    decades = _FIRST_DECADE + 10 * np.arange(_DECADES)
    years = np.clip(content.years, decades[0], decades[-1])
    near = np.maximum(1 - np.abs(years[:, None] - decades) / 10, 0)
    return np.column_stack([genre_directions(content.genres), np.nan_to_num(near)]).astype(np.float32)


def _fit_content(
    described: FeatureRows, vectors: FeatureRows, towers: TowerConfig, config: PlacementConfig
) -> keras.Model:
    """A ridge regression of the vectors on what is described, and dense layers that correct it."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    normal = described.T @ described + np.eye(described.shape[1])
    kernel = np.linalg.solve(normal, described.T @ (vectors - mean))
    dense = build_correction(
        "item_content", towers, Skip(kernel, mean), described, dropout=config.dropout
    )
    optimizer = keras.optimizers.AdamW(config.learning_rate, weight_decay=config.weight_decay)
    dense.compile(optimizer, "mse", steps_per_execution=_BATCHES_AT_ONCE)
    dense.fit(described, vectors, config.batch_size, config.epochs, verbose=0)
    return dense


def _item_tower(dense: keras.Model, width: int, scale: float) -> keras.Model:
    features = keras.Input((width,), name="item_features")
    described = dense.input_shape[1]
    vectors = dense(features[:, :described]) + features[:, described:]
    scaled = keras.layers.Rescaling(scale, name="scaled")(vectors)
    return to_unit_norm(keras.Model(features, scaled, name="item_retrieval"), "item", exact=False)
